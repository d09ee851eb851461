"""A PostgreSQL server of our own, from the system's programs, in a temporary folder."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, create_engine, text

# Debian keeps them off the path.
_DEBIAN = Path("/usr/lib/postgresql")
_START_SECONDS = 60.0


class NoServer(Exception):
    """There is no PostgreSQL here, or it does not start."""


class Server:
    """A running server; its data is gone with it."""

    def __init__(self, socket: Path) -> None:
        self._url = URL.create(
            "postgresql+psycopg",
            username="lockloom",
            database="postgres",
            query={"host": str(socket)},
        )
        self._numbers = itertools.count(1)

    def database(self) -> str:
        """The URL of a database that nobody has used."""
        name = f"store{next(self._numbers)}"
        engine = create_engine(self._url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return self._url.set(database=name).render_as_string()


def program(name: str) -> str:
    """The path of one of the server's programs."""
    places = [str(path) for path in sorted(_DEBIAN.glob("*/bin"), reverse=True)]
    found = shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise NoServer(f"there is no {name}: install PostgreSQL's server (Debian: postgresql)")
    return found


def _wait(process: subprocess.Popen[bytes], data: Path, log: Path) -> None:
    """Until the server says that it is ready, as pg_ctl does."""
    until = time.monotonic() + _START_SECONDS
    status = data / "postmaster.pid"
    while True:
        lines = status.read_text().splitlines() if status.exists() else []
        if len(lines) > 7 and lines[7].strip() == "ready":
            return
        if process.poll() is not None or time.monotonic() > until:
            said = log.read_text(errors="replace").strip().splitlines()
            raise NoServer(f"postgres does not start: {said[-1:]}")
        time.sleep(0.02)


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """Run a server for the length of the block; as another user where we are root."""
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    options: dict[str, Any] = {"cwd": folder, "stdin": subprocess.DEVNULL}
    if os.geteuid() == 0:
        account = _account()
        os.chown(folder, account.pw_uid, account.pw_gid)
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data, log = folder / "data", folder / "log"
    try:
        with log.open("wb") as output:
            options |= {"stdout": output, "stderr": output}
            # Nothing of this is to survive a power cut.
            initdb = [
                program("initdb"),
                "-D",
                str(data),
                "-A",
                "trust",
                "-U",
                "lockloom",
                "--no-sync",
            ]
            if subprocess.run(initdb, check=False, timeout=100, **options).returncode:
                raise NoServer(f"initdb failed: {log.read_text(errors='replace')[-400:]}")
            settings = ["listen_addresses=", "fsync=off", f"unix_socket_directories={folder}"]
            words = [word for setting in settings for word in ("-c", setting)]
            process = subprocess.Popen([program("postgres"), "-D", data, *words], **options)
            try:
                _wait(process, data, log)
                yield Server(folder)
            finally:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _account() -> pwd.struct_passwd:
    """Whom the server may run as: it refuses root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise NoServer("root may not run postgres, and there is no user postgres nor nobody")
