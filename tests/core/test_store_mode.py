"""How functions work without their stores: the table, what the page says of it, and causes that tell nothing."""

import re
from pathlib import Path

import pytest

from proxy.core.store_mode import CAUSES, MEANINGS, TABLE, Function, Mode, Store, cause, mode_of

PAGE = Path(__file__).parents[2] / "docs/operating.md"
STORES = {Store.REDIS: "Redis", Store.DATABASE: "the database"}


def test_every_function_and_mode_has_its_row() -> None:
    assert set(TABLE) == set(Function)
    assert set(MEANINGS) == set(Mode)
    assert {mode for row in TABLE.values() for mode in row.modes} == set(Mode)
    for function, row in TABLE.items():
        assert row.away is not Mode.SHARED, function
        assert bool(row.at_worst) == bool(row.worst), function


def test_the_operators_page_has_the_table() -> None:
    text = PAGE.read_text()
    listed = re.findall(r"^\| `(\w+)` \| (Redis|the database) \| `(\w+)` \| (.*) \|$", text, re.MULTILINE)
    rows = []
    for function, row in TABLE.items():
        rows.append((function.value, STORES[row.store], row.away.value, row.meaning))
        if row.at_worst is not None:
            rows.append((function.value, STORES[row.store], row.at_worst.value, row.worst))
    assert listed == rows
    for mode, meaning in MEANINGS.items():
        assert f"- `{mode.value}`: {meaning}\n" in text
    assert ", ".join(f"`{one}`" for one in CAUSES) in text


@pytest.mark.parametrize("function", list(Function))
def test_a_mode_is_one_of_the_row(function: Function) -> None:
    row = TABLE[function]
    assert mode_of(function, away=False) is Mode.SHARED
    assert mode_of(function, away=False, at_worst=True) is Mode.SHARED
    assert mode_of(function, away=True) is row.away
    assert mode_of(function, away=True, at_worst=True) is (row.at_worst or row.away)
    assert set(row.modes) >= {mode_of(function, away=True, at_worst=worst) for worst in (False, True)}


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ("ConnectionError: Error 111 connecting to 10.0.0.7:6379. Connect call failed ('10.0.0.7', 6379)", "not there"),
        ("ConnectionRefusedError: [Errno 111] Connect call failed ('10.0.0.7', 6379)", "not there"),
        ("PostgreSQL at the local socket/t1: [Errno 2] No such file or directory", "not there"),
        ("PostgreSQL at db:5432/x: TimeoutError", "no answer"),
        ("no answer within 30 s", "no answer"),
        ("ReadOnlyError: You can't write against a read only replica.", "takes no writes"),
        ("OutOfMemoryError: OOM command not allowed when used memory > 'maxmemory'.", "out of memory"),
        ("BusyLoadingError: LOADING Redis is loading the dataset in memory", "starting"),
        ("PostgreSQL at x/y: the database system is starting up", "starting"),
        ("PostgreSQL at x/y: terminating connection due to administrator command", "shutting down"),
        ("AuthenticationError: WRONGPASS invalid username-password pair or user is disabled.", "not let in"),
        ("ledger.sqlite3: database is locked", "locked"),
        ('PostgreSQL at x/y: relation "penstock_ledger" does not exist', "emptied"),
        ("ConnectionResetError: [Errno 104] Connection reset by peer", "cut off"),
        ("No space left on device", "disk full"),
        ("the journal cannot be written: [Errno 28] No space left on device", "journal full"),
        ("something quite new of 10.0.0.7", "failed"),
    ],
)
def test_a_cause_is_a_word_of_ours(said: str, word: str) -> None:
    assert cause(said) == word
    assert word in CAUSES
