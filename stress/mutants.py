"""Planted bugs: read from TOML, applied to the source as it is imported.

``install`` must run in a process that has not imported the module in question yet; nothing in the
model knows of it. The edited module keeps its file name, and ``linecache`` gets the edited text, so
that sites and reports show what really ran.

Each ``[[mutant]]`` has ``id``, ``title``, ``file`` (from the folder that holds the package, such as
``model/pmm.py``), ``before`` and ``after`` (exact text; ``before`` stands exactly once), ``depth``
(fewest preemptions that expose it), ``oracle`` (what should notice), ``scenario`` and, where they
differ from the default, ``faults``, ``revision`` ("fixed") and ``control`` (true for an edit that
changes nothing and must not be found).
"""

from __future__ import annotations

import importlib.util
import linecache
import sys
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path, PurePosixPath
from types import CodeType, ModuleType
from typing import Any, Final

from harness.errors import InternalError, TokenError, UsageError
from stress import catalogue, given
from stress.catalogue import Spec
from stress.program import PROGRAM

_FIELDS: Final[dict[str, type]] = {
    "id": str,
    "title": str,
    "file": str,
    "before": str,
    "after": str,
    "depth": int,
    "oracle": str,
    "scenario": str,
}
_DEPTH_MAX: Final = 1_000
_OPTIONAL: Final[dict[str, type]] = {"faults": str, "revision": str, "control": bool}
_SOURCE: Final = ("before", "after")
# Of every other text: messages, tables and tokens show them whole.
_SHOWN_CHARS_MAX: Final = 200
# Of the list that the mutants were taken from: the seed has these by itself, as latent defects.
_DEFECTS: Final = {"M26": "L2", "M50": "L1", "M51": "L4", "M52": "L3"}


class MutantError(UsageError):
    """A planted bug cannot be planted; the message names it and its catalogue."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug; the fields are described above."""

    id: str
    title: str
    file: str
    before: str
    after: str
    depth: int
    oracle: str
    scenario: str
    faults: str = ""
    revision: str = "fixed"
    control: bool = False

    @property
    def module(self) -> str:
        """Dotted name of the module that it edits."""
        parts = Path(self.file).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def edit(self) -> str:
        """Checksum of the edit, for tokens."""
        text = f"{self.file}\0{self.before}\0{self.after}"
        return f"{zlib.crc32(text.encode()):08x}"

    @property
    def spec(self) -> Spec:
        """The program that shows it."""
        return Spec(
            scenario=self.scenario,
            revision=self.revision,
            mutant=self.id,
            edit=self.edit,
            faults=self.faults,
        )

    def apply(self, source: str, where: str) -> str:
        """Edit ``source``.

        Raises:
            MutantError: ``before`` does not stand exactly once in it.
        """
        count = source.count(self.before)
        if count != 1:
            found = "is not in" if count == 0 else f"stands {count} times in"
            raise MutantError(
                f"mutant {self.id}: its `before` {found} {where}, but must stand there exactly "
                "once; bring the mutant up to date with the source"
            )
        return source.replace(self.before, self.after)


def default_catalogue() -> Path:
    """Where ``mutants.toml`` of the model is; the model is not imported for that."""
    spec = importlib.util.find_spec("model")
    if spec is None or not spec.submodule_search_locations:
        raise MutantError("the package model is not installed; install the project whole")
    return Path(next(iter(spec.submodule_search_locations))) / "mutants.toml"


def read(path: Path | None = None) -> list[Mutant]:
    """All mutants of a catalogue, in its order.

    Args:
        path: A TOML file; None takes the model's own.

    Raises:
        MutantError: It cannot be read, or an entry is not as described above.
    """
    path = default_catalogue() if path is None else path
    what = "the mutant catalogue"
    data = given.read_toml(path, what, dict[str, Any], "is no valid TOML", MutantError)
    entries = data.get("mutant")
    if not isinstance(entries, list) or not entries:
        raise MutantError(f"the mutant catalogue {path} holds no [[mutant]] entry")
    found: dict[str, Mutant] = {}
    for number, entry in enumerate(entries, 1):
        mutant = _mutant(entry, number, path)
        if mutant.id in found:
            raise MutantError(f"mutant {mutant.id} stands twice in {path}; give one another id")
        found[mutant.id] = mutant
    return list(found.values())


def choose(mutants: Sequence[Mutant], only: Iterable[str]) -> list[Mutant]:
    """Those named by ``only``, in catalogue order; all where it is empty.

    Raises:
        UsageError: There is none of some id.
    """
    wanted = list(only)
    known = [mutant.id for mutant in mutants]
    for name in wanted:
        if name not in known:
            defects = {each for entry in catalogue.discover().values() for each in entry.defects}
            defect = _DEFECTS.get(name, name)
            if defect in defects:
                known_as = "" if defect == name else f", {defect}"
                raise UsageError(
                    f"{name} is a latent defect{known_as}: `{PROGRAM} defects --only {defect}`"
                )
            raise catalogue.unknown("mutant", name, known)
    return [mutant for mutant in mutants if not wanted or mutant.id in wanted]


def install_for(spec: Spec, path: Path | None = None) -> Installed | None:
    """Plant the bug that ``spec`` names; None where it names none.

    Raises:
        TokenError: The mutant has been edited or removed since the token was made.
        MutantError: As ``read`` and ``install``.
    """
    if not spec.mutant:
        return None
    where = default_catalogue() if path is None else path
    mutant = next((mutant for mutant in read(where) if mutant.id == spec.mutant), None)
    if mutant is None:
        raise TokenError(
            f"mutant {spec.mutant} is not in {where}; name the file that has it with --catalogue"
        )
    if spec.edit and mutant.edit != spec.edit:
        raise TokenError(
            f"mutant {spec.mutant} has been edited since this token was made; "
            f"find it again with `{PROGRAM} mutants --only {spec.mutant}`"
        )
    return install(mutant)


def install(mutant: Mutant) -> Installed:
    """Plant ``mutant`` in this process: the edit is made when its module is first imported.

    Raises:
        MutantError: The file is missing, or the edit does not fit it.
        InternalError: The module is imported already, unedited.
    """
    if mutant.module in sys.modules:
        raise InternalError(
            f"mutant {mutant.id}: {mutant.module} is imported already; a mutant needs a "
            "fresh process"
        )
    installed = Installed(mutant)
    sys.meta_path.insert(0, installed)
    return installed


class Installed(MetaPathFinder):
    """The import hook of one planted bug.

    Attributes:
        mutant: What it plants.
        applied: Whether the edited module has been imported.
    """

    def __init__(self, mutant: Mutant) -> None:
        """See that the edit fits before anything runs."""
        self.mutant = mutant
        self.applied = False
        self.path = self._path()
        mutant.apply(self.path.read_text(encoding="utf-8"), mutant.file)

    def _path(self) -> Path:
        """The file, beside the top-level package as it would be imported."""
        top, _, _ = self.mutant.module.partition(".")
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
            path = Path(folder).parent / self.mutant.file
            if given.is_file(path):
                return path
        raise MutantError(f"mutant {self.mutant.id}: there is no file {self.mutant.file}")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Take over the one module; see ``importlib.abc.MetaPathFinder``."""
        if fullname != self.mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _EditingLoader(fullname, str(self.path), self)
        return spec

    def confirm(self) -> None:
        """See that the planted bug took part in what ran.

        Raises:
            MutantError: The module was never imported, so nothing was tested.
        """
        if not self.applied:
            raise MutantError(
                f"mutant {self.mutant.id}: scenario {self.mutant.scenario} never imports "
                f"{self.mutant.module}; name a scenario that does"
            )


class _EditingLoader(SourceFileLoader):
    """Compiles the edited text; reads and writes no bytecode cache."""

    def __init__(self, fullname: str, path: str, installed: Installed) -> None:
        super().__init__(fullname, path)
        self._installed = installed

    def get_code(self, fullname: str) -> CodeType:
        """See ``importlib.abc.InspectLoader``."""
        mutant = self._installed.mutant
        path = self.get_filename(fullname)
        text = mutant.apply(Path(path).read_text(encoding="utf-8"), mutant.file)
        # No modification time: linecache then never looks at the unedited file on disk.
        linecache.cache[path] = (len(text), None, text.splitlines(keepends=True), path)
        try:
            code = compile(text, path, "exec", dont_inherit=True)
        except SyntaxError as error:
            raise MutantError(
                f"mutant {mutant.id}: after the edit {mutant.file} no longer compiles "
                f"(line {error.lineno}: {error.msg}); mend its `after`"
            ) from None
        self._installed.applied = True
        return code


def _mutant(entry: Any, number: int, path: Path) -> Mutant:
    name = f"number {number}"
    if isinstance(entry, dict) and isinstance(entry.get("id"), str):
        name = given.short(entry["id"])
    if not isinstance(entry, dict):
        raise MutantError(f"mutant {name} in {path} is no table")
    for key in entry:
        if key not in _FIELDS and key not in _OPTIONAL:
            raise MutantError(f"mutant {name} in {path}: unknown field {given.short(key)!r}")
    for key, kind in (_FIELDS | _OPTIONAL).items():
        if key not in entry:
            if key in _FIELDS:
                raise MutantError(f"mutant {name} in {path}: the field {key!r} is missing")
            continue
        if type(entry[key]) is not kind:
            raise MutantError(f"mutant {name} in {path}: {key!r} must be of type {kind.__name__}")
        if kind is str and key not in _SOURCE and len(entry[key]) > _SHOWN_CHARS_MAX:
            raise MutantError(
                f"mutant {name} in {path}: {key!r} has {len(entry[key]):,} characters, and at most "
                f"{_SHOWN_CHARS_MAX} are shown; shorten it"
            )
    if not entry["before"] or entry["before"] == entry["after"]:
        raise MutantError(f"mutant {name} in {path}: `before` is empty or equals `after`")
    if not 0 <= entry["depth"] <= _DEPTH_MAX:
        raise MutantError(f"mutant {name} in {path}: 'depth' is from 0 to {_DEPTH_MAX}")
    file = PurePosixPath(entry["file"])
    if file.is_absolute() or ".." in file.parts or file.suffix != ".py":
        raise MutantError(
            f"mutant {name} in {path}: 'file' is a .py file, written from the folder that holds "
            "its package, such as model/pmm.py"
        )
    return Mutant(**entry)
