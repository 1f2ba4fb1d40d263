"""One exchange: everything that its phases learn, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from proxy.core.breaker import Admission, Rejection, Subject
from proxy.core.cache_selector import Labels
from proxy.core.cost import Charge
from proxy.core.credential import Credential
from proxy.core.failure import Failure
from proxy.core.ledger import NOTHING, CacheState
from proxy.core.pricing import Terms
from proxy.core.principal import ANYBODY, Principal
from proxy.core.prompt import Prompt
from proxy.core.routing import Plan, Target
from proxy.core.splice import Body
from proxy.core.trace import TraceContext
from proxy.phases.budgets import FREE, Hold
from proxy.phases.limits import Grant, LimitReached
from proxy.phases.upload import Upload
from proxy.terms import AccountId, Api, Commitment, ExchangeId, NanoUsd, Usage


class Quote(NamedTuple):
    """What one attempt may cost at most, and under which terms.

    ``output_cap``: what is inserted in the client's stead. ``output_tokens_max``: what no answer can exceed, all choices
    together; None: nobody caps it.
    """

    terms: Terms
    hold_nanousd: NanoUsd
    output_cap: int | None = None
    output_tokens_max: int | None = None


class Bill(NamedTuple):
    """What the relayed answer has used, as far as the provider says and in all, and what it costs."""

    reported: Usage | None
    used: Usage
    charge: Charge


@dataclass(slots=True)
class Attempt:
    """One try at one target. Units: monotonic seconds. ``failure`` None: it answered. ``passage``: see `gate`.

    ``credential`` is what is shown; None where the provider needs none. ``grant``: what it took of its provider's limits.
    ``wasted_nanousd``: what it may have cost although it gave no answer. ``span_id`` 0: nothing is traced.
    """

    target: Target
    started: float
    quote: Quote
    credential: Credential | None = None
    ended: float = 0.0
    failure: Failure | None = None
    passage: tuple[tuple[Subject, Admission], ...] = ()
    grant: Grant | None = None
    wasted_nanousd: NanoUsd = NOTHING
    span_id: int = 0


@dataclass(slots=True)
class Exchange:
    """Mutable, owned by one task. Times are monotonic seconds, sizes bytes.

    ``id`` is what the client sees, and may have chosen; ``booked_as`` is this exchange's alone. ``admitted_ms``: Unix
    milliseconds, by which it belongs to a day and a budget's window.
    """

    id: ExchangeId
    booked_as: ExchangeId
    api: Api
    method: str
    path: str
    headers: Mapping[str, str]  # the client's, looked up without case
    started: float
    admitted_ms: int
    total_at: float = 0.0
    principal: Principal = ANYBODY
    is_identified: bool = False  # from the beginning where the server itself asks, for a principal that it knows
    body: Body | None = None
    upload: Upload | None = None  # a body that is not read but passed on; else `body`
    streamed: bool = False
    choices: int = 1
    asked: str | None = None
    plan: Plan | None = None
    hurried: bool = False  # the client's own deadline is nearer than the route's
    attempts: list[Attempt] = field(default_factory=list)
    rejections: list[tuple[Target, Rejection]] = field(default_factory=list)  # what the breakers held back
    unaffordable: list[Failure] = field(default_factory=list)  # targets that money kept from being asked
    cost_tier: tuple[str, NanoUsd] | None = None  # the client's own, and its ceiling
    prompt: Prompt | None = None
    input_tokens_guessed: int | None = None
    limits: Grant | LimitReached | None = None  # of whom it took what, or would have; None: nobody is limited
    clearances: int = 0  # how many were taken of a provider's limits
    hold: Hold = FREE
    held_nanousd: NanoUsd = NOTHING
    commitment: Commitment = Commitment.UNCOMMITTED
    outlives: bool = False  # goes on although the client has left
    target: Target | None = None  # the one whose answer is relayed
    upstream_wait_s: float = 0.0
    status: int = 0
    failure: Failure | None = None
    figures: dict[str, Any] | None = None  # raw usage, see `usage.normalise`
    answer_whole: bool = False  # the target said all that it had to say, so its report is its last word
    reported_cost: NanoUsd | None = None  # in a header of the answer
    guessed_output: int = 0  # tokens of an answer that reports none
    bill: Bill | None = None
    cache: CacheState = "off"
    is_recorded: bool = False  # its answer goes to a `Recording`, and is settled when that is over
    usage_asked: bool = False  # in the client's stead
    wants_usage: bool = False  # the client asked for it in a stream
    recalled: Labels | None = None  # who gave the answer that was not asked for again
    saved_nanousd: NanoUsd = NOTHING
    request_bytes: int = 0
    first_event_at: float | None = None
    overhead_s: float | None = None
    relayed_bytes: int = 0
    data_events: int = 0
    trace: TraceContext | None = None

    @property
    def account(self) -> AccountId:
        return self.principal.account

    @property
    def at_stake_nanousd(self) -> NanoUsd:
        """What the attempts so far may have cost: what failed ones wasted, and all of what one under way may."""
        at_stake = 0
        for one in self.attempts:
            at_stake += one.quote.hold_nanousd if one.failure is None else one.wasted_nanousd
        return NanoUsd(at_stake)

    @property
    def wasted_nanousd(self) -> NanoUsd:
        """What attempts may have cost although they gave no answer."""
        wasted = 0
        for one in self.attempts:
            wasted += one.wasted_nanousd
        return NanoUsd(wasted)
