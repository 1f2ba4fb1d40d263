"""One exchange: everything that its phases learn, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from proxy.core.breaker import Admission, Rejection, Subject
from proxy.core.failure import Failure
from proxy.core.routing import Plan, Target
from proxy.core.splice import Body
from proxy.phases.upload import Upload
from proxy.terms import DEFAULT_ACCOUNT, AccountId, Api, Commitment, ExchangeId


@dataclass(slots=True)
class Attempt:
    """One try at one target. Units: monotonic seconds. ``failure`` None: it answered. ``passage``: see `gate`."""

    target: Target
    started: float
    ended: float = 0.0
    failure: Failure | None = None
    passage: tuple[tuple[Subject, Admission], ...] = ()


@dataclass(slots=True)
class Exchange:
    """Mutable, owned by one task. Times are monotonic seconds, sizes bytes."""

    id: ExchangeId
    api: Api
    method: str
    path: str
    headers: Mapping[str, str]  # the client's, looked up without case
    started: float
    total_at: float = 0.0
    account: AccountId = DEFAULT_ACCOUNT
    body: Body | None = None
    upload: Upload | None = None  # a body that is not read but passed on; else `body`
    streamed: bool = False
    choices: int = 1
    asked: str | None = None
    plan: Plan | None = None
    hurried: bool = False  # the client's own deadline is nearer than the route's
    attempts: list[Attempt] = field(default_factory=list)
    rejections: list[tuple[Target, Rejection]] = field(default_factory=list)  # what the breakers held back
    commitment: Commitment = Commitment.UNCOMMITTED
    outlives: bool = False  # goes on although the client has left
    target: Target | None = None  # the one whose answer is relayed
    upstream_wait_s: float = 0.0
    status: int = 0
    failure: Failure | None = None
    figures: dict[str, Any] | None = None  # raw usage, see `usage.normalise`
    request_bytes: int = 0
    first_event_at: float | None = None
    overhead_s: float | None = None
    relayed_bytes: int = 0
