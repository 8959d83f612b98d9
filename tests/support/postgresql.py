"""A PostgreSQL server for tests, from the operating system's package, on a free port of the loopback address."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import LIMIT_S

USER, PASSWORD = "pawserve", "correct-horse"


class Postgresql:
    """A database server with its files in a folder. Root may not run PostgreSQL, so root runs it as the user nobody."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._owner = "nobody" if os.geteuid() == 0 else None
        if self._owner:
            shutil.chown(folder, self._owner)
        password_file = folder / "password"
        password_file.write_text(PASSWORD)
        if self._owner:
            shutil.chown(password_file, self._owner)
        self._run("initdb", "--no-sync", "-A", "scram-sha-256", "-U", USER, "--pwfile", str(password_file))
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._databases = 0
        self.start()

    def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-t", f"{LIMIT_S:.0f}", "-l", str(self._folder / "log"), "-o", options)

    def stop(self, mode: str = "immediate") -> None:
        """Stop it: by default at once, as a crash does."""
        self._run("pg_ctl", "stop", "-w", "-m", mode)

    def create(self, encoding: str = "UTF8") -> str:
        """The URL of a new, empty database."""
        import psycopg

        self._databases += 1
        name = f"statistics_{self._databases}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        return self.url(name)

    def url(self, database: str) -> str:
        """The URL of a database of this server."""
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        command = [_program(program), "-D", str(self._folder / "data"), *arguments]
        if self._owner:
            # not subprocess's `user`: it forks with all handlers, which gRPC's threads do not always survive
            command = ["runuser", "-u", self._owner, "--", *command]
        # not captured: the server that pg_ctl leaves behind would hold the pipe open
        with (self._folder / "output").open("w+") as output:
            finished = subprocess.run(
                command, cwd=self._folder, stdout=output, stderr=output, timeout=LIMIT_S, check=False
            )
            output.seek(0)
            assert finished.returncode == 0, output.read()


@contextmanager
def running_postgresql() -> Iterator[Postgresql]:
    """Run a server; skip the test where PostgreSQL is not installed."""
    if _program("initdb") == "":
        pytest.skip("needs PostgreSQL's server programs: apt-get install postgresql")
    pytest.importorskip("psycopg", reason="needs the driver: pip install 'pawserve[postgres]'")
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("nobody")
        except KeyError:
            pytest.skip("root may not run PostgreSQL, and there is no user nobody who could")
    with tempfile.TemporaryDirectory(prefix="pawserve-postgresql-") as folder:
        server = Postgresql(Path(folder))
        try:
            yield server
        finally:
            server.stop()


def _program(name: str) -> str:
    """The path of a server program, which Debian does not put on PATH; "" if it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    return shutil.which(name, path=os.pathsep.join([*map(str, reversed(folders)), os.environ.get("PATH", "")])) or ""
