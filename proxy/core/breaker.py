"""The circuit breaker: when a subject is not to be asked, and who may find out whether it is well again.

A *subject* is a target (``<provider>/<model>``) or a credential of a provider. Its *record* says all there is to know.

States. CLOSED passes. OPEN rejects until a time. HALF_OPEN is an OPEN whose time has come: it passes one exchange at a
time, a *probe*, for which a lease must be had. HALF_OPEN is never written down: every process sees by its clock that the
time has come, so nobody has to tell the others, and nobody can be stuck in it.

Events, of an exchange that was admitted:

- SUCCESS: CLOSED forgets its failures; of a probe: the second in a row (``successes``) closes.
- FAILURE: the fifth in a row (``failures``) opens for the cool-down; of a probe: opens again. The cool-down is constant.
- COOL_DOWN (a 429): rejects until the provider's hint, at most ``throttled_max_s``, and is neither a failure nor a
  success. It lies over the state and leaves it as it is: what was CLOSED is CLOSED again afterwards, at once for everybody,
  because the provider itself said when; what was HALF_OPEN is HALF_OPEN again.
- COOL_DOWN_LONG (a quota), QUARANTINE (credential refused, model not found): OPEN at once, for long, then HALF_OPEN: who
  paid or repaired the key is found out by one exchange and not by all.
- IGNORED (the client's fault, the client left): nothing. A probe that ends so gives its lease back, no more.

Stale reports. Opening, closing and resetting begin a new *generation*. An exchange carries the generation that it was
admitted in, and a report of another generation changes nothing: an old stream that ends well does not close what opened
meanwhile, and the last of a hundred failures does not reopen what has been repaired.

Sharing. Opening, closing, cooling and a probe's success are for all processes (`tells`); a tally below the limit is each
one's own. `join` merges what two processes know of one subject: the later generation wins, within one the further. It is
commutative, associative and idempotent, so it does not matter who hears what first, or twice.

Deliberately not handled: the lease itself (a store grants it), failure rates (five in a row is the contract), a time window
for the tally, growing cool-downs. Times are Unix seconds. A time further off than any cool-down lasts comes of a clock that
was set back, and counts as over.

Held by `tests/core/test_breaker.py`: rows, a reference that reads the whole history anew, the laws of `join`.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, Final, NewType

from proxy.core.failure import Tally
from proxy.terms import AccountId, ProviderId, TargetName

Subject = NewType("Subject", str)

FORMAT: Final = 1  # of a record's bytes
KEPT_S: Final = 3600.0  # how long a record says something after its last time: longer than any exchange lives
SKEW_S: Final = 60.0  # by how much the clocks of two instances may differ
_TIME_MAX: Final = 1e11  # the year 5138
_COUNT_MAX: Final = 2**53


class State(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(Enum):
    SUCCESS = auto()
    FAILURE = auto()
    COOL_DOWN = auto()
    COOL_DOWN_LONG = auto()
    QUARANTINE = auto()
    IGNORED = auto()


class Cause(Enum):
    """Why a subject was opened last, or why it is rejected now."""

    NONE = "none"
    FAILURES = "failures"
    THROTTLED = "throttled"
    QUOTA = "quota"
    QUARANTINE = "quarantine"
    LIMITED = "limited"  # of a rejection alone: what may be sent there is under way, or was sent


_CAUSES: Final[Mapping[str, Cause]] = MappingProxyType({cause.value: cause for cause in Cause})

# What an exchange's outcome is for its target, and for the credential that it used. None: it went well.
EVENTS: Final[Mapping[Tally | None, tuple[Event, Event]]] = MappingProxyType(
    {
        None: (Event.SUCCESS, Event.SUCCESS),
        Tally.IGNORE: (Event.IGNORED, Event.IGNORED),
        Tally.FAILURE: (Event.FAILURE, Event.IGNORED),
        Tally.COOL_DOWN: (Event.COOL_DOWN, Event.IGNORED),
        Tally.COOL_DOWN_LONG: (Event.COOL_DOWN_LONG, Event.IGNORED),
        Tally.QUARANTINE_CREDENTIAL: (Event.IGNORED, Event.QUARANTINE),
        Tally.QUARANTINE_TARGET: (Event.QUARANTINE, Event.IGNORED),
    }
)


@dataclass(frozen=True, slots=True)
class Policy:
    """Units: seconds. ``throttled_s`` is for a 429 that gives no hint, ``long_s`` for quotas and quarantines."""

    failures: int = 5
    cooldown_s: float = 60.0
    successes: int = 2
    lease_s: float = 60.0
    throttled_s: float = 1.0
    throttled_max_s: float = 300.0
    long_s: float = 900.0

    @property
    def longest_s(self) -> float:
        return max(self.cooldown_s, self.throttled_max_s, self.throttled_s, self.long_s)


STANDARD: Final = Policy()


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one subject. Units: Unix seconds; 0.0 is never.

    Shapes: ``open_until`` 0.0 means closed. ``since``: when this generation began. ``failures`` are those in a row while
    closed, and those that opened it while open; ``successes`` are of probes. ``cooling_until`` lies over the state.
    """

    generation: int = 0
    since: float = 0.0
    open_until: float = 0.0
    cooling_until: float = 0.0
    failures: int = 0
    successes: int = 0
    cause: Cause = Cause.NONE
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class Admission:
    """An exchange may be sent; handed back with its outcome. ``probe``: only under a lease; ``owner`` names the lease."""

    generation: int
    probe: bool = False
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Rejection:
    """An exchange may not be sent before ``until`` (Unix seconds)."""

    until: float
    cause: Cause
    last_error: str = ""


UNKNOWN: Final = Record()  # a subject that nothing is known of
PASS: Final = Admission(UNKNOWN.generation)


def target_subject(target: TargetName, owner: AccountId | None = None) -> Subject:
    """``owner``: the account that asks it with what is its own. How that fares says nothing of it to others."""
    return Subject(target if owner is None else f"{owner}:{target}")


def owner_of(subject: Subject) -> AccountId | None:
    """The account that alone is concerned, of a target's subject; None: everybody is."""
    owner, colon, _ = subject.partition("/")[0].rpartition(":")
    return AccountId(owner) if colon else None


def credential_subject(provider: ProviderId, credential: str) -> Subject:
    """Tells credentials apart and gives none away. Has no ``/``, so it is no target's name."""
    return Subject(f"{provider}#{hashlib.sha256(credential.encode()).hexdigest()[:8]}")


def admit(record: Record, policy: Policy, now: float) -> Admission | Rejection:
    """Whether one more exchange may be sent now."""
    cooling = record.cooling_until if _is_ahead(record.cooling_until, policy, now) else 0.0
    opened = record.open_until if _is_ahead(record.open_until, policy, now) else 0.0
    if cooling or opened:
        cause = Cause.THROTTLED if cooling > opened else record.cause
        return Rejection(max(cooling, opened), cause, record.last_error)
    return Admission(record.generation, probe=record.open_until > 0)


def _is_ahead(until: float, policy: Policy, now: float) -> bool:
    return now < until <= now + policy.longest_s + SKEW_S


def state(record: Record, policy: Policy, now: float) -> State:
    decision = admit(record, policy, now)
    if isinstance(decision, Rejection):
        return State.OPEN
    return State.HALF_OPEN if decision.probe else State.CLOSED


def step(
    record: Record,
    admission: Admission,
    event: Event,
    policy: Policy,
    now: float,
    *,
    hint_s: float | None = None,
    error: str = "",
) -> Record:
    """The record after an exchange has ended; the same object where nothing changed.

    ``hint_s``: after how many seconds the provider wants to be asked again. ``error``: the failure's kind.
    """
    if admission.generation != record.generation:
        return record
    match event:
        case Event.IGNORED:
            return record
        case Event.SUCCESS:
            return _succeeded(record, policy, now)
        case Event.FAILURE:
            failures = record.failures if record.open_until else record.failures + 1
            if record.open_until or failures >= policy.failures:
                return _opened(record, Cause.FAILURES, now + policy.cooldown_s, now, failures=failures, error=error)
            return replace(record, failures=failures, last_error=error)
        case Event.COOL_DOWN:
            until = now + _bounded(hint_s, policy.throttled_s, policy.throttled_max_s)
            return replace(record, cooling_until=until, last_error=error) if until > record.cooling_until else record
        case Event.COOL_DOWN_LONG:
            until = now + _bounded(hint_s, policy.long_s, policy.long_s)
            return _opened(record, Cause.QUOTA, until, now, failures=record.failures, error=error)
        case Event.QUARANTINE:
            until = now + policy.long_s
            return _opened(record, Cause.QUARANTINE, until, now, failures=record.failures, error=error)


def _succeeded(record: Record, policy: Policy, now: float) -> Record:
    if not record.open_until:
        return replace(record, failures=0) if record.failures else record
    if record.successes + 1 >= policy.successes:
        return reset(record, now)
    return replace(record, successes=record.successes + 1)


def _opened(record: Record, cause: Cause, until: float, now: float, *, failures: int, error: str) -> Record:
    return Record(
        generation=record.generation + 1,
        since=max(now, record.since),
        open_until=until,
        cooling_until=record.cooling_until,
        failures=failures,
        cause=cause,
        last_error=error,
    )


def _bounded(hint_s: float | None, default_s: float, most_s: float) -> float:
    if hint_s is None or math.isnan(hint_s):
        return default_s
    return min(max(hint_s, 0.0), most_s)


def reset(record: Record, now: float) -> Record:
    """Closed, nothing held against it; a new generation, so that what is under way says nothing of it."""
    return Record(record.generation + 1, max(now, record.since), last_error=record.last_error)


def tells(before: Record, after: Record) -> bool:
    """Whether other processes must hear of the change."""
    return _told(before) != _told(after)


def _told(record: Record) -> tuple[float, ...]:
    return record.generation, record.since, record.open_until, record.successes, record.cooling_until


def join(one: Record, other: Record) -> Record:
    """What is known where two processes know different things. Gives back `one` itself where `other` adds nothing."""
    if (one.since, one.generation) != (other.since, other.generation):
        return one if (one.since, one.generation) > (other.since, other.generation) else other
    opened = max(one, other, key=lambda record: (record.open_until, record.cause.value))
    cooled = max(one, other, key=lambda record: (record.cooling_until, record.last_error))
    joined = replace(
        opened,
        cooling_until=cooled.cooling_until,
        last_error=cooled.last_error,
        failures=max(one.failures, other.failures),
        successes=max(one.successes, other.successes),
    )
    return one if joined == one else joined


def is_idle(record: Record, now: float) -> bool:
    """Whether it says no more than that nothing is known."""
    return not record.generation and not record.failures and record.cooling_until <= now


def forgotten_at(record: Record) -> float:
    """When a shared record has become meaningless: nothing admitted before it can still be under way."""
    return max(record.since, record.open_until, record.cooling_until) + KEPT_S


def to_bytes(record: Record) -> bytes:
    """For other processes: without a closed one's tally, which is each one's own."""
    import orjson  # noqa: PLC0415 - what names a policy need not load it

    return orjson.dumps(
        {
            "format": FORMAT,
            "generation": record.generation,
            "since": record.since,
            "open_until": record.open_until,
            "cooling_until": record.cooling_until,
            "failures": record.failures if record.open_until else 0,
            "successes": record.successes,
            "cause": record.cause.value,
            "last_error": record.last_error,
        }
    )


def from_bytes(data: bytes) -> Record | None:
    """None where the bytes are no record of this format."""
    import orjson  # noqa: PLC0415 - as above

    try:
        found: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(found, dict) or _count(found.get("format")) != FORMAT:
        return None
    since, open_until, cooling_until = map(_time, map(found.get, ("since", "open_until", "cooling_until")))
    generation, failures, successes = map(_count, map(found.get, ("generation", "failures", "successes")))
    cause, last_error = found.get("cause"), found.get("last_error")
    if since is None or open_until is None or cooling_until is None:
        return None
    if generation is None or failures is None or successes is None:
        return None
    if not isinstance(cause, str) or cause not in _CAUSES or not isinstance(last_error, str):
        return None
    return Record(generation, since, open_until, cooling_until, failures, successes, _CAUSES[cause], last_error)


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _TIME_MAX:
        return None
    return float(value)


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _COUNT_MAX:
        return None
    return value
