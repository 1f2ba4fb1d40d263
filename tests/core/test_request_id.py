"""A request keeps a clean id of its own."""

import random
import re

import pytest

from proxy.core.request_id import request_id

MADE = re.compile(r"req_[0-9a-f]{24}")


@pytest.mark.parametrize("given", ["a", "my-id_1", "x" * 64])
def test_a_clean_id_is_kept(given: str) -> None:
    assert request_id(given, random.Random(1)) == given


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, "a\n", "a\r\nb", "id;rm", "\u00fc", "a\x00"])
def test_any_other_is_replaced(given: str | None) -> None:
    assert MADE.fullmatch(request_id(given, random.Random(1)))


def test_an_id_that_holds_a_secret_is_replaced() -> None:
    assert MADE.fullmatch(request_id("id-hush-1", random.Random(1), ["hush"]))
    assert request_id("id-1", random.Random(1), ["hush"]) == "id-1"


def test_ids_differ() -> None:
    rng = random.Random(1)
    assert len({request_id(None, rng) for _ in range(1000)}) == 1000


def test_s53_an_id_that_looks_like_a_key_is_not_taken() -> None:
    for key in ("sk-proj-0123456789abcdef0123", "hf_0123456789abcdef0123", "psk-0123456789abcdef0123"):
        assert request_id(key, random.Random(1)).startswith("req_")
