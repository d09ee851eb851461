"""Lock logs compressed by name: ``.gz``, and ``.zst`` where Python or an extra has Zstandard."""

from __future__ import annotations

import gzip
import importlib
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final, cast

from harness.errors import UsageError

READ_BYTES: Final = 1 << 18
SUFFIXES: Final = (".gz", ".zst")
_GZIP_MAGIC: Final = b"\x1f\x8b"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
# The standard library has it from 3.14 on; before, its backport of the same interface.
_ZSTD_MODULES: Final = ("compression.zstd", "backports.zstd")
_CUT: Final = "it ends in the middle"


def check(suffix: str) -> None:
    """Refuse what cannot be written here, before a file is made.

    Raises:
        UsageError: There is no Zstandard here.
    """
    if suffix == ".zst":
        zstd("writing")


def packing(raw: IO[bytes], suffix: str) -> IO[bytes]:
    """Return what compresses into ``raw``; ``raw`` itself where the suffix asks for nothing.

    The same data give the same bytes. Closing it leaves ``raw`` open.

    Raises:
        UsageError: There is no Zstandard here.
    """
    if suffix == ".gz":
        # No name and no time in the header.
        return cast("IO[bytes]", gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))
    if suffix == ".zst":
        return cast("IO[bytes]", zstd("writing").ZstdFile(raw, "wb"))
    return raw


def pieces(stream: IO[bytes]) -> Iterator[tuple[bytes, str]]:
    """Read pieces of limited size, compressed or not, with the problem that ended the reading.

    Raises:
        UsageError: There is no Zstandard here, and the stream is compressed so.
    """
    data = stream.read(READ_BYTES)
    if data.startswith(_GZIP_MAGIC):
        yield from _gunzipped(stream, data)
    elif data.startswith(_ZSTD_MAGIC):
        yield from _unzstandard(stream, data)
    else:
        while data:
            yield data, ""
            data = stream.read(READ_BYTES)


def _gunzipped(stream: IO[bytes], data: bytes) -> Iterator[tuple[bytes, str]]:
    unpack = zlib.decompressobj(wbits=31)
    inside = False
    try:
        while data:
            piece = unpack.decompress(data, READ_BYTES)
            inside = not unpack.eof
            yield piece, ""
            data = unpack.unconsumed_tail if inside else unpack.unused_data
            if not inside:
                unpack = zlib.decompressobj(wbits=31)
            data = data or stream.read(READ_BYTES)
        while piece := unpack.decompress(b"", READ_BYTES):
            yield piece, ""
        if inside and not unpack.eof:
            yield b"", _CUT
    except zlib.error as error:
        yield b"", str(error)


def _unzstandard(stream: IO[bytes], data: bytes) -> Iterator[tuple[bytes, str]]:
    module = zstd("reading")
    unpack = module.ZstdDecompressor()
    try:
        while data:
            yield unpack.decompress(data, READ_BYTES), ""
            while not (unpack.needs_input or unpack.eof):
                yield unpack.decompress(b"", READ_BYTES), ""
            data = unpack.unused_data if unpack.eof else b""
            inside = not unpack.eof
            if not inside:
                unpack = module.ZstdDecompressor()
            data = data or stream.read(READ_BYTES)
            if not data and inside:
                yield b"", _CUT
    except module.ZstdError as error:
        yield b"", str(error)


def zstd(doing: str) -> Any:
    """Return the module that has Zstandard; ``doing`` what with it, for the message.

    Raises:
        UsageError: There is none.
    """
    for name in _ZSTD_MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise UsageError(
        f"{doing} .zst needs Python 3.14, or the extra: python -m pip install 'lockloom[zst]'"
    )
