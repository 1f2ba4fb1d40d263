"""One suite for every implementation of the port `SecretStore`: a new store is one line in `STORES`."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.ports import SealedSecret, SecretStore, StoreAway, StoreUnusable
from proxy.stores.migrations import Migration
from proxy.stores.postgres import secrets as postgres_secrets
from proxy.stores.postgres.secrets import PostgresSecrets
from proxy.stores.sqlite import secrets as sqlite_secrets
from proxy.stores.sqlite.secrets import SqliteSecrets
from tests.postgres import Postgres

Open = Callable[..., SecretStore]  # each call opens the same store anew, as another process would
STORES = ("sqlite", "postgres")


@pytest.fixture(params=STORES)
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    stores: list[SecretStore] = []
    url = ""
    if request.param == "postgres":
        server: Postgres = request.getfixturevalue("postgres")
        url = await server.new_database()

    def made(**options: Any) -> SecretStore:
        store: SecretStore
        if request.param == "postgres":
            store = PostgresSecrets(url, **options)
        else:
            store = SqliteSecrets(tmp_path / "data" / "trust.sqlite3", **options)
        stores.append(store)
        return store

    yield made
    for store in stores:
        await store.close()


@pytest.fixture
async def store(open_store: Open) -> SecretStore:
    return open_store()


def secret(name: str, version: int, key_id: str = "k1", sealed: bytes = b"\0\xff sealed") -> SealedSecret:
    return SealedSecret(name, version, key_id, sealed, 1_795_262_400_000_000 + version)


async def test_a_new_store_holds_nothing(store: SecretStore) -> None:
    held = await store.load()
    assert (held.change, held.secrets, held.find("openai"), await store.change()) == (0, (), None, 0)


async def test_what_is_put_is_held_by_name(store: SecretStore, open_store: Open) -> None:
    openai, groq = secret("openai", 1), secret("GROQ_API_KEY", 2, "k2", bytes(range(256)))
    assert [await store.put(openai), await store.put(groq)] == [True, True]
    held = await open_store().load()
    assert (held.change, {one.name: one for one in held.secrets}) == (2, {"openai": openai, "GROQ_API_KEY": groq})
    assert held.find("openai") == openai


async def test_a_name_is_held_once(store: SecretStore) -> None:
    await store.put(secret("openai", 1))
    newer = secret("openai", 2, "k2", b"other")
    assert await store.put(newer)
    assert (await store.load()).secrets == (newer,)


@pytest.mark.parametrize("version", [0, 1, 3])
async def test_what_was_sealed_for_another_change_is_not_put(store: SecretStore, version: int) -> None:
    first = secret("openai", 1)
    await store.put(first)
    assert not await store.put(secret("openai", version, "k2"))
    assert not await store.put(secret("groq", version))
    held = await store.load()
    assert (held.change, held.secrets) == (1, (first,))


async def test_what_is_removed_is_gone_and_its_version_never_comes_again(store: SecretStore) -> None:
    await store.put(secret("openai", 1))
    assert [await store.remove("openai"), await store.remove("openai"), await store.remove("groq")] == [
        True,
        False,
        False,
    ]
    assert (await store.load()).secrets == ()
    assert await store.change() == 2
    assert not await store.put(secret("openai", 1))
    assert await store.put(secret("openai", 3))


async def test_of_those_who_put_at_once_one_is_first(store: SecretStore, open_store: Open) -> None:
    others = [store, *(open_store() for _ in range(3))]
    done = await asyncio.gather(*(one.put(secret(f"name-{number}", 1)) for number, one in enumerate(others)))
    assert sorted(done) == [False, False, False, True]
    held = await store.load()
    assert (held.change, len(held.secrets)) == (1, 1)


async def test_processes_that_open_it_at_once_make_it_once(open_store: Open) -> None:
    assert await asyncio.gather(*(open_store().change() for _ in range(6))) == [0] * 6


async def test_a_store_of_a_newer_version_is_refused(store: SecretStore, open_store: Open) -> None:
    known = postgres_secrets.MIGRATIONS if isinstance(store, PostgresSecrets) else sqlite_secrets.MIGRATIONS
    newer = open_store(migrations=[*known, Migration(2, "0002_more", "CREATE TABLE more (n INTEGER);")])
    await newer.change()
    with pytest.raises(StoreUnusable, match="newer Penstock"):
        await open_store().load()


async def test_names_that_would_be_code_are_names(store: SecretStore) -> None:
    """S17."""
    hostile = "x'; DROP TABLE secret; --"
    assert await store.put(secret(hostile, 1))
    assert not await store.remove("x")
    assert (await store.load()).secrets == (secret(hostile, 1),)


async def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "trust.sqlite3"
    path.write_bytes(b"no database at all" * 100)
    store = SqliteSecrets(path)
    with pytest.raises(StoreUnusable, match="is no SQLite database"):
        await store.load()
    await store.close()


async def test_a_locked_file_is_away_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "trust.sqlite3"
    store = SqliteSecrets(path, busy_s=0.01)
    await store.put(secret("openai", 1))
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreAway):
            await store.put(secret("openai", 2))
        other.execute("ROLLBACK")
    other.close()
    assert await store.put(secret("openai", 2))
    await store.close()


async def test_a_database_that_is_away_is_told(tmp_path: Path) -> None:
    store = PostgresSecrets(f"postgresql://penstock@localhost/p?host={tmp_path}")
    with pytest.raises(StoreAway):
        await store.change()
    await store.close()


async def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = SqliteSecrets(tmp_path / "data" / "trust.sqlite3")
    await store.put(secret("openai", 1))
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "data").iterdir()} == {0}
    await store.close()
