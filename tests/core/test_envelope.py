"""Sealing: what opens, and everything that must not (S50)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.envelope import NONCE_BYTES, TAG_BYTES, Keyring, MasterKey, NotOpened, opened, seal

KEY = MasterKey.of("an-old-master-key-BQ8wIqH3Yk0mYxKZ2cJ7nV5s")
OTHER = MasterKey.of("a-new-master-key-uT4pZ7eW1aQ9sX3dC6vB8nM2")


@given(name=st.text(max_size=40), version=st.integers(0, 2**53), value=st.text(max_size=300))
def test_what_is_sealed_opens_as_itself_alone(name: str, version: int, value: str) -> None:
    sealed = seal(KEY, name, version, value)
    assert opened(KEY, name, version, sealed) == value
    assert len(sealed) == NONCE_BYTES + len(value.encode()) + TAG_BYTES
    for key, in_name, in_version in ((OTHER, name, version), (KEY, f"{name}x", version), (KEY, name, version + 1)):
        with pytest.raises(NotOpened):
            opened(key, in_name, in_version, sealed)


def test_s50_the_ciphertexts_of_two_rows_cannot_be_swapped() -> None:
    one, two = seal(KEY, "openai", 1, "sk-one"), seal(KEY, "groq", 2, "sk-two")
    for name, version, sealed in (("openai", 1, two), ("groq", 2, one), ("openai", 2, one)):
        with pytest.raises(NotOpened):
            opened(KEY, name, version, sealed)


def test_s50_a_name_and_a_version_cannot_lend_each_other_letters() -> None:
    with pytest.raises(NotOpened):
        opened(KEY, "a\0", 11, seal(KEY, "a\x001", 1, "v"))


def test_s50_one_flipped_bit_anywhere_is_noticed() -> None:
    sealed = seal(KEY, "openai", 1, "sk-one")
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(NotOpened):
            opened(KEY, "openai", 1, bytes(changed))


@pytest.mark.parametrize("length", [0, 1, NONCE_BYTES, NONCE_BYTES + TAG_BYTES - 1])
def test_what_is_too_short_to_be_sealed_is_not_opened(length: int) -> None:
    with pytest.raises(NotOpened):
        opened(KEY, "openai", 1, seal(KEY, "openai", 1, "sk-one")[:length])


def test_a_nonce_is_never_the_same() -> None:
    assert len({seal(KEY, "openai", 1, "sk-one")[:NONCE_BYTES] for _ in range(1000)}) == 1000


def test_a_key_shows_nothing_of_itself_but_its_id() -> None:
    assert KEY.id != OTHER.id
    assert repr(KEY) == f"MasterKey(id='{KEY.id}')"
    assert KEY.id not in KEY.key.hex()
    assert MasterKey.of("an-old-master-key-BQ8wIqH3Yk0mYxKZ2cJ7nV5s") == KEY


def test_a_ring_finds_keys_by_their_ids() -> None:
    ring = Keyring(OTHER, (KEY,))
    assert [ring.find(key_id) for key_id in (KEY.id, OTHER.id, "")] == [KEY, OTHER, None]
