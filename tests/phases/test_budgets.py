"""Budgets as the phases use them, on the store in memory: what an exchange sees, and what is done behind its back."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime

import pytest

from proxy.core.budget import PROXY, AlertLevel, Refused, account_subject
from proxy.core.window import Period
from proxy.phases import budget_audit, budget_keeper
from proxy.phases import budgets as budgets_module
from proxy.phases.budgets import FREE, Hold
from proxy.ports import Away, BudgetStore
from proxy.stores.memory.budgets import MemoryBudgets
from proxy.terms import AccountId, NanoUsd
from tests.ledger import FakeLedger
from tests.phases.budget_stage import UTC, Shielded, Worker, payer
from tests.stopwatch import Stopwatch

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp()
ACME = account_subject(AccountId("acme"))
Make = Callable[..., Worker]


class Wall:
    """A clock on the wall that runs, from a moment that a test sets."""

    def __init__(self, at: float = NOON) -> None:
        self._ahead_s = at - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._ahead_s

    def set(self, at: float) -> None:
        self._ahead_s = at - time.monotonic()


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Audits and repeats come fifty times as fast."""
    monkeypatch.setattr(budget_audit, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(budget_audit, "AUDIT_SOON_S", 0.04)
    monkeypatch.setattr(budget_audit, "AUDIT_EVERY_S", 0.2)
    monkeypatch.setattr(budget_keeper, "RETRY_S", 0.01)


@pytest.fixture
async def make(wall: Wall) -> AsyncIterator[Make]:
    """Makes started workers; by default one whose proxy may spend 1,000 a day, on a store of its own."""
    made: list[Worker] = []

    def one(store: BudgetStore | None = None, **options: object) -> Worker:
        lease_ms = int(float(str(options.get("lease_s", 60.0))) * 1000)
        store = store or Shielded(MemoryBudgets(lambda: int(time.monotonic() * 1000), lease_ms=lease_ms))
        worker = Worker(store, **{"payers": (payer(daily=1000),), "wall": wall, **options})  # type: ignore[arg-type] # as given
        worker.budgets.start()
        made.append(worker)
        return worker

    yield one
    for worker in made:
        shield(worker).away, shield(worker).deaf = False, set()
        await worker.budgets.close()
        assert not worker.log.bugs


def shield(worker: Worker) -> Shielded:
    assert isinstance(worker.store, Shielded)
    return worker.store


# What an exchange sees.


async def test_without_a_budget_nothing_is_asked(make: Make) -> None:
    worker = make(payers=())
    hold = await worker.reserve("a", 10)
    assert hold is FREE
    worker.budgets.settle(FREE, 10)
    worker.budgets.release(FREE)
    await asyncio.sleep(0.01)
    assert shield(worker).calls == []
    assert await make(payers=(payer(),)).reserve("a", 10) is FREE  # a payer without limits
    assert await make().reserve("a", 0) is FREE  # what is free is never refused


async def test_one_store_call_an_admission(make: Make) -> None:
    worker = make(payers=(payer(ACME, daily=500, monthly=900), payer(daily=1000, monthly=5000)))
    await worker.spend("a", 10)
    await worker.until(10, 0)
    shield(worker).calls.clear()
    hold = await worker.held("b", 10)
    assert shield(worker).calls == ["reserve"]
    worker.end(hold, 4)
    for subject, period in (
        (ACME, Period.DAILY),
        (ACME, Period.MONTHLY),
        (PROXY, Period.DAILY),
        (PROXY, Period.MONTHLY),
    ):
        await worker.until(14, 0, worker.book(period, subject))
    assert [call for call in shield(worker).calls if call in ("reserve", "settle")] == ["reserve", "settle"]


async def test_a_refusal_says_who_how_much_and_until_when(make: Make) -> None:
    worker = make(payers=(payer(ACME, daily=500), payer(daily=1000)))
    await worker.spend("a", 300)
    await worker.until(300, 0)
    await worker.held("b", 150)
    refused = await worker.reserve("c", 51)
    midnight = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
    assert refused == Refused(ACME, Period.DAILY, NanoUsd(300), NanoUsd(150), NanoUsd(500), NanoUsd(51), int(midnight))
    assert await worker.sums() == (300, 150)


async def test_a_settlement_is_booked_once_and_above_the_hold_too(make: Make) -> None:
    worker = make()
    hold = await worker.held("a", 100)
    worker.end(hold, 250)
    worker.end(hold, 250)
    worker.budgets.release(hold)
    await worker.until(250, 0)
    worker.budgets.release(await worker.held("b", 100))
    await worker.until(250, 0)
    worker.budgets.settle(await worker.held("c", 100), -5)  # nothing takes spend back
    await worker.until(250, 0)


async def test_a_dearer_target_raises_the_hold_of_its_exchange(make: Make) -> None:
    worker = make()
    await worker.held("a", 100)
    hold = await worker.held("a", 900)
    assert await worker.sums() == (0, 900)
    assert isinstance(await worker.reserve("a", 1001), Refused)
    assert await worker.sums() == (0, 900)
    worker.end(hold, 10)
    await worker.until(10, 0)


async def test_an_exchange_over_midnight_is_booked_where_it_was_reserved(make: Make, wall: Wall) -> None:
    worker = make(payers=(payer(daily=1000, monthly=1500),))
    wall.set(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC).timestamp())
    before = worker.book(Period.DAILY), worker.book(Period.MONTHLY)
    hold = await worker.held("a", 1000)
    assert isinstance(await worker.reserve("b", 600), Refused)
    wall.set(datetime(2026, 12, 1, 0, 0, 1, tzinfo=UTC).timestamp())
    await worker.held("c", 1000)
    worker.end(hold, 900)
    for book in before:
        await worker.until(900, 0, book)
    assert await worker.sums() == await worker.sums(worker.book(Period.MONTHLY)) == (0, 1000)


async def test_a_changed_cap_holds_from_the_next_reservation(make: Make) -> None:
    worker = make()
    await worker.held("a", 600)
    worker.payers = (payer(daily=500),)
    assert isinstance(await worker.reserve("b", 1), Refused)
    worker.payers = (payer(daily=2000),)
    await worker.held("b", 1400)


async def test_what_is_more_than_any_budget_is_refused(make: Make) -> None:
    assert isinstance(await make().reserve("a", 2**80), Refused)


async def test_a_cancelled_admission_leaves_nothing_held(make: Make) -> None:
    """At every await of it, before and after the book has a state."""
    worker = make()
    for seeded in (False, True):
        cancelled = 0
        for turns in range(20):
            task = asyncio.create_task(worker.reserve(f"{seeded} {turns}", 10))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            answer = (await asyncio.gather(task, return_exceptions=True))[0]
            cancelled += isinstance(answer, asyncio.CancelledError)
            if isinstance(answer, Hold):
                worker.budgets.release(answer)
        assert cancelled > 2
        worker.budgets.release(await worker.held(f"{seeded} not cancelled", 1000 if not seeded else 10))
        await worker.until(0, 0)
        assert worker.budgets.kept == 0


# Books and the ledger.


async def test_a_new_process_begins_with_what_the_ledger_says(make: Make) -> None:
    ledger = FakeLedger()
    ledger.append("yesterday", [PROXY], NOON - 86400, 5000)
    ledger.append("today", [PROXY], NOON - 60, 950)
    ledger.append("another's", [ACME], NOON - 60, 999)
    worker = make(ledger=ledger)
    assert isinstance(await worker.reserve("a", 51), Refused)
    await worker.held("b", 50)
    assert await worker.sums() == (950, 50)


async def test_a_loop_that_was_busy_does_not_blame_the_ledger(make: Make) -> None:
    """A crowd at the first request of a day: what the loop needed for them is no reason to go on without the books."""
    worker = make(ledger=FakeLedger(turns=6))
    asking = [asyncio.create_task(worker.reserve(f"e{number}", 10)) for number in range(150)]
    while not all(task.done() for task in asking):
        await asyncio.sleep(0)
        time.sleep(0.06)  # other work, in every turn of the loop
    answers = await asyncio.gather(*asking)
    assert Counter(type(answer) for answer in answers) == {Hold: 100, Refused: 50}
    assert not any(isinstance(answer, Hold) and answer.local for answer in answers)


async def test_of_several_workers_one_counts_and_the_others_wait(make: Make) -> None:
    ledger = FakeLedger(slow_s=0.05)
    ledger.append("today", [PROXY], NOON - 60, 100)
    first = make(ledger=ledger)
    workers = [first, *(make(first.store, ledger=ledger, name=f"w{number}") for number in range(2, 5))]
    answers = await asyncio.gather(*(worker.reserve(f"{worker.name} {n}", 10) for worker in workers for n in range(50)))
    assert sum(isinstance(answer, Hold) for answer in answers) == 90
    assert all(isinstance(answer, Hold | Refused) for answer in answers)
    assert ledger.asked == [(PROXY, first.book().window.id)]


async def test_a_ledger_that_is_away_opens_no_budget(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets_module, "SEEDED_S", 0.03)
    for ledger in (FakeLedger(away=True), FakeLedger(slow_s=60.0)):
        worker = make(ledger=ledger)
        watch = Stopwatch.patient()
        assert isinstance(await worker.reserve("a", 1), Away)
        assert watch.spent_s < 0.5


@pytest.mark.usefixtures("quick")
async def test_spend_that_the_store_lost_is_repaired_from_the_ledger(make: Make) -> None:
    """F083. Nothing is added twice: neither what the store has, nor what is still held."""
    worker = make()
    await worker.spend("a", 100)
    running = await worker.held("running", 50)
    worker.ledger.append("lost", [PROXY], worker.wall(), 30)
    await worker.until(130, 50)
    worker.end(running, 40)
    await worker.until(170, 0)
    await asyncio.sleep(0.5)
    assert await worker.sums() == (170, 0)
    assert worker.ledger.total(PROXY) == 170
    assert "budget repaired from the ledger" in [event["message"] for event in worker.log.events]


@pytest.mark.usefixtures("quick")
async def test_under_steady_load_the_books_and_the_ledger_agree(make: Make) -> None:
    """Two workers, audits all the time, exchanges that end before and after their rows are there."""
    first = make(payers=(payer(daily=10**9),))
    second = make(first.store, payers=first.payers, ledger=first.ledger, name="w2")

    async def exchange(worker: Worker, number: int) -> None:
        hold = await worker.held(f"{worker.name} {number}", 1000)
        await asyncio.sleep(number % 7 * 0.02)
        worker.end(hold, 10 + number % 13)

    for start in range(0, 400, 40):
        await asyncio.gather(*(exchange(worker, n) for worker in (first, second) for n in range(start, start + 40)))
    await first.until(first.ledger.total(PROXY), 0)
    await asyncio.sleep(0.5)
    assert await first.sums() == (first.ledger.total(PROXY), 0)


# The store is away.


@pytest.mark.usefixtures("quick")
async def test_while_the_store_is_away_a_worker_spends_its_slice(make: Make) -> None:
    worker = make(payers=(payer(daily=100_000),))
    await worker.spend("a", 20_000)
    await worker.until(20_000, 0)
    shield(worker).away = True
    holds = [await worker.held(f"b{number}", 100) for number in range(8)]  # a hundredth of 80,000
    assert all(hold.local for hold in holds)
    assert isinstance(await worker.reserve("c", 1), Away)
    for hold in holds[:4]:
        worker.end(hold, 100)
    assert isinstance(await worker.reserve("c", 1), Away)
    assert isinstance(await worker.reserve("d", 80_001), Refused)  # certain, whoever is away
    worker.end(holds[4], 0)
    hold = await worker.held("e", 100)
    assert worker.budgets.away

    shield(worker).away = False
    await worker.until(20_000 + 400, 400)  # the ledger's rows, and the leases of those that still run
    assert not worker.budgets.away
    for one in (*holds[5:], hold):
        worker.end(one, 70)
    await worker.until(20_000 + 400 + 4 * 70, 0)
    await asyncio.sleep(0.2)
    assert await worker.sums() == (worker.ledger.total(PROXY), 0)


@pytest.mark.usefixtures("quick")
async def test_a_store_that_comes_and_goes_cuts_no_second_slice(make: Make) -> None:
    worker = make(payers=(payer(daily=10_000),))
    await worker.spend("a", 5000)
    await worker.until(5000, 0)
    spent = 0
    for outage in range(3):
        shield(worker).away = True
        while isinstance(hold := await worker.reserve(f"{outage} {spent}", 10), Hold):
            worker.budgets.settle(hold, 10)  # the ledger has no row of it yet
            spent += 10
        shield(worker).away = False
        await worker.held(f"back {outage}", 10)
    assert spent == 50


async def test_away_from_the_start_the_slice_is_cut_from_the_ledger(make: Make) -> None:
    ledger = FakeLedger()
    ledger.append("today", [PROXY], NOON - 60, 500)
    worker = make(ledger=ledger, payers=(payer(daily=1000),))
    shield(worker).away = True
    await worker.held("a", 5)
    assert isinstance(await worker.reserve("b", 1), Away)
    assert isinstance(await worker.reserve("c", 501), Refused)


async def test_neither_store_nor_ledger_admits_nothing(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets_module, "SEEDED_S", 0.03)
    for ledger in (FakeLedger(away=True), FakeLedger(slow_s=60.0)):
        worker = make(ledger=ledger)
        shield(worker).away = True
        assert isinstance(await worker.reserve("a", 1), Away)


async def test_who_asked_for_it_is_closed_while_the_store_is_away(make: Make) -> None:
    worker = make(payers=(payer(ACME, daily=1000, closed=True), payer(daily=1000)))
    await worker.spend("a", 1)
    shield(worker).away = True
    assert isinstance(await worker.reserve("b", 1), Away)


@pytest.mark.usefixtures("quick")
async def test_settlements_wait_for_the_store_and_count_once(make: Make) -> None:
    """F074: away when they are made; then carried out, and the acknowledgement lost; then acknowledged."""
    worker = make()
    holds = [await worker.held(f"a{number}", 100) for number in range(3)]
    shield(worker).away = True
    for hold in holds:
        worker.end(hold, 60)
    await asyncio.sleep(0.05)
    assert worker.budgets.undelivered == 3
    shield(worker).deaf = {"settle"}
    shield(worker).away = False
    await worker.until(180, 0)
    assert worker.budgets.undelivered == 3
    shield(worker).deaf = set()
    async with asyncio.timeout(5):
        while worker.budgets.undelivered:
            await asyncio.sleep(0.005)
    await asyncio.sleep(0.2)
    assert await worker.sums() == (180, 0)


@pytest.mark.usefixtures("quick")
async def test_a_reservation_whose_acknowledgement_was_lost_is_given_back(make: Make) -> None:
    worker = make(payers=(payer(daily=100_000, closed=True),))
    await worker.spend("a", 1)
    await worker.until(1, 0)
    shield(worker).deaf = {"reserve"}
    assert isinstance(await worker.reserve("b", 100), Away)
    await worker.until(1, 0)


async def test_a_settlement_backlog_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_keeper, "SETTLEMENTS_MAX", 5)
    worker = make()
    holds = [await worker.held(f"a{number}", 10) for number in range(8)]
    shield(worker).away = True
    for hold in holds:
        worker.budgets.settle(hold, 10)
    assert worker.budgets.undelivered == 5


async def test_what_was_settled_is_delivered_before_the_end(make: Make) -> None:
    worker = make()
    worker.end(await worker.held("a", 100), 60)
    await worker.budgets.close()
    assert await worker.sums() == (60, 0)


# Leases.


async def test_a_lease_is_renewed_as_long_as_its_exchange_runs(make: Make) -> None:
    """F073, with a lease of 1.5 s: a machine may stop us for a second."""
    worker = make(lease_s=1.5)
    hold = await worker.held("a", 100)
    began = time.monotonic()
    for _ in range(20):
        await asyncio.sleep(0.09)
        assert await worker.sums() == (0, 100)
    assert shield(worker).calls.count("renew") <= 2 + (time.monotonic() - began) / (1.5 / 6)
    worker.end(hold, 60)
    await worker.until(60, 0)


async def test_one_call_renews_many(make: Make) -> None:
    worker = make(lease_s=1.5, payers=(payer(daily=10**6),))  # a machine may stop us for a second
    for number in range(100):
        await worker.held(str(number), 10)
    async with asyncio.timeout(10):
        while not shield(worker).calls.count("renew"):
            await asyncio.sleep(0.01)
    began, before = time.monotonic(), shield(worker).calls.count("renew")
    await asyncio.sleep(0.4)
    assert await worker.sums() == (0, 1000)
    renewed = shield(worker).calls.count("renew") - before
    assert renewed <= 2 + (time.monotonic() - began) / (1.5 / 6)  # one a tick, for a hundred leases


async def test_what_ended_is_renewed_no_more(make: Make) -> None:
    worker = make(lease_s=0.1)
    worker.budgets.release(await worker.held("a", 100))
    await asyncio.sleep(0.2)
    assert "renew" not in shield(worker).calls


# Alerts.


@pytest.mark.usefixtures("quick")
async def test_several_workers_tell_of_each_level_once(make: Make) -> None:
    first = make()
    workers = [first, *(make(first.store, ledger=first.ledger, name=f"w{number}") for number in range(2, 4))]

    async def told() -> list[tuple[AlertLevel, int]]:
        await asyncio.sleep(0.05)
        return [(alert.level, alert.spent_nanousd) for worker in workers for alert in worker.alerts]

    for number in range(7):
        for worker in workers:
            await worker.spend(f"{worker.name} {number}", 30)
    assert await told() == []
    await first.until(630, 0)
    await workers[1].spend("threshold", 300, 170)
    await first.until(800, 0)
    assert await told() == [(AlertLevel.THRESHOLD, 800)]
    for worker in workers:
        await worker.spend(f"{worker.name} more", 10)
    assert isinstance(await workers[2].reserve("too much", 1001), Refused)
    assert len(await told()) == 1
    for worker in workers:
        assert isinstance(await worker.reserve(f"{worker.name} refused", 180), Refused)
    ((level, spent),) = [one for one in await told() if one[0] is AlertLevel.LIMIT]
    assert (level, spent) == (AlertLevel.LIMIT, 830)
    alert = next(alert for worker in workers for alert in worker.alerts if alert.level is AlertLevel.LIMIT)
    assert (alert.subject, alert.period, alert.limit_nanousd) == (PROXY, Period.DAILY, 1000)
    assert alert.resets_at == first.book().window.resets_at


@pytest.mark.usefixtures("quick")
async def test_an_alert_survives_an_outage_and_a_lost_acknowledgement(make: Make) -> None:
    worker = make()
    shield(worker).deaf = {"alert"}
    await worker.spend("a", 900)
    await worker.until(900, 0)
    await asyncio.sleep(0.05)
    assert worker.alerts == []
    shield(worker).deaf = set()
    await asyncio.sleep(0.05)
    assert [alert.level for alert in worker.alerts] == [AlertLevel.THRESHOLD]


async def test_the_next_window_is_told_of_anew(make: Make, wall: Wall) -> None:
    worker = make()
    await worker.spend("a", 900)
    await asyncio.sleep(0.05)
    wall.set(NOON + 86400)
    await worker.spend("b", 900)
    await asyncio.sleep(0.05)
    assert [alert.level for alert in worker.alerts] == [AlertLevel.THRESHOLD, AlertLevel.THRESHOLD]
    assert worker.alerts[0].resets_at + 86400 == worker.alerts[1].resets_at


# What there is to see.


async def test_a_snapshot_of_the_store_the_ledger_and_the_memory(make: Make) -> None:
    ledger = FakeLedger()
    ledger.append("today", [ACME, PROXY], NOON - 60, 100)
    worker = make(ledger=ledger, payers=(payer(ACME, daily=500), payer(daily=100_000)))
    rows = await worker.budgets.snapshot(worker.payers, worker.wall())
    assert [(row["seen"], row["spent_nanousd"], row["left_nanousd"]) for row in rows] == [
        ("ledger", 100, 400),
        ("ledger", 100, 99_900),
    ]
    await worker.spend("a", 320)
    await worker.until(420, 0)
    await worker.held("b", 30)
    row = (await worker.budgets.snapshot(worker.payers, worker.wall()))[0]
    assert row == {
        "subject": "account:acme",
        "period": "daily",
        "window": "daily:2026-11-21:UTC",
        "resets_at": int(datetime(2026, 11, 22, tzinfo=UTC).timestamp()),
        "cap_nanousd": 500,
        "alert_nanousd": 400,
        "seen": "store",
        "spent_nanousd": 420,
        "held_nanousd": 30,
        "left_nanousd": 50,
        "alert": "threshold",
        "slice_left_nanousd": None,
    }
    shield(worker).away = True
    worker.payers = worker.payers[1:]
    await worker.held("c", 300)
    row = (await worker.budgets.snapshot(worker.payers, worker.wall()))[0]
    assert (row["seen"], row["spent_nanousd"], row["held_nanousd"]) == ("memory", 420, 30)
    assert row["slice_left_nanousd"] == (100_000 - 450) // 100 - 300
    ledger.away = True
    row = (await make(ledger=ledger, store=worker.store).budgets.snapshot(worker.payers, worker.wall()))[0]
    assert (row["seen"], row["spent_nanousd"], row["alert"]) == ("ledger", None, None)


# A bug.


async def test_a_bug_behind_the_back_is_told_and_does_not_end_the_work(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets_module, "AFTER_BUG_S", 0.02)
    broken = True
    worker = make()
    told = worker.alerts.append

    def fails(alert: object) -> None:
        if broken:
            raise RuntimeError("a sink that raises")
        told(alert)  # type: ignore[arg-type] # handed through

    worker.budgets._keeper._on_alert = fails
    await worker.spend("a", 900)
    await asyncio.sleep(0.05)
    assert [str(bug) for bug in worker.log.bugs] == ["a sink that raises"]
    worker.log.bugs.clear()
    broken = False
    await worker.spend("b", 50)
    await worker.until(950, 0)
    assert worker.budgets.kept == 0
