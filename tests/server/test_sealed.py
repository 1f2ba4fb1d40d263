"""What is sealed in an installation: which keys open it, when a start is refused, and how changes are seen."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.core.credential import NOTHING_SEALED, Vault
from proxy.core.envelope import Keyring, MasterKey, seal
from proxy.ports import SealedSecret, SecretsHeld, StoreAway, StoreUnusable
from proxy.server import own_secrets, rotation, sealed
from proxy.server.own_secrets import MASTER_KEY, PREVIOUS_MASTER_KEY, SecretRefused
from proxy.server.sealed_watch import SealedWatch
from proxy.server.settings import Settings
from proxy.stores.sqlite.secrets import SqliteSecrets
from tests.gateway import RecordingLog

OLD = "old-BQ8wIqH3Yk0mYxKZ2cJ7nV5sD1rT9uLg"
NEW = "new-uT4pZ7eW1aQ9sX3dC6vB8nM2kL5jH0gF"
WEAK = "too-short"


def ids(ring: Keyring | None) -> list[str]:
    return [] if ring is None else [ring.current.id, *(key.id for key in ring.previous)]


def key_ids(*secrets: str) -> list[str]:
    return [MasterKey.of(secret).id for secret in secrets]


def held(*rows: SealedSecret) -> SecretsHeld:
    return SecretsHeld(len(rows), rows)


def row(name: str, secret: str, value: str, version: int = 1) -> SealedSecret:
    key = MasterKey.of(secret)
    return SealedSecret(name, version, key.id, seal(key, name, version, value), 1_795_262_400_000_000)


# The keys.


def test_a_key_is_made_once_where_it_is_kept(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    assert sealed.keyring(settings) is None
    made = sealed.keyring(settings, make=True)
    assert ids(made) == ids(sealed.keyring(settings)) == ids(sealed.keyring(settings, make=True)) != []
    assert (tmp_path / "data/master.key").stat().st_mode & 0o777 == 0o600


def test_the_environments_keys_come_before_what_is_kept(tmp_path: Path) -> None:
    kept = own_secrets.obtain(MASTER_KEY, None, tmp_path).value
    assert ids(sealed.keyring(Settings(data=tmp_path, master_key=NEW))) == key_ids(NEW, kept)
    both = Settings(data=tmp_path, master_key=NEW, master_key_previous=OLD)
    assert ids(sealed.keyring(both)) == key_ids(NEW, OLD, kept)
    assert ids(sealed.keyring(Settings(data=tmp_path, master_key_previous=OLD))) == key_ids(kept, OLD)


def test_a_shared_database_is_opened_with_the_environments_key_alone(tmp_path: Path) -> None:
    own_secrets.obtain(MASTER_KEY, None, tmp_path)
    shared = Settings(data=tmp_path, database_url="postgresql://x/y")
    assert sealed.keyring(shared, make=True) is None
    given = Settings(data=tmp_path, database_url="postgresql://x/y", master_key=NEW, master_key_previous=OLD)
    assert ids(sealed.keyring(given)) == key_ids(NEW, OLD)


@pytest.mark.parametrize("given", [(WEAK, None), (NEW, WEAK)])
def test_s15_a_weak_key_is_refused(tmp_path: Path, given: tuple[str, str | None]) -> None:
    with pytest.raises(SecretRefused, match="has 9 characters") as caught:
        sealed.keyring(Settings(data=tmp_path, master_key=given[0], master_key_previous=given[1]))
    assert WEAK not in str(caught.value)


# What they open.


def test_what_cannot_be_opened_is_told_and_keeps_nobody_else() -> None:
    ring = Keyring(MasterKey.of(NEW))
    moved = row("groq", NEW, "sk-groq")
    found = sealed.open_all(
        held(row("openai", NEW, "sk-openai"), row("xai", OLD, "sk-xai"), SealedSecret("mistral", 1, *_of(moved))), ring
    )
    assert (found.values, sorted(found.unopened), found.change) == ({"openai": "sk-openai"}, ["mistral", "xai"], 3)
    assert found.unopened["xai"].startswith(f"it is sealed with the master key {key_ids(OLD)[0]}, and the one here is")
    assert "changed after it was sealed" in found.unopened["mistral"]
    without = sealed.open_all(held(row("openai", NEW, "sk-openai")), None)
    assert "PENSTOCK_MASTER_KEY is not set" in without.unopened["openai"]


def _of(secret: SealedSecret) -> tuple[str, bytes, int]:
    return secret.key_id, secret.sealed, secret.created_us


def test_what_is_known_stays_while_another_process_rotates() -> None:
    """But nothing that was tampered with does."""
    known = Vault({"openai": "sk-openai", "groq": "sk-groq"})
    moved = SealedSecret("groq", 1, *_of(row("other", OLD, "sk-other")))
    found = sealed.open_all(held(row("openai", NEW, "sk-openai"), moved), Keyring(MasterKey.of(OLD)), known)
    assert (found.values, list(found.unopened)) == ({"openai": "sk-openai"}, ["groq"])


# The start.


def test_a_start_opens_what_there_is(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    assert sealed.at_start(settings, needed=True) == Vault({}, {}, 0)
    asyncio.run(_put(settings, "openai", "sk-openai"))
    assert sealed.at_start(settings, needed=False) == sealed.as_now(settings) == Vault({"openai": "sk-openai"}, {}, 1)


def test_a_command_that_looks_makes_nothing(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    assert sealed.as_now(settings) == NOTHING_SEALED
    assert not (tmp_path / "data").exists()


async def _put(settings: Settings, name: str, value: str) -> None:
    store, ring = sealed.store(settings), sealed.keyring(settings)
    assert ring is not None
    await rotation.put(store, ring, name, value, 1)
    await store.close()


async def test_a_shared_database_wants_its_key_as_soon_as_something_is_sealed(tmp_path: Path, database: str) -> None:
    """Refused only then: whoever seals nothing needs no key."""
    given = Settings(data=tmp_path, database_url=database, master_key=NEW)
    without = Settings(data=tmp_path, database_url=database)
    start = asyncio.to_thread
    assert (await start(sealed.at_start, without, needed=False)).values == {}
    with pytest.raises(sealed.SealedRefused, match="PENSTOCK_MASTER_KEY is not set, and the routes file names"):
        await start(sealed.at_start, without, needed=True)
    await _put(given, "openai", "sk-openai")
    assert (await start(sealed.at_start, given, needed=False)).values == {"openai": "sk-openai"}
    with pytest.raises(sealed.SealedRefused, match="PENSTOCK_MASTER_KEY is not set, and its database holds"):
        await start(sealed.at_start, without, needed=False)
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    url = f"postgresql://penstock@localhost/p?host={tmp_path}"
    assert sealed.at_start(Settings(data=tmp_path, database_url=url), needed=False).change is None
    with pytest.raises(sealed.SealedRefused, match="is away"):
        sealed.as_now(Settings(data=tmp_path, database_url=url, master_key=NEW))


def test_no_address_and_no_database_are_told(tmp_path: Path) -> None:
    with pytest.raises(StoreUnusable, match="must be postgresql://"):
        sealed.store(Settings(data=tmp_path, database_url="mysql://x"))
    (tmp_path / "trust.sqlite3").write_bytes(b"no database at all" * 100)
    with pytest.raises(sealed.SealedRefused, match="is no SQLite database"):
        sealed.at_start(Settings(data=tmp_path), needed=False)


# The watch.


class Watched:
    """A watch over a real store, and what it told."""

    def __init__(self, settings: Settings, store: Any, known: Vault = NOTHING_SEALED) -> None:
        self.log = RecordingLog()
        self.told: list[Vault] = []
        self.watch = SealedWatch(store, lambda: sealed.keyring(settings), known, self.log, self._changed)

    async def _changed(self, vault: Vault) -> None:
        self.told.append(vault)


async def test_a_change_is_told_once(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path, master_key=NEW)
    store = sealed.store(settings)
    watched = Watched(settings, store, Vault({}, {}, 0))
    await watched.watch.look()
    assert watched.told == []
    await _put(settings, "openai", "sk-openai-0123456789")
    await watched.watch.look()
    await watched.watch.look()
    assert watched.told == [Vault({"openai": "sk-openai-0123456789"}, {}, 1)]
    assert "sk-openai" not in str(watched.log.events)
    await store.close()


async def test_a_server_follows_a_rotation_of_the_kept_key(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path)
    sealed.keyring(settings, make=True)
    await _put(settings, "openai", "sk-openai")
    store = sealed.store(settings)
    watched = Watched(settings, store)
    await watched.watch.look()
    rotation.begin(settings)
    await _put(settings, "groq", "sk-groq")
    await watched.watch.look()
    ring = sealed.keyring(settings)
    assert ring is not None
    await rotation.reseal(store, ring, lambda: None)
    rotation.finish(settings)
    await watched.watch.look()
    assert [vault.values for vault in watched.told[1:]] == [{"openai": "sk-openai", "groq": "sk-groq"}] * 2
    assert [vault.unopened for vault in watched.told] == [{}, {}, {}]
    await store.close()


async def test_a_store_that_is_away_leaves_what_is_known(tmp_path: Path) -> None:
    class Away(SqliteSecrets):
        async def change(self) -> int:
            raise StoreAway("gone fishing")

    settings = Settings(data=tmp_path, master_key=NEW)
    store = Away(tmp_path / "trust.sqlite3")
    watched = Watched(settings, store, Vault({"openai": "sk"}, {}, 1))
    for _ in range(3):
        await watched.watch.look()
    assert watched.told == []
    assert [event["error"] for event in watched.log.events] == ["gone fishing"], "told once"
    await store.close()


# Rotation.


def test_a_kept_key_is_replaced_step_by_step(tmp_path: Path) -> None:
    """S51: wherever it is interrupted, both keys are there, and what comes next goes on."""
    settings = Settings(data=tmp_path)
    first = own_secrets.obtain(MASTER_KEY, None, tmp_path).value
    (tmp_path / "master.key.previous").hardlink_to(tmp_path / "master.key")  # killed after the first step
    assert ids(sealed.keyring(settings)) == key_ids(first)
    rotation.begin(settings)
    second = own_secrets.obtain(MASTER_KEY, None, tmp_path).value
    rotation.begin(settings)  # killed while it sealed
    assert second != first
    assert ids(sealed.keyring(settings)) == key_ids(second, first)
    rotation.finish(settings)
    assert ids(sealed.keyring(settings)) == key_ids(second)
    assert [path.name for path in tmp_path.iterdir()] == ["master.key"]
    assert (tmp_path / "master.key").stat().st_mode & 0o777 == 0o600


def test_nothing_is_replaced_that_is_not_kept_here(tmp_path: Path) -> None:
    rotation.begin(Settings(data=tmp_path))
    assert list(tmp_path.iterdir()) == []
    kept = own_secrets.obtain(MASTER_KEY, None, tmp_path).value
    for settings in (
        Settings(data=tmp_path, master_key=NEW),
        Settings(data=tmp_path, master_key_previous=OLD),
        Settings(data=tmp_path, database_url="postgresql://x/y"),
    ):
        rotation.begin(settings)
        assert own_secrets.obtain(MASTER_KEY, None, tmp_path).value == kept
        assert own_secrets.find(PREVIOUS_MASTER_KEY, None, tmp_path) is None


@pytest.fixture(params=["sqlite", "postgres"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    url = request.getfixturevalue("database") if request.param == "postgres" else None
    return Settings(data=tmp_path, database_url=url, master_key=NEW, master_key_previous=OLD)


async def test_s51_what_others_change_meanwhile_is_neither_lost_nor_undone(settings: Settings) -> None:
    store, other = sealed.store(settings), sealed.store(settings)
    old, ring = Keyring(MasterKey.of(OLD)), sealed.keyring(settings)
    assert ring is not None
    for number in range(6):
        await rotation.put(store, old, f"name-{number}", f"value-{number}", number)
    steps: list[int] = []

    async def meddle() -> None:
        await rotation.put(other, old, "name-5", "changed", 5)
        await other.remove("name-4")
        await rotation.put(other, old, "name-9", "added", 9)

    rotated, _ = await asyncio.gather(rotation.reseal(store, ring, lambda: steps.append(1)), meddle())
    rotated = await rotation.reseal(store, ring, lambda: steps.append(1))
    found = await store.load()
    assert {one.key_id for one in found.secrets} == {ring.current.id}
    assert sealed.open_all(found, Keyring(ring.current)).values == {
        **{f"name-{number}": f"value-{number}" for number in range(4)},
        "name-5": "changed",
        "name-9": "added",
    }
    assert (rotated.secrets, rotated.left) == (6, ())
    assert [one.created_us for one in found.secrets if one.name == "name-3"] == [3]
    await store.close()
    await other.close()


async def test_s51_what_no_key_opens_is_left_and_told(settings: Settings) -> None:
    store, ring = sealed.store(settings), sealed.keyring(settings)
    assert ring is not None
    lost = Keyring(MasterKey.of("a-third-key-that-nobody-has-any-more-4711"))
    await rotation.put(store, lost, "lost", "value", 1)
    await rotation.put(store, Keyring(MasterKey.of(OLD)), "openai", "sk-openai", 1)
    rotated = await rotation.reseal(store, ring, lambda: None)
    assert (rotated.resealed, rotated.secrets, rotated.left) == (1, 2, ("lost",))
    await store.close()
