"""A file that is moved away, replaced or a folder: the operator is told, and nothing is written where nobody finds it."""

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from proxy.core.audit import act
from proxy.ports import StoreAway, StoreUnusable
from proxy.stores.sqlite.audit import SqliteAudit
from proxy.stores.sqlite.keys import SqliteKeys
from proxy.stores.sqlite.ledger import SqliteLedger
from proxy.stores.sqlite.secrets import SqliteSecrets
from tests.keys import new_key
from tests.rows import row


class Kind(NamedTuple):
    """A store, and what writes to it and reads from it."""

    make: Callable[..., Any]
    write: Callable[[Any], Awaitable[Any]]
    read: Callable[[Any], Awaitable[Any]]


KINDS = {
    "keys": Kind(SqliteKeys, lambda store: store.create(new_key()[1]), lambda store: store.changes(0, 10)),
    "secrets": Kind(SqliteSecrets, lambda store: store.remove("none"), lambda store: store.change()),
    "audit": Kind(
        SqliteAudit, lambda store: store.append(act(1, "admin key", "a", "done")), lambda store: store.head()
    ),
    "ledger": Kind(SqliteLedger, lambda store: store.write([row()]), lambda store: store.newest_seq()),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


async def test_a_file_that_is_moved_away_is_told_and_goes_on_when_it_is_back(kind: Kind, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "store.sqlite3", tmp_path / "elsewhere"
    store = kind.make(path)
    await kind.write(store)
    before = await kind.read(store)
    path.rename(elsewhere)
    for asked in (kind.write, kind.read):
        with pytest.raises(StoreAway, match=r"store\.sqlite3 is gone: .* Put it back"):
            await asked(store)
    another = kind.make(path)  # a command, or the next start
    with pytest.raises(
        StoreUnusable, match=r"is missing, and store\.sqlite3-wal beside it holds what was last written"
    ):
        await kind.write(another)
    await another.close()
    if kind.make in (SqliteAudit, SqliteLedger):
        looking = kind.make(path, read_only=True)
        with pytest.raises(StoreUnusable, match=r"is missing, and store\.sqlite3-wal beside it"):
            await kind.read(looking)
        await looking.close()
    assert not path.exists(), "an empty one would hide that it is missing"
    elsewhere.rename(path)
    assert await kind.read(store) == before, "what was in the log beside it is there too"
    await kind.write(store)
    await store.close()


async def test_a_file_that_is_replaced_is_told_once_and_read_anew(kind: Kind, tmp_path: Path) -> None:
    path, other = tmp_path / "store.sqlite3", tmp_path / "other.sqlite3"
    empty = kind.make(other)
    unwritten = await kind.read(empty)
    await empty.close()
    store = kind.make(path)
    await kind.write(store)
    written = await kind.read(store)
    for name in ("", "-wal", "-shm"):
        Path(f"{path}{name}").unlink(missing_ok=True)
    shutil.move(other, path)
    with pytest.raises(StoreAway, match="was replaced while it was in use"):
        await kind.write(store)
    for _ in range(2):  # of two connections each is told
        try:
            seen = await kind.read(store)
        except StoreAway:
            continue
        assert seen == unwritten or seen != written
        break
    else:
        pytest.fail("it is not opened anew")
    await store.close()


async def test_a_folder_is_no_store(kind: Kind, tmp_path: Path) -> None:
    (tmp_path / "store.sqlite3").mkdir()
    store = kind.make(tmp_path / "store.sqlite3")
    for asked in (kind.write, kind.read):
        with pytest.raises(StoreUnusable, match=r"store\.sqlite3 is a folder, and must be a file\. Move it away"):
            await asked(store)
    await store.close()
