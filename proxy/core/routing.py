"""The routing table, and the plan that it yields for one request.

A table is immutable: a reload builds a new one, and a running exchange keeps the one that it started with. `plan` is
pure: a requested name, the API it came by, and the table decide everything. What a name may be, in this order: a route;
a name that `models` matches, exact before longest pattern; `<provider>/<model>`; in demo mode anything else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import chain
from typing import Final, NamedTuple

from proxy.core import backoff, breaker, redact
from proxy.core.alert_channel import Channel
from proxy.core.backoff import RetryPolicy
from proxy.core.breaker import Policy as BreakerPolicy
from proxy.core.cache_policy import CachePolicy
from proxy.core.credential import Credential
from proxy.core.failure import Failure, FailureKind
from proxy.core.limit_table import NO_LIMITS, LimitTable
from proxy.core.nearest import did_you_mean
from proxy.core.pattern import Pattern, patterns
from proxy.core.payer import NO_BUDGETS, BudgetTable
from proxy.core.pricing import NO_PRICES, Pricing
from proxy.terms import AccountId, Api, ProviderId, RouteName, TargetName

NAME_CHARS_MAX: Final = 512  # fine-tune ids reach 100; a longer name is no name
PLANNED_MAX: Final = 2048  # plans kept, beyond those of configured names: clients choose direct names
LISTED_MAX: Final = 8  # names that a message lists before it says how many more there are
ANY_MODEL: Final = "*"  # of a target that is a provider alone
OWNER: Final = "penstock"  # `owned_by` of a route in GET /v1/models


class AuthStyle(Enum):
    """How a provider wants its credential."""

    NONE = "none"
    BEARER = "bearer"
    X_API_KEY = "x-api-key"
    API_KEY = "api-key"


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider as configured: a catalogue row merged with the file and the environment.

    Shapes: ``urls`` holds the full URL of every API that it speaks, ``auth`` a style for each of the same APIs and for
    the paths that are relayed below ``base_url``.
    ``credentials`` are tried in turn where the provider refuses one; empty where it needs none. ``inactive`` says in words
    why it cannot serve now; None means that it can. ``key_vars`` are the environment variables that may hold credentials.
    ``retired_apis`` says what to use instead of an API that it gave up.
    ``owner`` is the account that has it for itself, or something of it, such as a credential; None: it is everybody's.
    """

    id: ProviderId
    base_url: str
    urls: Mapping[Api, str]
    models_url: str | None
    auth: Mapping[Api, AuthStyle]
    credentials: tuple[Credential, ...] = ()
    inactive: str | None = None
    key_vars: tuple[str, ...] = ()
    asks_usage: bool = (
        True  # whether `stream_options.include_usage` may be, and must be, added to get usage in a stream
    )
    pass_headers: frozenset[str] = frozenset()  # lower case
    allow_private: bool = False
    local: bool = False
    retired_apis: Mapping[Api, str] = field(default_factory=dict)
    drains: bool = False  # an answer is read to its end although its client has left
    chat_output_cap: str = "max_tokens"  # what it calls the output cap of a chat
    owner: AccountId | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """The credentials' values, for those who take them out of what is told."""
        return tuple(credential.value for credential in self.credentials)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Units: seconds. ``idle``: no byte; ``silent``: no data event; ``total``: the whole exchange."""

    connect_s: float = 5.0
    first_event_s: float = 300.0
    idle_s: float = 60.0
    silent_s: float = 300.0
    total_s: float = 590.0


@dataclass(frozen=True, slots=True)
class Target:
    """One model at one provider.

    ``name`` and ``masked_model`` are derived. The second is the model as it may be told where it was a client that named it,
    and may have named a key.
    """

    provider: Provider
    model: str
    name: TargetName = field(init=False, repr=False, compare=False)
    masked_model: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", TargetName(f"{self.provider.id}/{self.model}"))
        object.__setattr__(self, "masked_model", redact.text(self.model))


class Balance(Enum):
    """What orders the targets of a tier: see `proxy.core.balance`."""

    WEIGHTED = "weighted"
    FASTEST = "fastest"
    CHEAPEST = "cheapest"
    STICKY = "sticky"


@dataclass(frozen=True, slots=True)
class Tier:
    """Targets that are tried before those of the next tier. ``weights``: one for each target."""

    targets: tuple[Target, ...]
    balance: Balance | None = None
    weights: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A task alias: tiers of targets, tried in order.

    Shapes: ``params`` are members (name, JSON value) for the body of a request that is silent about them. ``drains`` None:
    as the target's provider does. ``cache`` None: answers are not kept.
    """

    name: RouteName
    tiers: tuple[Tier, ...]
    timeouts: Timeouts
    about: str = ""
    enabled: bool = True
    params: tuple[tuple[str, bytes], ...] = ()
    retry: RetryPolicy = backoff.STANDARD
    drains: bool | None = None
    hedge: bool = False
    cache: CachePolicy | None = None

    @property
    def targets(self) -> tuple[Target, ...]:
        """All of them, in the file's order."""
        return tuple(chain.from_iterable(tier.targets for tier in self.tiers))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A target that a plan leaves out, and why, in words for `explain` and for the error message."""

    target: TargetName
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which targets to try, in order, for one request.

    Shapes: ``asked`` is the requested name, or the default route's where none was sent. ``targets`` is never empty, and
    in the file's order; ``tiers`` holds the same targets where some tier has a balance, which orders them anew for every
    request, and is empty where none has.
    """

    asked: str
    route: RouteName | None  # None where the request named a target directly
    targets: tuple[Target, ...]
    skipped: tuple[Skipped, ...]
    timeouts: Timeouts
    tiers: tuple[Tier, ...] = ()
    params: tuple[tuple[str, bytes], ...] = ()
    retry: RetryPolicy = backoff.STANDARD
    drains: bool | None = None
    hedge: bool = False
    cache: CachePolicy | None = None

    def outlives(self, target: Target) -> bool:
        """Whether an answer of `target` is read to its end although the client has left."""
        return target.provider.drains if self.drains is None else self.drains


@dataclass(frozen=True, slots=True)
class Source:
    """The file that a table was made of. Shapes: ``sha256`` of its bytes, in hex. Units: ``read_at`` Unix seconds."""

    path: str
    sha256: str
    read_at: float


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Everything that names resolve to. Built by `proxy.config.resolve`; see `plan` for how a request reads it.

    Shapes: ``models`` maps a requested name, or a pattern with one ``*``, to a route name or a ``<provider>/<model>``
    in which ``*`` stands for the whole requested name. ``demo`` is the provider that serves any name which has no
    active target of its own, None outside demo mode. ``default_provider`` serves the paths without a route.
    ``cors_origins`` are the web pages that may ask. ``pricing``: what targets cost. ``budgets``: who pays, and how much at
    most. ``limits``: how much may be asked. ``alerts``: where an operator is told. ``baseline``: the model that reports
    compare with. ``ledger_keep_days`` None: rows are kept for ever. ``source`` is None where no file was read.
    ``open_access``: callers need no key. ``views``: the tables of accounts that have routes or providers of their own, each
    with its ``account``. ``patterns``, ``may_outlive`` and ``planned`` are derived: ``planned`` holds what names have
    yielded, bounded by the configured names times APIs and by `PLANNED_MAX` for the others.
    """

    providers: Mapping[ProviderId, Provider]
    routes: Mapping[RouteName, Route]
    models: Mapping[str, str]
    default_route: RouteName | None
    timeouts: Timeouts
    demo: Provider | None = None
    default_provider: ProviderId | None = None
    retry: RetryPolicy = backoff.STANDARD
    breaker: BreakerPolicy = breaker.STANDARD
    cors_origins: frozenset[str] = frozenset()
    pricing: Pricing = NO_PRICES
    budgets: BudgetTable = NO_BUDGETS
    limits: LimitTable = NO_LIMITS
    alerts: tuple[Channel, ...] = ()
    baseline: Target | None = None
    ledger_keep_days: int | None = None
    source: Source | None = field(default=None, compare=False)
    open_access: bool = True
    account: AccountId | None = None
    views: "Mapping[AccountId, RoutingTable]" = field(default_factory=dict)
    patterns: tuple[Pattern[str], ...] = field(init=False, repr=False, compare=False)
    may_outlive: bool = field(init=False, repr=False, compare=False)
    planned: dict[tuple[str, Api], Plan | Failure] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "patterns", patterns(self.models))
        drains = any(one.drains for one in self.providers.values()) or any(one.drains for one in self.routes.values())
        object.__setattr__(self, "may_outlive", drains or any(view.may_outlive for view in self.views.values()))
        object.__setattr__(self, "planned", {})

    def of(self, account: AccountId) -> "RoutingTable":
        """The table by which an account's requests are routed: its own, or this one."""
        return self.views.get(account, self)

    @property
    def all_providers(self) -> Iterator[Provider]:
        """Its own, and then those that accounts have for themselves; an id may stand there more than once."""
        yield from self.providers.values()
        for view in self.views.values():
            yield from (one for one in view.providers.values() if one.owner is not None)

    @property
    def is_active(self) -> bool:
        """Whether some provider could serve somebody."""
        return any(one.inactive is None for one in self.all_providers)


class _Ask(NamedTuple):
    """What one request asks of the table."""

    name: str
    api: Api
    only: ProviderId | None = None  # the one provider that the client allows


def plan(table: RoutingTable, asked: str | None, api: Api, *, only: str | None = None) -> Plan | Failure:
    """What to try for a request that asked for `asked`; `only` is the one provider that the client allows.

    Errors: MODEL_UNKNOWN with the nearest names; PROVIDER_INACTIVE naming the variables to set; UNSUPPORTED_API saying
    what would do; NO_TARGET for a route that is switched off; BAD_REQUEST where `only` names nothing useful.
    """
    name = asked or table.default_route
    if not name:
        return _unnamed(table)
    if only is not None:
        return _planned_at(table, name, api, only)
    known = table.planned.get((name, api))
    if known is not None:
        return known
    made = _planned(table, _Ask(name, api))
    configured = name in table.routes or name in table.models
    if configured or (isinstance(made, Plan) and len(table.planned) < PLANNED_MAX):
        table.planned[name, api] = made
    return made


def passthrough_plan(table: RoutingTable, only: str | None) -> Plan | Failure:
    """The one provider that a path without a route is relayed to: the one that the client names, or the file's."""
    name = only if only is not None else table.default_provider
    if name is None:
        message = (
            "this path belongs to no route, so it takes one provider: name it in the header x-penstock-provider, "
            "or set default_provider in the configuration"
        )
        return Failure(FailureKind.UNKNOWN_PATH, message)
    provider = table.providers.get(ProviderId(name))
    if provider is None:
        return _no_provider(table, name)
    if provider.inactive is not None:
        message = f"provider {provider.id} is not active: {provider.inactive}"
        return Failure(FailureKind.PROVIDER_INACTIVE, message, param="x-penstock-provider")
    return Plan(provider.id, None, (Target(provider, ANY_MODEL),), (), table.timeouts)


def _planned_at(table: RoutingTable, name: str, api: Api, only: str) -> Plan | Failure:
    if only in table.providers:
        return _planned(table, _Ask(name, api, ProviderId(only)))
    return _no_provider(table, only)


def _no_provider(table: RoutingTable, name: str) -> Failure:
    hint = did_you_mean(name, table.providers)
    message = f"x-penstock-provider names {_quoted(name)}, which is not a provider here.{hint}"
    return Failure(FailureKind.BAD_REQUEST, message, param="x-penstock-provider")


def considered(table: RoutingTable, asked: str | None, api: Api) -> list[tuple[Target, str | None]]:
    """Every target that a plan would consider, in order, each with the reason to skip it; None: it would be tried."""
    ask = _Ask(asked or table.default_route or "", api)
    found = _candidates(table, ask)
    if isinstance(found, Failure):
        return []
    return [(target, _reason_to_skip(target.provider, ask)) for target in found[1]]


def _planned(table: RoutingTable, ask: _Ask) -> Plan | Failure:
    found = _candidates(table, ask)
    if isinstance(found, Failure):
        return found
    route, candidates = found
    if route is not None and not route.enabled:
        return Failure(FailureKind.NO_TARGET, f"route '{route.name}' is switched off (enabled: false)")
    return _chosen(table, ask, route, candidates)


def _candidates(table: RoutingTable, ask: _Ask) -> tuple[Route | None, tuple[Target, ...]] | Failure:
    mapped = meant(table, ask.name)
    route = table.routes.get(RouteName(mapped))
    if route is not None:
        return route, route.targets
    target = _target(table, mapped)
    demo = table.demo if table.demo is not None and ask.only in {None, table.demo.id} else None
    if demo is not None and (target is None or target.provider.inactive is not None):
        target = Target(demo, ask.name if target is None else target.model)
    if target is None or not _sendable(ask.name):
        return _unknown(table, ask.name)
    return None, (target,)


def meant(table: RoutingTable, asked: str) -> str:
    """The route or the target that a name leads to; the name itself where it is one, or where nothing matches."""
    if asked in table.routes:
        return asked
    value = table.models.get(asked)
    if value is None:
        value = next((pattern.value for pattern in table.patterns if pattern.matches(asked)), None)
    return asked if value is None else value.replace("*", asked)


def _target(table: RoutingTable, name: str) -> Target | None:
    head, slash, model = name.partition("/")
    provider = table.providers.get(ProviderId(head)) if slash and model else None
    return None if provider is None else Target(provider, model)


def _sendable(asked: str) -> bool:
    """Whether a name that a client chose may travel in a header, a log line and a provider's request."""
    return len(asked) <= NAME_CHARS_MAX and asked.isprintable()


def _chosen(table: RoutingTable, ask: _Ask, route: Route | None, candidates: tuple[Target, ...]) -> Plan | Failure:
    chosen: list[Target] = []
    skipped: list[Skipped] = []
    for target in candidates:
        reason = _reason_to_skip(target.provider, ask)
        if reason is None:
            chosen.append(target)
        else:
            skipped.append(Skipped(target.name, reason))
    if not chosen:
        who = _quoted(ask.name) if route is None else f"route '{route.name}'"
        return _nothing_left(table, ask, who, candidates)
    if route is None:
        return Plan(ask.name, None, tuple(chosen), tuple(skipped), table.timeouts, retry=table.retry)
    tiers = _left(route.tiers, chosen) if any(tier.balance is not None for tier in route.tiers) else ()
    return Plan(
        ask.name,
        route.name,
        tuple(chosen),
        tuple(skipped),
        route.timeouts,
        tiers,
        route.params,
        route.retry,
        route.drains,
        route.hedge,
        route.cache,
    )


def _left(tiers: tuple[Tier, ...], chosen: list[Target]) -> tuple[Tier, ...]:
    """The tiers without the targets that were not chosen."""
    left = []
    for tier in tiers:
        kept = [index for index, target in enumerate(tier.targets) if target in chosen]
        weights = tuple(tier.weights[index] for index in kept) if tier.weights else ()
        left.append(replace(tier, targets=tuple(tier.targets[index] for index in kept), weights=weights))
    return tuple(left)


def _reason_to_skip(provider: Provider, ask: _Ask) -> str | None:
    if ask.only is not None and provider.id != ask.only:
        return f"x-penstock-provider allows only {ask.only}"
    if provider.inactive is not None:
        return provider.inactive
    if ask.api in provider.urls:
        return None
    retired = provider.retired_apis.get(ask.api)
    said = f"does not speak the {ask.api.value} API"
    return said if retired is None else f"{said}: {retired}"


def _nothing_left(table: RoutingTable, ask: _Ask, who: str, candidates: tuple[Target, ...]) -> Failure:
    allowed = {target.provider.id: target.provider for target in candidates if ask.only in {None, target.provider.id}}
    if not allowed:
        offered = _listed(sorted({target.provider.id for target in candidates}))
        message = f"{who} has no target at '{ask.only}', which x-penstock-provider asks for, but at {offered}"
        return Failure(FailureKind.BAD_REQUEST, message, param="x-penstock-provider")
    speaking = [provider for provider in allowed.values() if ask.api in provider.urls]
    if not speaking or any(provider.inactive is None for provider in allowed.values()):
        return _unsupported(table, who, allowed.values(), ask.api)
    why = "; ".join(f"{provider.id}: {provider.inactive}" for provider in speaking)
    message = f"no provider of {who} is active ({why}). Make one of them active and restart Penstock"
    return Failure(FailureKind.PROVIDER_INACTIVE, message, param="model")


def _unsupported(table: RoutingTable, who: str, providers: Iterable[Provider], api: Api) -> Failure:
    spoken = "; ".join(f"{provider.id} {_speaks(provider, api)}" for provider in providers)
    could = _listed([entry_id for entry_id, _ in _usable(table, api)])
    advice = f"What does: {could}" if could else "No active target does"
    message = f"no target of {who} speaks the {api.value} API ({spoken}). {advice}"
    return Failure(FailureKind.UNSUPPORTED_API, message, param="model")


def _speaks(provider: Provider, api: Api) -> str:
    spoken = ", ".join(known.value for known in Api if known in provider.urls) or "nothing"
    retired = provider.retired_apis.get(api)
    said = f"speaks {spoken}"
    return said if retired is None else f"{said}; {api.value} {retired}"


def _unnamed(table: RoutingTable) -> Failure:
    message = f"the request names no model and no default_route is configured. Send one of {_listed(_names(table))}"
    return Failure(FailureKind.MODEL_UNKNOWN, message, param="model")


def _unknown(table: RoutingTable, asked: str) -> Failure:
    hint = did_you_mean(asked, _names(table), most=3) or _provider_hint(table, asked)
    message = (
        f"model {_quoted(asked)} is not a route, a configured name or <provider>/<model>.{hint}"
        " GET /v1/models lists what there is"
    )
    return Failure(FailureKind.MODEL_UNKNOWN, message, param="model")


def _provider_hint(table: RoutingTable, asked: str) -> str:
    head, slash, model = asked.partition("/")
    unknown = slash and ProviderId(head) not in table.providers
    return did_you_mean(head, table.providers, suffix=f"/{model[:80]}") if unknown else ""


def _names(table: RoutingTable) -> Sequence[str]:
    routes = [route.name for route in table.routes.values() if route.enabled]
    exact = [name for name in table.models if "*" not in name]
    return [*routes, *exact, *dict.fromkeys(target.name for target in configured(table))]


def configured(table: RoutingTable) -> Iterator[Target]:
    """Every target that the file names, routes first; some of them more than once."""
    for route in table.routes.values():
        yield from route.targets
    for name, value in table.models.items():
        target = None if "*" in name else _target(table, value.replace("*", name))
        if target is not None:
            yield target


def listing(table: RoutingTable) -> list[tuple[str, str]]:
    """What GET /v1/models shows, as (id, owned_by): routes, then active targets, then the exact names of `models`."""
    return list(_usable(table, None))


def _usable(table: RoutingTable, api: Api | None) -> Iterator[tuple[str, str]]:
    """Names that can serve now, each once; those that speak `api` where one is given."""

    def usable(provider: Provider) -> bool:
        return provider.inactive is None and (api is None or api in provider.urls)

    shown: dict[str, str] = {}
    for route in table.routes.values():
        if route.enabled and any(usable(target.provider) for target in route.targets):
            shown[route.name] = OWNER
    for target in configured(table):
        if usable(target.provider):
            shown.setdefault(target.name, target.provider.id)
    for name, value in table.models.items():
        if "*" in name:
            continue
        mapped = _target(table, value.replace("*", name))
        if mapped is not None and (table.demo is not None or usable(mapped.provider)):
            shown.setdefault(name, mapped.provider.id)
        elif value in shown:
            shown.setdefault(name, OWNER)
    yield from shown.items()


def _quoted(asked: str) -> str:
    """A client's own word in a message: bounded, and without control characters."""
    clean = redact.cut(asked, 1024)
    return repr(clean if len(clean) <= 80 else clean[:79] + "…")


def _listed(names: Sequence[str]) -> str:
    if len(names) <= LISTED_MAX:
        return ", ".join(names)
    return f"{', '.join(names[:LISTED_MAX])} and {len(names) - LISTED_MAX} more"
