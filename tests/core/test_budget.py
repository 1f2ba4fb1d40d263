"""A book's state machine: rows of whole lives, and what holds for every order of events, beside a slow reference."""

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.budget import (
    AUDIT_EXCEPT_MAX,
    LAPSED_KEPT_MS,
    MONEY_MAX,
    PROXY,
    AlertLevel,
    Book,
    Budget,
    BudgetLease,
    Claim,
    Standing,
    account_subject,
    level_of,
    money,
    refused,
    reserve,
    seeded,
    usd,
)
from proxy.core.budget_words import refusal
from proxy.core.window import Period, window_at
from proxy.terms import AccountId, ExchangeId, NanoUsd
from tests.core.slow_budget import SlowBudget

LEASE_MS = 60_000
BOOK = Book(PROXY, window_at(Period.DAILY, ZoneInfo("UTC"), 1_800_000_000))
Step = tuple[str, str, int]


def lease(exchange: str, amount: int, cap: int, admitted_ms: int = 0) -> BudgetLease:
    return BudgetLease(ExchangeId(exchange), (Claim(BOOK, NanoUsd(cap)),), NanoUsd(amount), admitted_ms)


def standing(spent: int, held: int) -> Standing:
    return Standing(NanoUsd(spent), NanoUsd(held), "e")


# Whole lives of a book with a cap of 100: steps (what, exchange, amount), `at` sets the clock; then spent and held.
LIVES: list[tuple[str, list[Step], tuple[int, int]]] = [
    ("reserved", [("reserve", "a", 60)], (0, 60)),
    ("to the cap exactly", [("reserve", "a", 60), ("reserve", "b", 40)], (0, 100)),
    ("beyond the cap", [("reserve", "a", 60), ("refused", "b", 41)], (0, 60)),
    ("reserved twice", [("reserve", "a", 60), ("reserve", "a", 60)], (0, 60)),
    ("raised", [("reserve", "a", 60), ("reserve", "a", 90)], (0, 90)),
    ("raised too far", [("reserve", "a", 60), ("refused", "a", 101)], (0, 60)),
    ("settled below the hold", [("reserve", "a", 60), ("settle", "a", 10)], (10, 0)),
    ("settled above the hold, and above the cap", [("reserve", "a", 60), ("settle", "a", 160)], (160, 0)),
    ("nothing after that", [("reserve", "a", 60), ("settle", "a", 160), ("refused", "b", 1)], (160, 0)),
    ("released", [("reserve", "a", 60), ("settle", "a", 0)], (0, 0)),
    ("settled twice", [("reserve", "a", 60), ("settle", "a", 10), ("settle", "a", 10)], (10, 0)),
    ("settled, never reserved", [("settle", "a", 10)], (0, 0)),
    ("lapsed", [("reserve", "a", 60), ("at", "", LEASE_MS)], (0, 0)),
    ("not yet lapsed", [("reserve", "a", 60), ("at", "", LEASE_MS - 1)], (0, 60)),
    ("settled after the lease", [("reserve", "a", 60), ("at", "", LEASE_MS), ("settle", "a", 10)], (10, 0)),
    (
        "settled twice after the lease",
        [("reserve", "a", 60), ("at", "", LEASE_MS), ("settle", "a", 10), ("settle", "a", 10)],
        (10, 0),
    ),
    (
        "settled when it is forgotten: the ledger has it",
        [("reserve", "a", 60), ("at", "", LEASE_MS + LAPSED_KEPT_MS), ("settle", "a", 10)],
        (0, 0),
    ),
    (
        "renewed",
        [("reserve", "a", 60), ("at", "", 50_000), ("renew", "a", 60), ("at", "", 50_000 + LEASE_MS - 1)],
        (0, 60),
    ),
    ("renewed after the lease", [("reserve", "a", 60), ("at", "", LEASE_MS), ("renew", "a", 60)], (0, 60)),
    (
        "renewed when its room is taken, and settled",
        [("reserve", "a", 60), ("at", "", LEASE_MS), ("reserve", "b", 60), ("renew", "a", 60), ("settle", "a", 10)],
        (10, 60),
    ),
    ("renewed in a state made again", [("renew", "a", 60), ("settle", "a", 10)], (10, 0)),
    ("reserved again after the lease", [("reserve", "a", 60), ("at", "", LEASE_MS), ("reserve", "a", 60)], (0, 60)),
]


@pytest.mark.parametrize(("life", "expected"), [row[1:] for row in LIVES], ids=[row[0] for row in LIVES])
def test_the_life_of_a_book(life: list[Step], expected: tuple[int, int]) -> None:
    budget, now_ms = Budget("e"), 0
    for what, exchange, amount in life:
        budget.expire(now_ms)
        match what:
            case "at":
                now_ms = amount
            case "reserve" | "refused":
                index = reserve([(budget, 100)], ExchangeId(exchange), amount, now_ms, now_ms + LEASE_MS)
                assert index == (None if what == "reserve" else 0)
            case "renew":
                budget.renew(lease(exchange, amount, 100, now_ms), 100, now_ms, now_ms + LEASE_MS)
            case "settle":
                budget.settle(ExchangeId(exchange), amount)
    budget.expire(now_ms)
    assert (budget.spent, budget.held) == expected


def test_several_books_are_reserved_all_or_none() -> None:
    roomy, full = Budget("a"), Budget("b", spent=95)
    assert reserve([(roomy, 100), (full, 100)], ExchangeId("x"), 10, 0, LEASE_MS) == 1
    assert (roomy.held, full.held) == (0, 0)
    assert reserve([(roomy, 100), (full, 105)], ExchangeId("x"), 10, 0, LEASE_MS) is None
    assert (roomy.held, full.held) == (10, 10)


def test_a_lowered_or_raised_cap_holds_from_the_next_reservation() -> None:
    budget = Budget("e")
    assert reserve([(budget, 100)], ExchangeId("a"), 80, 0, LEASE_MS) is None
    assert reserve([(budget, 50)], ExchangeId("b"), 1, 0, LEASE_MS) == 0
    assert budget.held == 80
    assert reserve([(budget, 200)], ExchangeId("b"), 120, 0, LEASE_MS) is None


def test_money_is_exact_up_to_its_limit_and_saturates_there() -> None:
    budget = Budget("e", spent=MONEY_MAX - 2)
    budget.hold(ExchangeId("a"), 1, 0, LEASE_MS)
    budget.settle(ExchangeId("a"), 1)
    assert budget.spent == MONEY_MAX - 1
    budget.hold(ExchangeId("b"), 1, 0, LEASE_MS)
    budget.settle(ExchangeId("b"), MONEY_MAX)
    assert budget.spent == MONEY_MAX
    assert seeded(MONEY_MAX * 2, 0, "e").spent == MONEY_MAX
    assert money(MONEY_MAX) == MONEY_MAX
    for no_money in (-1, MONEY_MAX + 1):
        with pytest.raises(ValueError, match="nano-USD"):
            money(no_money)


def test_an_audit_adds_what_only_the_ledger_has_and_nothing_twice() -> None:
    """`lost` is in the ledger alone; `open` in neither sum; `since` after the mark."""
    budget = seeded(100, 1000, "e")
    for exchange, admitted_ms in (("done", 500), ("open", 600), ("since", 1500)):
        budget.hold(ExchangeId(exchange), 10, admitted_ms, LEASE_MS)
    budget.settle(ExchangeId("done"), 7)
    budget.settle(ExchangeId("since"), 5)
    audit = budget.audit(2000, 0)
    assert audit is not None
    assert (audit.spent_nanousd, audit.mark_ms, audit.open_ids) == (107, 1000, ("open",))
    ledger_before_the_mark_without_open = 100 + 7 + 30
    assert budget.repair(audit.number, ledger_before_the_mark_without_open - audit.spent_nanousd, 2000)
    assert (budget.spent, budget.mark_ms) == (142, 2000)
    assert not budget.repair(audit.number, 30, 2000)  # the acknowledgement was lost, and it is sent again
    following = budget.audit(2000, 0)
    assert following is not None
    assert following.spent_nanousd == 142


def test_an_audit_leaves_what_lapsed_to_the_ledger() -> None:
    """A worker was killed; its exchange's row comes from the journal, and nobody settles it here, or somebody does late."""
    budget = seeded(0, 1000, "e")
    budget.hold(ExchangeId("old"), 10, 500, LEASE_MS)
    budget.hold(ExchangeId("new"), 10, 1000, LEASE_MS)
    budget.expire(LEASE_MS)
    audit = budget.audit(LEASE_MS, 0)
    assert audit is not None
    assert (audit.open_ids, list(budget.entries)) == ((), ["new"])
    assert budget.repair(audit.number, 7, LEASE_MS)
    budget.settle(ExchangeId("old"), 7)
    budget.settle(ExchangeId("new"), 5)
    assert budget.spent == 12


def test_of_two_audits_only_the_latest_repairs() -> None:
    budget = seeded(0, 0, "e")
    first, second = budget.audit(10, 0), budget.audit(10, 0)
    assert first is not None
    assert second is not None
    assert not budget.repair(first.number, 5, 10)
    assert budget.repair(second.number, 5, 10)
    assert budget.spent == 5
    assert budget.audit(29, 20) is None
    assert budget.audit(30, 20) is not None


def test_an_old_exchange_that_appears_during_an_audit_voids_it() -> None:
    """The ledger may have its cost by then, and its settlement would add it once more."""
    budget = seeded(0, 1000, "e")
    for appear, admitted_ms, void in (("renew", 999, True), ("hold", 999, True), ("hold", 1000, False)):
        audit = budget.audit(2000, 0)
        assert audit is not None
        exchange = f"{appear} {admitted_ms}"
        if appear == "renew":
            budget.renew(lease(exchange, 1, 100, admitted_ms), 100, 2000, 3000)
        else:
            budget.hold(ExchangeId(exchange), 1, admitted_ms, 3000)
        assert budget.repair(audit.number, 5, 1000) is not void


def test_no_audit_looks_through_too_much() -> None:
    budget = seeded(0, 1000, "e")
    for number in range(AUDIT_EXCEPT_MAX):
        budget.hold(ExchangeId(str(number)), 1, 0, LEASE_MS)
    assert budget.audit(1000, 0) is not None
    budget.hold(ExchangeId("one more"), 1, 0, LEASE_MS)
    assert budget.audit(1000, 0) is None


def test_each_level_is_told_by_one_worker() -> None:
    budget = Budget("e")
    assert budget.alert(AlertLevel.THRESHOLD, "a")
    assert not budget.alert(AlertLevel.THRESHOLD, "b")
    assert budget.alert(AlertLevel.THRESHOLD, "a")  # its acknowledgement was lost
    assert budget.alert(AlertLevel.LIMIT, "b")
    assert not budget.alert(AlertLevel.LIMIT, "a")
    assert not budget.alert(AlertLevel.THRESHOLD, "a")


@pytest.mark.parametrize(
    ("spent", "held", "refused_amount", "level"),
    [
        (79, 20, None, AlertLevel.NONE),
        (80, 0, None, AlertLevel.THRESHOLD),
        (100, 0, None, AlertLevel.LIMIT),
        (95, 0, 10, AlertLevel.LIMIT),  # what is spent leaves no room
        (10, 85, 10, AlertLevel.LIMIT),
        (10, 95, 10, AlertLevel.NONE),  # what is held leaves no room, and may come back
        (0, 0, 101, AlertLevel.NONE),  # more than the budget will ever have
    ],
)
def test_what_there_is_to_tell(spent: int, held: int, refused_amount: int | None, level: AlertLevel) -> None:
    assert level_of(standing(spent, held), 100, 80, refused_amount=refused_amount) is level


def test_a_refusal_names_all_that_a_person_asks_next() -> None:
    book = Book(account_subject(AccountId("acme")), BOOK.window)
    told = refused(Claim(book, NanoUsd(100)), standing(90, 5), NanoUsd(7))
    assert (told.subject, told.period) == ("account:acme", Period.DAILY)
    assert (told.used_nanousd, told.held_nanousd, told.limit_nanousd, told.asked_nanousd) == (90, 5, 100, 7)
    assert told.resets_at == BOOK.window.resets_at
    assert refusal(told) == (
        "account acme has spent 0.00000009 of 0.0000001 USD of its daily budget, 0.000000005 USD are held for requests that"
        " still run, and this request may cost up to 0.000000007 USD. The budget begins anew at 2027-01-16T00:00:00Z."
    )
    assert refusal(replace(told, asked_nanousd=NanoUsd(101))).endswith(
        "this request may cost up to 0.000000101 USD. That is more than the whole budget: lower the output cap, shorten the "
        "prompt or ask a cheaper route."
    ), "tomorrow it would not fit either"


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0.00"), (1, "0.000000001"), (5 * 10**9, "5.00"), (1_230_000_000, "1.23"), (10**17, "100000000.00")],
)
def test_dollars_are_written_exactly(amount: int, text: str) -> None:
    assert usd(amount) == text


AMOUNTS = st.integers(min_value=0, max_value=50) | st.sampled_from([MONEY_MAX, MONEY_MAX - 1, MONEY_MAX // 2])
CAPS = st.integers(min_value=0, max_value=150) | st.just(MONEY_MAX)
EXCHANGES = st.sampled_from("abcd")
Values = tuple[Any, ...]
STEPS = st.one_of(
    st.tuples(st.just("reserve"), EXCHANGES, AMOUNTS, CAPS),
    st.tuples(st.just("renew"), EXCHANGES, AMOUNTS, CAPS),
    st.tuples(st.just("settle"), EXCHANGES, AMOUNTS),
    st.tuples(st.just("wait"), st.sampled_from([1, LEASE_MS // 3, LEASE_MS, LAPSED_KEPT_MS])),
    st.tuples(st.just("audit"), st.integers(min_value=0, max_value=20)),
)


@given(st.lists(STEPS, max_size=40))
def test_any_order_of_events_equals_the_slow_reference(steps: list[Values]) -> None:
    now_ms = 1_000_000
    budget, slow = seeded(7, now_ms, "e"), SlowBudget(7, now_ms)
    spent_before = 0
    for step in steps:
        now_ms = _take(step, budget, slow, now_ms)
        assert (budget.spent, budget.held) == (slow.spent(), slow.held(now_ms))
        assert set(budget.entries) == set(slow.open(now_ms))
        assert budget.spent >= spent_before
        spent_before = budget.spent


def _take(step: Values, budget: Budget, slow: SlowBudget, now_ms: int) -> int:
    what, *values = step
    budget.expire(now_ms)
    exchange, end_ms = values[0], now_ms + LEASE_MS
    match what:
        case "reserve":
            amount, cap = values[1:]
            fits = slow.fits(exchange, amount, cap, now_ms)
            assert (reserve([(budget, cap)], exchange, amount, now_ms, end_ms) is None) == fits
            if fits:
                slow.hold(exchange, amount, now_ms, end_ms)
                assert budget.spent + budget.held <= cap
        case "renew":
            amount, cap = values[1:]
            room = max(cap, budget.spent + budget.held)
            budget.renew(lease(exchange, amount, cap, now_ms), cap, now_ms, end_ms)
            slow.renew(exchange, amount, now_ms, cap=cap, now_ms=now_ms, end_ms=end_ms)
            assert budget.spent + budget.held <= room
        case "settle":
            budget.settle(exchange, values[1])
            slow.settle(exchange, values[1], now_ms)
        case "audit":
            audit = budget.audit(now_ms, 0)
            assert audit is not None
            spent, open_ids = slow.before_mark(now_ms)
            assert set(audit.open_ids) == open_ids
            if budget.spent < MONEY_MAX:  # a full book has stopped counting
                assert audit.spent_nanousd == spent
            assert budget.repair(audit.number, values[0], now_ms)
            slow.repair(values[0], now_ms)
        case "wait":
            now_ms += values[0]
    budget.expire(now_ms)
    return now_ms
