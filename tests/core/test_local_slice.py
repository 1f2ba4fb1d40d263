"""What a worker admits by itself: rows, and what holds for any order of reservations, settlements and outages."""

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.budget import PROXY, Book, BudgetLease, Claim, Refused, Standing
from proxy.core.local_slice import PARTS, LocalSlices
from proxy.core.window import Period, window_at
from proxy.terms import ExchangeId, NanoUsd

DAY, MONTH = (Book(PROXY, window_at(period, ZoneInfo("UTC"), 1_800_000_000)) for period in Period)


def lease(exchange: str, amount: int, *claims: tuple[Book, int]) -> BudgetLease:
    return BudgetLease(
        ExchangeId(exchange), tuple(Claim(book, NanoUsd(cap)) for book, cap in claims), NanoUsd(amount), 0
    )


def standing(spent: int, held: int = 0) -> Standing:
    return Standing(NanoUsd(spent), NanoUsd(held), "e")


@pytest.mark.parametrize(
    ("spent", "held", "amount", "admitted"),
    [
        (0, 0, 100, True),
        (0, 0, 101, False),  # a hundredth of 10,000
        (5000, 0, 50, True),
        (5000, 0, 51, False),
        (5000, 2000, 30, True),  # what others hold is not left
        (5000, 2000, 31, False),
        (9000, 1000, 1, False),
        (9999, 0, 1, False),
    ],
)
def test_a_hundredth_of_what_was_left(spent: int, held: int, amount: int, admitted: bool) -> None:
    assert LocalSlices().reserve(lease("a", amount, (DAY, 10_000)), [standing(spent, held)]) is admitted


def test_what_is_known_to_be_spent_is_refused_as_ever() -> None:
    told = LocalSlices().reserve(lease("a", 11, (DAY, 10_000)), [standing(9990)])
    assert isinstance(told, Refused)
    assert (told.used_nanousd, told.limit_nanousd) == (9990, 10_000)


def test_the_narrowest_of_several_books_decides_and_none_is_held_from_alone() -> None:
    slices = LocalSlices()
    assert slices.reserve(lease("a", 20, (DAY, 1000), (MONTH, 10_000)), [standing(0), standing(0)]) is False
    assert (slices.left(DAY), slices.left(MONTH)) == (10, 100)
    assert slices.reserve(lease("b", 10, (DAY, 1000), (MONTH, 10_000)), [standing(0), standing(0)]) is True
    assert (slices.left(DAY), slices.left(MONTH)) == (0, 90)


def test_a_slice_is_cut_once_until_the_book_has_what_was_spent_from_it() -> None:
    slices = LocalSlices()
    assert slices.reserve(lease("a", 80, (DAY, 10_000)), [standing(0)]) is True
    slices.forget(DAY)  # held from: kept
    slices.settle(ExchangeId("a"), [DAY], 90)
    assert slices.left(DAY) == 10
    assert slices.reserve(lease("b", 11, (DAY, 10_000)), [standing(0)]) is False
    slices.forget(DAY)
    assert slices.left(DAY) is None
    assert slices.reserve(lease("b", 11, (DAY, 10_000)), [standing(90)]) is True


def test_the_slices_of_past_windows_are_forgotten_when_nothing_is_held_from_them() -> None:
    slices = LocalSlices()
    for exchange in ("a", "b"):
        assert slices.reserve(lease(exchange, 10, (DAY, 10_000), (MONTH, 10_000)), [standing(0)] * 2) is True
    slices.settle(ExchangeId("a"), [DAY, MONTH], 10)
    slices.forget_past(DAY.window.resets_at)
    assert slices.left(DAY) is not None
    slices.settle(ExchangeId("b"), [DAY, MONTH], 10)
    slices.forget_past(DAY.window.resets_at)
    assert slices.left(DAY) is None
    assert slices.left(MONTH) == 80


AMOUNTS = st.integers(min_value=1, max_value=40)
STEPS = st.one_of(
    st.tuples(st.just("reserve"), st.sampled_from("abcdef"), AMOUNTS),
    st.tuples(st.just("settle"), st.sampled_from("abcdef")),
)


@given(st.integers(0, 10_000), st.lists(STEPS, max_size=40))
def test_however_it_goes_a_slice_is_never_overdrawn(spent: int, steps: list[tuple[Any, ...]]) -> None:
    """Each is settled with what it held."""
    slices, held, used = LocalSlices(), {}, 0
    for what, exchange, *amount in steps:
        if what == "reserve":
            if slices.reserve(lease(exchange, amount[0], (DAY, 10_000)), [standing(spent)]) is True:
                held[exchange] = amount[0]
        elif exchange in held:
            used += held[exchange]
            slices.settle(ExchangeId(exchange), [DAY], held.pop(exchange))
        assert used + sum(held.values()) <= (10_000 - spent) // PARTS
