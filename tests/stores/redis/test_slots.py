"""What a node tells of its slots, as one reads it who has only the specification."""

from typing import Any

import pytest
from redis.exceptions import InvalidResponse

from proxy.stores.redis.slots import SlotMap, slot_of

ASKED = ("asked.example", 6379)
A, B = ("10.0.0.1", 7001), ("10.0.0.2", 7002)


def told(*rows: tuple[int, int, bytes | None, int]) -> list[Any]:
    replica = [b"10.0.0.9", 7009, b"replica", []]
    return [[first, last, [host, port, b"name", [b"hostname", b"h"]], replica] for first, last, host, port in rows]


def test_the_slots_of_the_specification() -> None:
    """Source: https://valkey.io/topics/cluster-spec/, appendix A and "hash tags" (2026-11-21)."""
    assert slot_of("123456789") == 0x31C3
    assert slot_of("{user1000}.following") == slot_of(b"{user1000}.followers") == slot_of("user1000")
    assert slot_of("foo{}{bar}") != slot_of("bar")
    assert slot_of("foo{{bar}}zap") == slot_of("{bar")
    assert slot_of("foo{bar}{zap}") == slot_of("bar")


def test_each_slot_has_the_owner_that_was_told() -> None:
    slots = SlotMap.of(
        told((0, 8191, b"10.0.0.1", 7001), (8192, 8192, b"10.0.0.2", 7002), (8194, 16383, b"10.0.0.1", 7001)), ASKED
    )
    assert [slots.owner(slot) for slot in (0, 8191, 8192, 8193, 8194, 16383)] == [A, A, B, None, A, A]
    assert slots.nodes == {A, B}
    assert not slots.is_whole
    whole = slots.moved(8193, B)
    assert whole.is_whole
    assert (whole.owner(8193), slots.owner(8193)) == (B, None)
    assert slots.moved(8192, A).nodes == {A}


@pytest.mark.parametrize("host", [None, b"", b"?"])
def test_a_node_without_a_name_is_where_it_was_asked(host: bytes | None) -> None:
    slots = SlotMap.of(told((0, 16383, host, 7001)), ASKED)
    assert slots.nodes == {("asked.example", 7001)}
    assert slots.is_whole


@pytest.mark.parametrize(
    "reply",
    [
        [],
        None,
        b"OK",
        7,
        [[0, 1]],
        [[0, 1, None]],
        [[0, b"x", [b"h", 1]]],
        [[0, 16384, [b"h", 1]]],
        [[-1, 5, [b"h", 1]]],
        [[0, 5, [b"h", b"x"]]],
    ],
)
def test_what_cannot_be_read_is_refused(reply: object) -> None:
    with pytest.raises(InvalidResponse):
        SlotMap.of(reply, ASKED)


def test_a_key_at_a_node() -> None:
    slots = SlotMap.of(told((0, 16382, b"10.0.0.1", 7001), (16383, 16383, b"10.0.0.2", 7002)), ASKED)
    for node in (A, B):
        key = slots.key_at(node, "penstock:probe")
        assert key.startswith("penstock:probe:{")
        assert slots.owner(slot_of(key)) == node
    assert slots.key_at(("10.0.0.3", 1), "penstock:probe") == "penstock:probe"
