"""The form of a virtual key, and what is kept of it."""

import hmac
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core import redact, virtual_key
from proxy.core.virtual_key import KEY_CHARS, Made, Malformed, Pepper, Peppers, Presented, SecretHash, make, parse
from proxy.terms import VirtualKeyId
from tests.keys import OTHER_PEPPER, PEPPER, PEPPERS


def test_a_key_is_read_as_it_was_made() -> None:
    made = make()
    assert parse(made.text) == Presented(made.id, made.secret)
    assert re.fullmatch(r"psk-[0-9A-Za-z]{63}", made.text), "a double click takes what follows the prefix"
    assert len(made.text) == KEY_CHARS
    assert made.last == made.text[-4:]
    assert made.secret not in repr(made)
    assert made.secret not in repr(parse(made.text))
    assert virtual_key.id_from(made.id) == virtual_key.id_from(f"psk-{made.id}") == made.id
    assert virtual_key.id_from(made.text) is None
    assert virtual_key.id_from("../../etc/x") is None


def test_s07_a_secret_has_256_bits_of_entropy() -> None:
    """Every bit of 32 random bytes is in the secret, and the bytes are those of the generator that is made for it."""
    asked: list[int] = []

    def counted(size: int, value: int = 0) -> bytes:
        asked.append(size)
        return value.to_bytes(size)

    assert make(random=counted).secret == "0" * 43
    assert asked == [32, 32]
    secrets = {make(random=lambda size, bit=bit: (1 << bit).to_bytes(size)).secret for bit in range(256)}  # type: ignore[misc] # each its own
    assert len(secrets) == 256
    assert (
        make(random=lambda size: b"\xff" * size).secret
        != make(random=lambda size: b"\xff" * (size - 1) + b"\xfe").secret
    )
    many = {make().secret for _ in range(2000)}
    assert len(many) == 2000
    seen = "".join(many)
    for digit in virtual_key._DIGITS:
        assert 0.7 < seen.count(digit) / (len(seen) / 62) < 1.35, digit


def test_s07_a_malformed_key_is_told_apart_without_a_store() -> None:
    text = make().text
    for wrong in (
        "",
        "psk-",
        "sk-abc",
        text[:-1],
        text + "0",
        text[4:],
        text.replace("psk-", "psk_"),
        text + "\n",
        "psk-" + "é" * 63,
    ):
        assert parse(wrong) is Malformed.FORM, wrong
    for at in range(4, KEY_CHARS):
        other = "a" if text[at] != "a" else "b"
        assert parse(text[:at] + other + text[at + 1 :]) is Malformed.CHECKSUM, at
    for at in range(4, KEY_CHARS - 1):
        swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        assert swapped == text or parse(swapped) is Malformed.CHECKSUM, "two letters exchanged"


@given(st.text(max_size=100))
def test_s07_any_text_is_judged(text: str) -> None:
    assert parse(text) in (Malformed.FORM, Malformed.CHECKSUM)
    assert parse("psk-" + text) in (Malformed.FORM, Malformed.CHECKSUM)


def test_a_key_in_a_message_is_redacted() -> None:
    text = make().text
    assert redact.text(f"refused {text}.") == "refused [redacted]."


def holds(peppers: Peppers, made: Made, *kept: SecretHash) -> tuple[bool, bool]:
    return peppers.holds(Presented(made.id, made.secret), *kept)


def test_s05_a_hash_needs_its_pepper_and_its_id() -> None:
    made, other = make(), make()
    kept, nobody = PEPPER.hash_of(made.id, made.secret), PEPPERS.nobodys()
    assert kept.digest == hmac.digest(
        PEPPER.value, f"penstock virtual key 1\0{made.id}\0{made.secret}".encode(), "sha256"
    )
    assert kept.kid == PEPPER.kid != OTHER_PEPPER.kid
    assert holds(PEPPERS, made, kept, nobody) == (True, False)
    assert holds(PEPPERS, made, nobody, kept) == (False, True)
    assert holds(PEPPERS, other, kept, nobody) == (False, False)
    assert holds(Peppers(OTHER_PEPPER), made, kept, nobody) == (False, False), "without the pepper nothing verifies"
    assert holds(Peppers(OTHER_PEPPER, PEPPER), made, kept, nobody) == (True, False), "the one before does"
    moved = VirtualKeyId(other.id)
    assert PEPPERS.holds(Presented(moved, made.secret), kept, nobody) == (False, False), (
        "under another id it is another's"
    )


@pytest.mark.parametrize("digest", [b"", b"\0" * 32, b"\0" * 31])
def test_s05_a_row_of_an_unknown_pepper_lets_nobody_in(digest: bytes) -> None:
    """Whoever can write to the database, and has no pepper, makes no key."""
    forged = SecretHash("made up", digest)
    assert holds(PEPPERS, make(), forged, forged) == (False, False)


def test_peppers_and_hashes_show_nothing() -> None:
    assert "Vn3r" not in repr(PEPPERS)
    assert Pepper.of("a").kid == Pepper.of("a").kid != Pepper.of("b").kid
    kept = PEPPER.hash_of(VirtualKeyId("x"), "y")
    assert repr(kept.digest) not in repr(kept)
    assert PEPPERS.knows(PEPPER.kid)
    assert not PEPPERS.knows(OTHER_PEPPER.kid)
    assert PEPPERS.nobodys() != PEPPERS.nobodys()
