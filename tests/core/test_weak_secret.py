"""A secret that is none is told by what is wrong with it, and never quoted; a random one always will do."""

import secrets

import pytest

from proxy.core.weak_secret import weakness

GOOD = "Vn3rT8yLq1ZpW6sKx0BhD5mJc7GfU2aE"

WEAK = [
    ("", "has 0 characters, expected at least 32"),
    ("changeme", "has 8 characters"),
    (GOOD[:31], "has 31 characters, expected at least 32"),
    ("a" * 64, "has 1 different characters"),
    ("abcabdabe" * 4, "different characters"),
    ("correcthorsebatt" * 3, "repeated"),
    ("12345678" * 4 + "1234", "repeated"),
    ("please-change-me-before-2027-XYZW", "text of a sample"),
    ("CHANGE_ME_TO_A_LONG_RANDOM_STRING", "text of a sample"),
    ("your-admin-key-goes-in-this-place", "text of a sample"),
    (GOOD + " ", "no header can carry"),
    (GOOD + "\n", "no header can carry"),
    (GOOD + "\u00e9", "no header can carry"),
    (GOOD[:20] + "\x00" + GOOD[20:], "no header can carry"),
    (GOOD * 17, "at most 512"),
]


@pytest.mark.parametrize(("secret", "told"), WEAK)
def test_what_is_weak(secret: str, told: str) -> None:
    why = weakness(secret)
    assert why is not None
    assert told in why
    assert not secret or secret not in why


@pytest.mark.parametrize("secret", [GOOD, GOOD + GOOD[::-1], "correct-horse-battery-staple-9153", "'\"\\" + GOOD])
def test_what_will_do(secret: str) -> None:
    assert weakness(secret) is None


def test_what_is_made_at_random_will_do() -> None:
    for _ in range(2000):
        assert weakness(secrets.token_urlsafe(32)) is None
        assert weakness(secrets.token_hex(16)) is None
