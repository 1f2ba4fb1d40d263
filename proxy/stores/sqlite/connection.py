"""Connections to one file: write-ahead log, full sync, migrated; and the foreign errors mapped, here and nowhere else."""

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from proxy.ports import StoreAway, StoreUnusable
from proxy.stores.migrations import Migration, pending, refuse_old

BUSY_S: Final = 5.0  # how long a writer waits for another process's transaction
_WAL_TRIES: Final = 50
_VERSION: Final = "SELECT coalesce(max(version), 0) FROM penstock_schema WHERE part = ?"


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Maps what SQLite raises to what the port may raise."""
    try:
        yield
    except sqlite3.Error as error:
        if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
            raise StoreUnusable(f"{path} is no SQLite database. Move it away, or set PENSTOCK_DATA.") from error
        raise StoreAway(f"{path}: {error}") from error
    except OSError as error:
        raise StoreAway(f"{path}: {error.strerror or error}") from error


def writer(path: Path, part: str, migrations: Sequence[Migration], busy_s: float = BUSY_S) -> sqlite3.Connection:
    """The connection that writes, its schema brought up to date. Raises what SQLite raises, and `StoreUnusable`.

    Concurrency: used by one thread at a time, whichever. ``isolation_level`` None: transactions are begun here, by name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    refuse_misplaced(path)
    _make(path)
    connection = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = FULL")
        with transaction(connection):
            connection.execute(
                "CREATE TABLE IF NOT EXISTS penstock_schema "
                "(part TEXT NOT NULL, version INTEGER NOT NULL, name TEXT NOT NULL, PRIMARY KEY (part, version))"
            )
            for migration in pending(migrations, _version(connection, part), str(path)):
                for statement in _statements(migration.sql):
                    connection.execute(statement)
                connection.execute(
                    "INSERT INTO penstock_schema (part, version, name) VALUES (?, ?, ?)",
                    (part, migration.version, migration.name),
                )
    except BaseException:
        connection.close()
        raise
    return connection


def reader(
    path: Path, part: str, migrations: Sequence[Migration], busy_s: float = BUSY_S, *, what: str
) -> sqlite3.Connection:
    """A connection that cannot write. ``what``: the part's name in messages.

    Raises what SQLite raises, and `StoreUnusable` for any other schema than ours.
    """
    refuse_misplaced(path)
    if not path.is_file():
        raise StoreUnusable(f"{path}: there is no {what} yet. `penstock serve` makes it; PENSTOCK_DATA says where.")
    uri = f"{path.absolute().as_uri()}?mode=ro"
    connection = sqlite3.connect(uri, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        known = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'penstock_schema'").fetchone()[0]
        refuse_old(migrations, _version(connection, part) if known else 0, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """One that writes: it holds the file's write lock from its first line, so what it reads cannot change under it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def refuse_misplaced(path: Path) -> None:
    """A folder is no store; and a file that is missing from beside its log is not to be made anew.

    SQLite removes a log that it finds beside an empty file, and what it holds is lost to the file that is missing.
    """
    if path.is_dir():
        raise StoreUnusable(f"{path} is a folder, and must be a file. Move it away, or set PENSTOCK_DATA.")
    log = path.with_name(f"{path.name}-wal")
    if log.exists() and not path.exists():
        raise StoreUnusable(
            f"{path} is missing, and {log.name} beside it holds what was last written there. Put the file back; to begin "
            f"with an empty one, move {log.name} away."
        )


def _make(path: Path) -> None:
    """An empty file that is its owner's alone, where there is none: who used what is nobody else's business.

    A file that is there is never opened here: closing any descriptor of it drops all locks that this process has on it,
    those of its other connections too (https://www.sqlite.org/howtocorrupt.html section 2.2, read 2026-11-21). The next
    process to close the file would then take itself for the last one and remove the log that this one goes on writing to.
    """
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    try:
        with suppress(FileExistsError):  # somebody else was quicker
            path.hardlink_to(draft)
    finally:
        draft.unlink()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Two processes that do this at once to a new file may be told `locked` without any wait, so the wait is here."""
    for left in reversed(range(_WAL_TRIES)):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if not left:
                raise
            time.sleep(0.02)
        else:
            return


def _version(connection: sqlite3.Connection, part: str) -> int:
    found: int = connection.execute(_VERSION, (part,)).fetchone()[0]
    return found


def _statements(script: str) -> Iterator[str]:
    """A script's statements one by one: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip() or statement.lstrip().startswith("--"), statement  # noqa: S101 - our own files
