"""When a subject is asked: rows of whole lives, a reference that reads its history anew, and the laws of `join`."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.core import breaker
from proxy.core.breaker import (
    EVENTS,
    KEPT_S,
    SKEW_S,
    UNKNOWN,
    Admission,
    Cause,
    Event,
    Policy,
    Record,
    Rejection,
    State,
)
from proxy.core.failure import TABLE, FailureKind, Tally
from proxy.terms import ProviderId, TargetName

POLICY = Policy()
START = 1_000_000.0
WORDS = {
    "ok": Event.SUCCESS,
    "fail": Event.FAILURE,
    "429": Event.COOL_DOWN,
    "quota": Event.COOL_DOWN_LONG,
    "401": Event.QUARANTINE,
    "left": Event.IGNORED,
}

# A life, in words. A number lets time pass; a word is an exchange that is admitted and ends so, `429:7` with that hint;
# `hold` admits one that ends later, by `late:`; `reset` is an admin's. Then: the state, and when it passes again.
LIVES: dict[str, tuple[str, State, float | None]] = {
    "four failures": ("fail fail fail fail", State.CLOSED, None),
    "five failures": ("fail fail fail fail fail", State.OPEN, 60),
    "not in a row": ("fail fail fail fail ok fail fail fail fail", State.CLOSED, None),
    "the client's faults never open": ("left left left left left left left left", State.CLOSED, None),
    "the client's faults between failures count neither way": ("fail fail left fail 429:0 fail fail", State.OPEN, 60),
    "not long enough": ("fail*5 59.9", State.OPEN, 60),
    "half open": ("fail*5 60", State.HALF_OPEN, None),
    "one success": ("fail*5 60 ok", State.HALF_OPEN, None),
    "two successes": ("fail*5 60 ok ok", State.CLOSED, None),
    "a failed probe": ("fail*5 60 fail", State.OPEN, 120),
    "a failed probe after a good one": ("fail*5 60 ok fail", State.OPEN, 120),
    "the cool-down does not grow": ("fail*5 60 fail 60 fail 60 fail", State.OPEN, 240),
    "good probes of two openings do not add up": ("fail*5 60 ok fail 60 ok", State.HALF_OPEN, None),
    "a probe's client left": ("fail*5 60 left", State.HALF_OPEN, None),
    "a probe's client left between good ones": ("fail*5 60 ok left ok", State.CLOSED, None),
    "closed is closed for good": ("fail*5 60 ok ok fail fail fail fail", State.CLOSED, None),
    "and opens again": ("fail*5 60 ok ok fail*5", State.OPEN, 120),
    "cooling": ("429:7", State.OPEN, 7),
    "cooled": ("429:7 7", State.CLOSED, None),
    "cooling without a hint": ("429", State.OPEN, 1),
    "cooling for too long": ("429:86400", State.OPEN, 300),
    "a hint in the past": ("429:-5", State.CLOSED, None),
    "the longest hint of several": ("hold hold 429:2 late:429:9", State.OPEN, 9),
    "it opens while it cools": ("fail*4 hold 429:100 late:fail", State.OPEN, 100),
    "a shorter hint does not shorten": ("hold 429:9 late:429:2", State.OPEN, 9),
    "a 429 is no failure": ("fail fail fail fail 429:1 1", State.CLOSED, None),
    "a 429 does not make good": ("fail fail fail fail 429:1 1 fail", State.OPEN, 61),
    "a probe is throttled": ("fail*5 60 429:7", State.OPEN, 67),
    "a probe was throttled": ("fail*5 60 429:7 7", State.HALF_OPEN, None),
    "quota": ("quota", State.OPEN, 900),
    "quota with a hint": ("quota:30", State.OPEN, 30),
    "quota for too long": ("quota:86400", State.OPEN, 900),
    "after a quota": ("quota 900", State.HALF_OPEN, None),
    "quarantine": ("401", State.OPEN, 900),
    "after a quarantine": ("401 900", State.HALF_OPEN, None),
    "repaired": ("401 900 ok ok", State.CLOSED, None),
    "not repaired": ("401 900 401", State.OPEN, 1800),
    "reset": ("fail*5 reset", State.CLOSED, None),
    "reset while cooling": ("429:100 reset", State.CLOSED, None),
    "reset forgets failures": ("fail fail fail fail reset fail", State.CLOSED, None),
    "a late success does not close": ("hold hold fail*5 60 late:ok late:ok", State.HALF_OPEN, None),
    "a late failure does not open again": ("hold fail*5 60 late:fail", State.HALF_OPEN, None),
    "a late failure after it closed": ("hold*5 fail*5 60 ok ok late:fail*5", State.CLOSED, None),
    "a late success after it closed": ("hold fail*5 60 ok ok fail*4 late:ok fail", State.OPEN, 120),
    "a late failure after a reset": ("hold*5 reset late:fail*5", State.CLOSED, None),
    "a late quarantine after a reset": ("hold 401 reset late:401", State.CLOSED, None),
    "a late 429 after a reset": ("hold 429:9 reset late:429:9", State.CLOSED, None),
    "two probes, the lease of one has run out": ("fail*5 60 hold hold late:fail late:ok 60", State.HALF_OPEN, None),
    "clock set back a little": ("fail*5 -30", State.OPEN, 60),
    "clock set back by a year": ("fail*5 -31536000", State.HALF_OPEN, None),
}


@dataclass(slots=True)
class Life:
    now: float = START
    record: Record = UNKNOWN
    held: list[Admission] = field(default_factory=list)

    def live(self, word: str) -> None:
        word, _, times = word.partition("*")
        for _ in range(int(times or 1)):
            self._once(word)

    def _once(self, word: str) -> None:
        if word == "hold":
            self.held.append(self._admitted())
        elif word == "reset":
            self.record = breaker.reset(self.record, self.now)
        elif word.startswith("late:"):
            self._ended(self.held.pop(0), word.removeprefix("late:"))
        elif word.partition(":")[0] in WORDS:
            self._ended(self._admitted(), word)
        else:
            self.now += float(word)

    def _admitted(self) -> Admission:
        decision = breaker.admit(self.record, POLICY, self.now)
        assert isinstance(decision, Admission)
        return decision

    def _ended(self, admission: Admission, word: str) -> None:
        name, _, hint = word.partition(":")
        hint_s = float(hint) if hint else None
        self.record = breaker.step(self.record, admission, WORDS[name], POLICY, self.now, hint_s=hint_s, error=name)


@pytest.mark.parametrize(("words", "state", "passes_after_s"), LIVES.values(), ids=LIVES)
def test_lives(words: str, state: State, passes_after_s: float | None) -> None:
    life = Life()
    for word in words.split():
        life.live(word)
    assert breaker.state(life.record, POLICY, life.now) is state
    decision = breaker.admit(life.record, POLICY, life.now)
    if passes_after_s is None:
        assert isinstance(decision, Admission)
        assert decision.probe is (state is State.HALF_OPEN)
    else:
        assert isinstance(decision, Rejection)
        assert decision.until == START + passes_after_s
        assert isinstance(breaker.admit(life.record, POLICY, decision.until), Admission)


def test_a_rejection_says_why() -> None:
    for words, cause, error in (
        ("fail*5", Cause.FAILURES, "fail"),
        ("quota", Cause.QUOTA, "quota"),
        ("401", Cause.QUARANTINE, "401"),
        ("429", Cause.THROTTLED, "429"),
        ("fail*5 60 429:7", Cause.THROTTLED, "429"),
        ("429:7 7 fail*5", Cause.FAILURES, "fail"),
    ):
        life = Life()
        for word in words.split():
            life.live(word)
        decision = breaker.admit(life.record, POLICY, life.now)
        assert isinstance(decision, Rejection)
        assert (decision.cause, decision.last_error) == (cause, error), words


@pytest.mark.parametrize("hint_s", [math.nan, math.inf, -math.inf, 1e300, -0.0])
def test_no_hint_is_too_odd(hint_s: float) -> None:
    for event in (Event.COOL_DOWN, Event.COOL_DOWN_LONG):
        record = breaker.step(UNKNOWN, breaker.PASS, event, POLICY, START, hint_s=hint_s)
        assert START <= max(record.cooling_until, record.open_until, START) <= START + POLICY.longest_s
        assert breaker.from_bytes(breaker.to_bytes(record)) == record


def test_every_outcome_means_something_for_target_and_credential() -> None:
    assert set(EVENTS) == {None, *Tally}
    for kind in FailureKind:
        target, credential = EVENTS[TABLE[kind].tally]
        assert (target is Event.QUARANTINE) == (kind is FailureKind.MODEL_NOT_FOUND), kind
        assert (credential is Event.QUARANTINE) == (kind is FailureKind.CREDENTIAL_REJECTED), kind
    for kind in (
        FailureKind.INVALID_REQUEST,
        FailureKind.CLIENT_GONE,
        FailureKind.CLIENT_STALLED,
        FailureKind.CONTEXT_EXCEEDED,
        FailureKind.BODY_TOO_LARGE,
        FailureKind.NOT_FOUND,
        FailureKind.STALE_CONNECTION,
    ):
        assert EVENTS[TABLE[kind].tally] == (Event.IGNORED, Event.IGNORED), kind


def test_a_credential_is_told_apart_and_not_told() -> None:
    provider, secret = ProviderId("openai"), "sk-canary-0123456789"
    subject = breaker.credential_subject(provider, secret)
    assert subject != breaker.credential_subject(provider, secret + "x")
    assert subject != breaker.credential_subject(ProviderId("azure"), secret)
    assert "canary" not in subject
    assert "/" not in subject
    assert breaker.target_subject(TargetName("openai/gpt-4o")) == "openai/gpt-4o"


# The reference: it keeps everything that happened, and finds every answer by looking through it.


@dataclass(eq=False, slots=True)
class Chapter:
    """From one opening, closing or reset to the next."""

    open_until: float | None
    outcomes: list[str] = field(default_factory=list)


class Reference:
    def __init__(self) -> None:
        self.chapter = Chapter(None)
        self.coolings: list[float] = []

    def says(self, now: float) -> tuple[State, float]:
        ends = [until for until in (*self.coolings, self.chapter.open_until or 0.0) if until > now]
        if ends:
            return State.OPEN, max(ends)
        return (State.CLOSED if self.chapter.open_until is None else State.HALF_OPEN), 0.0

    def ended(self, chapter: Chapter, event: Event, now: float, hint_s: float | None) -> None:
        if chapter is not self.chapter:
            return
        if event is Event.COOL_DOWN:
            self.coolings.append(now + (1.0 if hint_s is None else min(max(hint_s, 0.0), 300.0)))
        elif event is Event.COOL_DOWN_LONG:
            self.chapter = Chapter(now + (900.0 if hint_s is None else min(max(hint_s, 0.0), 900.0)))
        elif event is Event.QUARANTINE:
            self.chapter = Chapter(now + 900.0)
        elif event in (Event.SUCCESS, Event.FAILURE):
            chapter.outcomes.append(event.name)
            self._judge(now)

    def reset(self) -> None:
        self.chapter = Chapter(None)
        self.coolings = []

    def _judge(self, now: float) -> None:
        outcomes = self.chapter.outcomes
        if self.chapter.open_until is None:
            if outcomes[-5:] == ["FAILURE"] * 5:
                self.chapter = Chapter(now + 60.0)
        elif "FAILURE" in outcomes:
            self.chapter = Chapter(now + 60.0)
        elif outcomes == ["SUCCESS"] * 2:
            self.reset()


class BreakerMachine(RuleBasedStateMachine):
    """Random lives of one subject; exchanges overlap and end in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.record = UNKNOWN
        self.reference = Reference()
        self.running: list[tuple[Admission, Chapter]] = []

    @rule(seconds=st.sampled_from([0.0, 0.5, 1.0, 29.0, 59.0, 60.0, 61.0, 300.0, 900.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def admit(self) -> None:
        decision = breaker.admit(self.record, POLICY, self.now)
        if isinstance(decision, Admission):
            self.running.append((decision, self.reference.chapter))

    @rule(
        event=st.sampled_from(Event),
        hint_s=st.none() | st.sampled_from([-1.0, 0.0, 0.5, 7.0, 60.0, 1e6]),
        times=st.integers(1, 6),
    )
    def exchange(self, event: Event, hint_s: float | None, times: int) -> None:
        """Some that are admitted and over at once: what makes the interesting states likely."""
        for _ in range(times):
            self.admit()
            if self.running:
                self._end(len(self.running) - 1, event, hint_s)

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        event=st.sampled_from(Event),
        hint_s=st.none() | st.sampled_from([0.0, 7.0, 1e6]),
    )
    def end(self, data: st.DataObject, event: Event, hint_s: float | None) -> None:
        self._end(data.draw(st.integers(0, len(self.running) - 1)), event, hint_s)

    @rule()
    def reset(self) -> None:
        self.record = breaker.reset(self.record, self.now)
        self.reference.reset()

    @rule()
    def travel(self) -> None:
        """What comes back from another process is the same, but for a closed one's tally."""
        back = breaker.from_bytes(breaker.to_bytes(self.record))
        assert back == (self.record if self.record.open_until else replace(self.record, failures=0))
        assert breaker.join(self.record, back) is self.record

    def _end(self, number: int, event: Event, hint_s: float | None) -> None:
        admission, chapter = self.running.pop(number)
        before = self.record
        self.record = breaker.step(before, admission, event, POLICY, self.now, hint_s=hint_s, error=event.name)
        self.reference.ended(chapter, event, self.now, hint_s)
        assert self.record is before or self.record != before
        if self.record.generation != before.generation:
            assert breaker.tells(before, self.record)
        if breaker.tells(before, self.record):
            assert breaker.join(before, self.record) == self.record
            assert breaker.join(self.record, before) is self.record

    @invariant()
    def agrees(self) -> None:
        state, until = self.reference.says(self.now)
        assert breaker.state(self.record, POLICY, self.now) is state
        decision = breaker.admit(self.record, POLICY, self.now)
        if state is State.OPEN:
            assert isinstance(decision, Rejection)
            assert decision.until == until
        else:
            assert decision == Admission(self.record.generation, probe=state is State.HALF_OPEN)


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)


# Records of two processes.

_TIMES = st.sampled_from([0.0, 10.0, 20.0, 30.0])
_RECORDS = st.builds(
    Record,
    generation=st.integers(0, 3),
    since=_TIMES,
    open_until=_TIMES,
    cooling_until=_TIMES,
    failures=st.integers(0, 5),
    successes=st.integers(0, 1),
    cause=st.sampled_from(Cause),
    last_error=st.sampled_from(["", "a", "b"]),
)


@settings(max_examples=500)
@given(one=_RECORDS, two=_RECORDS, three=_RECORDS)
def test_it_does_not_matter_who_hears_what_first_or_twice(one: Record, two: Record, three: Record) -> None:
    join = breaker.join
    assert join(one, one) is one
    assert join(one, two) == join(two, one)
    assert join(one, join(two, three)) == join(join(one, two), three)
    assert join(join(one, two), two) == join(one, two)
    assert join(one, UNKNOWN) == one or one.since == 0.0


def test_the_later_generation_wins_and_within_one_the_further() -> None:
    opened = Record(1, 100.0, 160.0, failures=5, cause=Cause.FAILURES)
    closed = Record(2, 165.0)
    assert breaker.join(opened, closed) is closed
    assert breaker.join(closed, replace(opened, since=170.0, open_until=230.0)).open_until == 230.0
    assert breaker.join(opened, replace(opened, successes=1)).successes == 1
    assert breaker.join(opened, replace(opened, cooling_until=170.0)).cooling_until == 170.0
    assert breaker.join(replace(closed, failures=3), closed).failures == 3


def test_a_clock_that_is_set_back_does_not_make_news_old() -> None:
    opened = breaker.step(Record(4, START), Admission(4), Event.QUARANTINE, POLICY, START - 30)
    closed = breaker.reset(opened, START - 60)
    for before, after in ((Record(4, START), opened), (opened, closed)):
        assert breaker.join(before, after) is after


def test_what_others_are_told() -> None:
    opened = Record(1, 100.0, 160.0)
    assert not breaker.tells(UNKNOWN, replace(UNKNOWN, failures=4, last_error="x"))
    for after in (replace(opened, successes=1), replace(opened, cooling_until=170.0), Record(2, 165.0)):
        assert breaker.tells(opened, after)


_ANY_RECORD = st.builds(
    Record,
    generation=st.integers(0, 2**53),
    since=st.floats(0, 1e11),
    open_until=st.floats(0, 1e11),
    cooling_until=st.floats(0, 1e11),
    failures=st.integers(0, 2**53),
    successes=st.integers(0, 2**53),
    cause=st.sampled_from(Cause),
    last_error=st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)


@given(record=_ANY_RECORD)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    assert breaker.from_bytes(breaker.to_bytes(record)) == (
        record if record.open_until else replace(record, failures=0)
    )


GOOD: dict[str, Any] = orjson.loads(breaker.to_bytes(Record(3, 100.0, 160.0, cause=Cause.FAILURES, failures=5)))
BROKEN: dict[str, bytes] = {
    "nothing": b"",
    "half": breaker.to_bytes(UNKNOWN)[:-5],
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "not UTF-8": b'{"format":"\xff"}',
    "a pickle": b"\x80\x04K\x01.",
    "deep": b"[" * 2000,
    **{f"without {name}": orjson.dumps({key: GOOD[key] for key in GOOD if key != name}) for name in GOOD},
    **{f"{name} null": orjson.dumps({**GOOD, name: None}) for name in GOOD},
    **{f"{name} a word": orjson.dumps({**GOOD, name: "x"}) for name in GOOD if name != "last_error"},
    **{f"{name} true": orjson.dumps({**GOOD, name: True}) for name in GOOD},
    **{f"{name} negative": orjson.dumps({**GOOD, name: -1}) for name in GOOD},
    **{f"{name} too large": orjson.dumps({**GOOD, name: 2**60}) for name in GOOD},
    "a later format": orjson.dumps({**GOOD, "format": 2}),
    "NaN": breaker.to_bytes(UNKNOWN).replace(b'"since":0.0', b'"since":NaN'),
    "half a failure": orjson.dumps({**GOOD, "failures": 0.5}),
    "a list of causes": orjson.dumps({**GOOD, "cause": ["failures"]}),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_what_is_corrupt_is_absent(data: bytes) -> None:
    assert breaker.from_bytes(data) is None


@given(data=st.binary(max_size=200))
def test_no_bytes_break_it(data: bytes) -> None:
    breaker.from_bytes(data)


def test_a_clock_that_differs_by_little_is_believed() -> None:
    record = breaker.step(UNKNOWN, breaker.PASS, Event.QUARANTINE, POLICY, START)
    for behind_s in (0.0, 0.005, SKEW_S):
        assert breaker.state(record, POLICY, START - behind_s) is State.OPEN
    assert breaker.state(record, POLICY, START - SKEW_S - 1) is State.HALF_OPEN


def test_a_record_outlives_what_was_admitted_before_it() -> None:
    assert KEPT_S > 590  # the longest that an exchange may take by default
    assert breaker.forgotten_at(Record(1, 100.0, 160.0)) == 160.0 + KEPT_S
    assert breaker.is_idle(Record(cooling_until=50.0), 50.0)
    for record in (Record(cooling_until=50.1), Record(failures=1), Record(1, 20.0)):
        assert not breaker.is_idle(record, 50.0)
