"""Wrong keys are counted by address and minute, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.wrong_keys import PEERS_MAX, WINDOW_S, WRONG_MAX, WrongKeys, peer_of


class SlowCount:
    """Every wrong key kept: a window is what came within a minute of its first."""

    def __init__(self) -> None:
        self.windows: list[tuple[str, float, list[float]]] = []

    def add(self, peer: str, now: float) -> tuple[int, float]:
        for whose, began, times in reversed(self.windows):
            if whose == peer:
                if now < began + WINDOW_S:
                    times.append(now)
                    return len(times), began + WINDOW_S - now
                break
        self.windows.append((peer, now, [now]))
        return 1, WINDOW_S


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.0, 0.5, 7.0, 59.5, 60.0, 61.0])), max_size=60))
def test_it_counts_as_a_slow_count_does(steps: list[tuple[str, float]]) -> None:
    wrong, slow, now = WrongKeys(), SlowCount(), 1000.0
    for peer, passed_s in steps:
        now += passed_s
        assert tuple(wrong.add(peer, now)) == slow.add(peer, now)


def test_too_many_is_told_once_as_the_first() -> None:
    wrong = WrongKeys()
    counted = [wrong.add("a", 5.0) for _ in range(WRONG_MAX + 3)]
    assert [one.is_too_many for one in counted] == [False] * WRONG_MAX + [True] * 3
    assert [one.is_first_too_many for one in counted] == [False] * WRONG_MAX + [True, False, False]
    assert not wrong.add("b", 5.0).is_too_many
    assert not wrong.add("a", 5.0 + WINDOW_S).is_too_many


def test_memory_is_bounded_and_who_began_longest_ago_is_forgotten() -> None:
    wrong = WrongKeys()
    for number in range(3 * PEERS_MAX):
        wrong.add(f"peer-{number}", 0.0)
    assert len(wrong) == PEERS_MAX
    assert wrong.add(f"peer-{3 * PEERS_MAX - 1}", 0.0).number == 2
    assert wrong.add("peer-0", 0.0).number == 1
    assert len(wrong) == PEERS_MAX


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::1", "::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("a socket's path", "a socket's path"),
    ],
)
def test_whom_an_address_stands_for(address: str, peer: str) -> None:
    assert peer_of(address) == peer
