"""What subjects have taken of their limits: the state machine behind every store of limits.

A *subject* (a virtual key, an account, a provider) has up to three limits: a bucket of requests, one of LLM tokens, and a
number of slots for what is under way at once. What begins takes from all of its subjects or from none:

- a *request* is gone once it is taken, and flows back with time;
- *tokens* are taken by estimate, and the difference to what was used is put right by `settle`;
- a *slot* is a lease, with an owner and an end. It is renewed while its owner works and given back by `settle`; the lease of
  one who died ends by itself.

A lease is also what makes a settlement count once: only who still has one can settle, so a settlement may be sent twice,
late, or for something that was never taken. Of a lease that ended unsettled the estimate stays, and flows back with time.

Renewing brings back a lease that the state does not know of, even above the limit: it runs, whatever was forgotten, and
until it ends nobody else is let in. Which tokens it took is forgotten then: a state that is lost begins full.

Deliberately not handled: a lease that is taken twice under one id; ids are new for everything that begins.

Written twice: `proxy/stores/redis/limits.lua` does the same, step for step. Held by `tests/core/test_limiting.py` (rows, a
slow reference) and `tests/conformance/test_limits.py` (every store).
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from operator import itemgetter
from typing import Final, NamedTuple, NewType

from proxy.core import bucket
from proxy.core.bucket import Bucket, leaked
from proxy.terms import AccountId, ProviderId, VirtualKeyId

TOKENS_MAX: Final = 10**9  # in one estimate or settlement: larger than any answer
KEPT_MS: Final = 25 * 3600_000  # a subject that takes nothing: longer than any bucket takes to fill, or lease to end
SWEEP_MIN: Final = 1024  # subjects, before those that took nothing for so long are looked for

LimitId = NewType("LimitId", str)  # "account:acme", "virtual_key:...", "provider:openai", "provider:acme:gpu"
LimitLeaseId = NewType("LimitLeaseId", str)


def account_limits(account: AccountId) -> LimitId:
    return LimitId(f"account:{account}")


def virtual_key_limits(virtual_key: VirtualKeyId) -> LimitId:
    return LimitId(f"virtual_key:{virtual_key}")


def provider_limits(provider: ProviderId, owner: AccountId | None = None) -> LimitId:
    """``owner``: the account that has a provider of this name for itself."""
    return LimitId(f"provider:{provider}" if owner is None else f"provider:{owner}:{provider}")


class Limited(Enum):
    """Which of its limits a subject has reached."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    SLOTS = "slots"


@dataclass(frozen=True, slots=True)
class LimitClaim:
    """A subject and the limits that hold for it now. None: without that limit."""

    subject: LimitId
    requests: Bucket | None = None
    tokens: Bucket | None = None
    slots: int | None = None

    @property
    def is_leased(self) -> bool:
        """Whether there is something to settle."""
        return self.tokens is not None or self.slots is not None


class LimitLease(NamedTuple):
    """What one exchange or attempt takes, or has taken, of its subjects. ``tokens``: by estimate."""

    id: LimitLeaseId
    claims: tuple[LimitClaim, ...]
    tokens: int


class LimitSettlement(NamedTuple):
    """The end of a lease. ``change``: tokens used less tokens taken."""

    id: LimitLeaseId
    claims: tuple[LimitClaim, ...]
    change: int


class LimitStanding(NamedTuple):
    """How a subject stands. Units: parts of permits (see `Bucket`) that are used; leases that run."""

    requests_used: int
    tokens_used: int
    running: int


NOTHING_TAKEN: Final = LimitStanding(0, 0, 0)


class Taken(NamedTuple):
    """How the claims' subjects stand, in their order. ``refused``: the first claim without room, and what it lacks.

    ``wait_ms``: until there would be room. None: nobody knows (slots), or never (more tokens than the bucket holds).
    """

    standings: tuple[LimitStanding, ...]
    refused: int | None = None
    limited: Limited | None = None
    wait_ms: int | None = None


@dataclass(slots=True)
class _State:
    """``leases``: until when, the first to end first."""

    seen_at: int = 0
    requests_used: int = 0
    requests_at: int = 0
    tokens_used: int = 0
    tokens_at: int = 0
    leases: OrderedDict[LimitLeaseId, int] = field(default_factory=OrderedDict)  # a dict finds its first in linear time

    def leak_requests(self, requests: Bucket, now_ms: int) -> None:
        if self.requests_used:
            self.requests_used = leaked(self.requests_used, self.requests_at, requests.per_ms, now_ms)
        self.requests_at = max(self.requests_at, now_ms)

    def leak_tokens(self, tokens: Bucket, now_ms: int) -> None:
        if self.tokens_used:
            self.tokens_used = leaked(self.tokens_used, self.tokens_at, tokens.per_ms, now_ms)
        self.tokens_at = max(self.tokens_at, now_ms)

    def expire(self, now_ms: int) -> None:
        while self.leases:
            first = next(iter(self.leases))
            if self.leases[first] > now_ms:
                return
            del self.leases[first]

    def catch_up(self, claim: LimitClaim, now_ms: int) -> None:
        """Bring the state to `now_ms`."""
        if claim.requests is not None:
            self.leak_requests(claim.requests, now_ms)
        if claim.tokens is not None:
            self.leak_tokens(claim.tokens, now_ms)
        if self.leases:
            self.expire(now_ms)

    def standing(self) -> LimitStanding:
        return LimitStanding(self.requests_used, self.tokens_used, len(self.leases))

    def lacks(self, claim: LimitClaim, tokens: int) -> tuple[Limited, int | None] | None:
        """What there is no room for, and for how long; None: there is room for all."""
        if claim.requests is not None:
            wait_ms = claim.requests.wait_ms(self.requests_used, 1)
            if wait_ms != 0:
                return Limited.REQUESTS, wait_ms
        if claim.tokens is not None:  # without tokens too: somebody in debt waits until it is paid
            wait_ms = claim.tokens.wait_ms(self.tokens_used, tokens)
            if wait_ms != 0:
                return Limited.TOKENS, wait_ms
        if claim.slots is not None and len(self.leases) >= claim.slots:
            return Limited.SLOTS, None
        return None

    def take(self, claim: LimitClaim, lease: LimitLease, until_ms: int) -> None:
        if claim.requests is not None:
            self.requests_used += claim.requests.unit
        if claim.tokens is not None:
            self.tokens_used += lease.tokens * claim.tokens.unit
        if claim.is_leased:
            self.lease(lease.id, until_ms)

    def lease(self, lease_id: LimitLeaseId, until_ms: int) -> None:
        is_last = not self.leases or self.leases[next(reversed(self.leases))] <= until_ms
        self.leases[lease_id] = until_ms
        self.leases.move_to_end(lease_id)  # behind those that end sooner
        if not is_last:  # the clock was set back
            self.leases = OrderedDict(sorted(self.leases.items(), key=itemgetter(1)))

    def settle(self, claim: LimitClaim, lease_id: LimitLeaseId, change: int, now_ms: int) -> None:
        if self.leases:
            self.expire(now_ms)
        if self.leases.pop(lease_id, None) is not None and claim.tokens is not None:
            self.leak_tokens(claim.tokens, now_ms)
            used = self.tokens_used + change * claim.tokens.unit
            self.tokens_used = min(max(0, used), claim.tokens.debt_max)


class LimitStates:
    """The subjects of one process, or of all that share a store. Units: milliseconds of any one clock."""

    def __init__(self, lease_ms: int) -> None:
        self._lease_ms = lease_ms
        self._states: dict[LimitId, _State] = {}
        self._sweep_at = SWEEP_MIN

    def take(self, lease: LimitLease, now_ms: int) -> Taken:
        """Take from every subject, or from none."""
        claims = lease.claims
        states = [self._at(claim.subject, now_ms) for claim in claims]
        for state, claim in zip(states, claims, strict=True):
            state.catch_up(claim, now_ms)
        for index, (state, claim) in enumerate(zip(states, claims, strict=True)):
            lacking = state.lacks(claim, lease.tokens)
            if lacking is not None:
                return Taken(tuple([one.standing() for one in states]), index, *lacking)
        until_ms = now_ms + self._lease_ms
        for state, claim in zip(states, claims, strict=True):
            state.take(claim, lease, until_ms)
        return Taken(tuple([one.standing() for one in states]))

    def renew(self, leases: Sequence[LimitLease], now_ms: int) -> None:
        for lease in leases:
            for claim in lease.claims:
                if claim.is_leased:
                    self._at(claim.subject, now_ms).lease(lease.id, now_ms + self._lease_ms)

    def settle(self, settlements: Sequence[LimitSettlement], now_ms: int) -> None:
        for one in settlements:
            for claim in one.claims:
                if claim.is_leased:
                    self._at(claim.subject, now_ms).settle(claim, one.id, one.change, now_ms)

    def look(self, claims: Sequence[LimitClaim], now_ms: int) -> tuple[LimitStanding, ...]:
        for claim in claims:
            self._at(claim.subject, now_ms).catch_up(claim, now_ms)
        return tuple(self._at(claim.subject, now_ms).standing() for claim in claims)

    def reset(self, subject: LimitId) -> bool:
        """Forget all that a subject has taken. Whether there was anything."""
        return self._states.pop(subject, None) is not None

    def clear(self) -> None:
        self._states.clear()

    @property
    def empty(self) -> bool:
        return not self._states

    def _at(self, subject: LimitId, now_ms: int) -> _State:
        state = self._states.get(subject)
        if state is None:
            if len(self._states) >= self._sweep_at:
                self._sweep(now_ms)
            state = self._states[subject] = _State()
        state.seen_at = now_ms
        return state

    def _sweep(self, now_ms: int) -> None:
        """Bounds the states: virtual keys come and go."""
        for subject, state in list(self._states.items()):
            if now_ms - state.seen_at > KEPT_MS:
                del self._states[subject]
        self._sweep_at = max(SWEEP_MIN, 2 * len(self._states))


def share(claim: LimitClaim, workers: int) -> LimitClaim:
    """What one of so many workers may take by itself."""
    if workers <= 1:
        return claim
    return LimitClaim(
        claim.subject,
        None if claim.requests is None else bucket.share(claim.requests, workers),
        None if claim.tokens is None else bucket.share(claim.tokens, workers),
        None if claim.slots is None else max(1, claim.slots // workers),
    )
