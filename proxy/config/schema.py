"""The shape of `config/routes.yaml`: what each key may hold, and the JSON Schema that editors complete from.

`python -m proxy.config.schema` prints that schema. Only what this version acts on is accepted; a key that a later
version will know is refused by that name, so that nobody believes in a budget that nothing enforces.
"""

import json
import sys
from collections.abc import Mapping
from itertools import chain
from typing import Annotated, Any, ClassVar, Final

from pydantic import Discriminator, Field, Tag
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

from proxy.config import money
from proxy.config.alerts import Entries, WebhookEntry, entry_at
from proxy.config.budgets import Budgets
from proxy.config.cache import Cache, CacheEntry
from proxy.config.limits import LimitsEntry
from proxy.config.scalars import (
    PROVIDER_ID,
    ROUTE_NAME,
    AccessMode,
    Attempts,
    BalanceName,
    CredentialReferences,
    Days,
    Duration,
    Factor,
    HeaderName,
    OnDisconnect,
    Origin,
    Params,
    Share,
    TargetName,
    Weight,
)
from proxy.config.section import Section
from proxy.core.principal import ACCOUNT_ID


class Timeouts(Section):
    """How long to wait. What is absent is inherited."""

    connect: Duration | None = Field(default=None, description="For a connection to the provider.")
    first_event: Duration | None = Field(default=None, description="For the first content event of a stream.")
    idle: Duration | None = Field(default=None, description="Between two bytes of a stream.")
    silent: Duration | None = Field(
        default=None, description="Between two data events of a stream; comments do not count."
    )
    total: Duration | None = Field(default=None, description="For the whole exchange.")


class Retry(Section):
    """How often a target is asked again, before anything has been sent to the client. What is absent is inherited."""

    attempts: Attempts | None = Field(default=None, description="The most sends to one target, the first one included.")
    backoff: Duration | None = Field(default=None, description="The wait before the first repeat.")
    factor: Factor | None = Field(default=None, description="How much longer each further wait is.")
    max: Duration | None = Field(default=None, description="The longest wait; a longer Retry-After is the client's.")
    jitter: Share | None = Field(default=None, description="The share by which a wait may be shorter or longer.")


class DefaultRetry(Retry):
    """What every route inherits of it, and what all routes share."""

    budget: Share | None = Field(default=None, description="Repeats and hedges, as a share of all requests.")


class Breaker(Section):
    """When a target is left alone, and for how long."""

    failures: Attempts | None = Field(default=None, description="Failures in a row that open it.")
    cooldown: Duration | None = Field(default=None, description="How long it stays open before a probe.")
    successes: Attempts | None = Field(default=None, description="Probes in a row that must succeed to close it.")


class Defaults(Section):
    """What every route inherits."""

    later = frozenset({"params"})

    timeouts: Timeouts = Field(default_factory=Timeouts, description="Waiting times of every route.")
    retry: DefaultRetry = Field(default_factory=DefaultRetry, description="Repeats on the same target.")
    breaker: Breaker = Field(default_factory=Breaker, description="The circuit breaker of every target and credential.")
    on_disconnect: OnDisconnect = Field(
        default="cancel",
        description="When a client leaves: cancel the provider's answer, or drain it, so that its usage is known.",
    )
    cost_tier: str | None = Field(
        default=None, description="The most that a request may cost, by the tier's name, where a route names none."
    )
    cache: Cache | None = Field(default=None, description="Whether answers are kept, and for how long; off if absent.")


class ProviderEntry(Section):
    """One provider, merged over its row in the built-in catalogue; {} takes the row as it is."""

    later = frozenset({"prices", "headers"})

    like: str | None = Field(
        default=None, description="The catalogue's provider whose data this one takes. Needed for an id of your own."
    )
    base_url: str | None = Field(
        default=None,
        description=(
            "Where its API begins: https, or http to this machine. ${NAME} and ${NAME:-default} are expanded from the"
            " environment."
        ),
        json_schema_extra={"examples": ["https://api.openai.com/v1", "${OLLAMA_URL:-http://localhost:11434}/v1"]},
    )
    api_key: CredentialReferences | None = Field(
        default=None,
        description=(
            "Where the credential is: env:NAME, an environment variable, or sealed:NAME, a sealed secret. Of several in a"
            " list the next one is used where the provider refuses one."
        ),
    )
    enabled: bool = Field(default=True, description="false switches the provider off.")
    allow_private: bool = Field(
        default=False, description="Lets base_url be plain http, or an address of a private network."
    )
    on_disconnect: OnDisconnect | None = Field(
        default=None, description="When a client leaves while this provider answers; absent: as in defaults."
    )
    pass_headers: list[HeaderName] = Field(
        default_factory=list, description="Request headers of the client to pass on, beside the usual ones."
    )
    price: dict[str, money.PriceEntry] = Field(
        default_factory=dict,
        description="What its models charge, before the price list; the key is a model, or a pattern with one *.",
    )
    limits: LimitsEntry | None = Field(default=None, description="How much may be sent to it.")


class TierEntry(Section):
    """A tier of one target, in its long form."""

    later = frozenset({"params"})

    target: TargetName = Field(description="<provider>/<model>.")
    price: money.PriceEntry | None = Field(default=None, description="What it charges here, before any other price.")
    cost_tier: str | None = Field(default=None, description="The most that a request may cost here, by its name.")
    max_output_tokens: money.OutputTokens | None = Field(
        default=None, description="The largest cap that is inserted for a client that sets none."
    )


class WeightedTarget(TierEntry):
    """One target of a tier with several."""

    weight: Weight = Field(default=1, description="Its share, beside the weights of the others, in balance 'weighted'.")


def _target_form(value: object) -> str:
    return "mapping" if isinstance(value, dict | WeightedTarget) else "string"


class BalancedTier(Section):
    """A tier of several targets, and what orders them; the rest of a tier follows before the next tier."""

    targets: list[
        Annotated[
            Annotated[TargetName, Tag("string")] | Annotated[WeightedTarget, Tag("mapping")],
            Discriminator(_target_form),
        ]
    ] = Field(min_length=1, max_length=50, description="<provider>/<model>, or {target: ..., weight: ...}.")
    balance: BalanceName = Field(
        default="weighted",
        description=(
            "weighted: drawn by weight for each request. fastest: by the time to a first answer lately seen. cheapest: by"
            " price, unknown ones last. sticky: by the beginning of the prompt, for the provider's prompt cache."
        ),
    )


def _tier_form(value: object) -> str:
    if isinstance(value, BalancedTier) or (isinstance(value, dict) and {"targets", "balance"} & value.keys()):
        return "balanced"
    return "mapping" if isinstance(value, dict | TierEntry) else "string"


Tier = Annotated[
    Annotated[TargetName, Tag("string")]
    | Annotated[TierEntry, Tag("mapping")]
    | Annotated[BalancedTier, Tag("balanced")],
    Discriminator(_tier_form),
]


class RouteEntry(Section):
    """A task alias: what a client may ask for instead of a model."""

    later = frozenset({"breaker", "balance", "budgets", "limits"})

    about: str = Field(default="", max_length=500, description="What the route is for, in a few words.")
    tiers: list[Tier] = Field(
        min_length=1,
        max_length=50,
        description=(
            "Targets in the order in which they are tried: <provider>/<model>, or {target: ...}, or several of a kind:"
            " {targets: [...], balance: ...}."
        ),
    )
    params: Params = Field(
        default_factory=dict,
        description="Members for the body of a chat or completions request, inserted where the client is silent.",
    )
    timeouts: Timeouts = Field(default_factory=Timeouts, description="Waiting times of this route alone.")
    retry: Retry = Field(default_factory=Retry, description="Repeats on the same target, in this route alone.")
    on_disconnect: OnDisconnect | None = Field(
        default=None, description="When a client of this route leaves; absent: as the provider's."
    )
    hedge: bool = Field(
        default=False,
        description="Ask a second target as well where the first takes longer than 95 of 100 did; at most 2 % of requests.",
    )
    cost_tier: str | None = Field(default=None, description="The most that a request may cost, by the tier's name.")
    unpriced: money.UnpricedEntry | None = Field(
        default=None, description="What to do with a target whose price nobody knows: reserve, reject or free."
    )
    cache: Cache | None = Field(
        default=None, description="Whether answers are kept, and for how long; absent: as in defaults."
    )
    enabled: bool = Field(default=True, description="false switches the route off.")


class Access(Section):
    """Who may ask."""

    mode: AccessMode = Field(
        default="open", description="open: whoever reaches the port. keys: who shows a virtual key."
    )


class Cors(Section):
    """Web pages that may ask from a browser."""

    origins: list[Origin] = Field(
        default_factory=list, max_length=100, description="Exact origins, such as https://app.example.com."
    )


class Account(Section):
    """What holds for one account, before what holds for all."""

    budgets: Budgets | None = Field(default=None, description="What this account may spend, beside the whole proxy.")
    limits: LimitsEntry | None = Field(
        default=None, description="How much each of its virtual keys may ask, and all of them together."
    )
    routes: dict[str, RouteEntry] = Field(
        default_factory=dict, description="Routes of this account alone, before those of all that have the same name."
    )
    providers: dict[str, ProviderEntry] = Field(
        default_factory=dict,
        description="Providers of this account alone, or what they have of its own: such as its api_key.",
    )


class Ledger(Section):
    """One row for each request."""

    keep_days: Days | None = Field(
        default=None, description="For how long rows are kept; the sums of each day stay. Absent: for ever."
    )


class File(Section):
    """Penstock's routes: providers, task aliases, and the names that tools already send."""

    later = frozenset({"retry", "breaker", "prices"})
    elsewhere: ClassVar[Mapping[str, str]] = {"cache": "routes.<name>.cache or defaults.cache"}

    providers: dict[str, ProviderEntry] = Field(
        default_factory=dict, description="Providers, merged over the built-in catalogue; the key is the provider's id."
    )
    defaults: Defaults = Field(default_factory=Defaults, description="What every route inherits.")
    routes: dict[str, RouteEntry] = Field(default_factory=dict, description="Task aliases; the key is the alias.")
    models: dict[str, str] = Field(
        default_factory=dict,
        description=(
            "Names that tools already send, to a route or a <provider>/<model>. A name may hold one *; a * on the right"
            " is the whole requested name."
        ),
    )
    default_route: str | None = Field(
        default=None, description="The route of a request that names no model. Absent: 404."
    )
    default_provider: str | None = Field(
        default=None,
        description="The provider of paths that belong to no route (files, batches, stored responses). Absent: 404.",
    )
    access: Access = Field(default_factory=Access, description="Who may ask.")
    cors: Cors = Field(default_factory=Cors, description="Web pages that may ask from a browser; none by default.")
    cost_tiers: dict[str, money.CeilingUsd] | None = Field(
        default=None, description="The most that one request may cost, in USD, by names of your own."
    )
    currency: money.CurrencyEntry | None = Field(default=None, description="The money that reports are shown in.")
    budgets: Budgets | None = Field(
        default=None, description="What the whole proxy may spend, all accounts together, in USD."
    )
    limits: LimitsEntry | None = Field(
        default=None, description="How much each virtual key may ask; where nobody has one, all together."
    )
    accounts: dict[str, Account] = Field(
        default_factory=dict, description="Accounts with budgets or limits of their own; the key is the account's id."
    )
    alerts: Entries = Field(
        default_factory=list, description="Where somebody is told that a budget is nearly or wholly spent."
    )
    baseline: TargetName | None = Field(
        default=None, description="<provider>/<model>: the model whose cost reports compare with."
    )
    ledger: Ledger = Field(default_factory=Ledger, description="The rows that are kept of requests.")


# Which section a mapping at a path is; "*" stands for any key or index.
SECTIONS: Final[Mapping[tuple[str, ...], type[Section]]] = {
    (): File,
    ("providers", "*"): ProviderEntry,
    ("providers", "*", "price", "*"): money.PriceEntry,
    ("providers", "*", "price", "*", "above", "*"): money.LargeInput,
    ("defaults",): Defaults,
    ("defaults", "timeouts"): Timeouts,
    ("defaults", "retry"): DefaultRetry,
    ("defaults", "breaker"): Breaker,
    ("defaults", "cache"): CacheEntry,
    ("routes", "*"): RouteEntry,
    ("routes", "*", "timeouts"): Timeouts,
    ("routes", "*", "retry"): Retry,
    ("routes", "*", "cache"): CacheEntry,
    ("routes", "*", "tiers", "*"): TierEntry,
    ("routes", "*", "tiers", "*", "targets", "*"): WeightedTarget,
    ("routes", "*", "tiers", "*", "targets", "*", "price"): money.PriceEntry,
    ("routes", "*", "tiers", "*", "targets", "*", "price", "above", "*"): money.LargeInput,
    ("cors",): Cors,
    ("routes", "*", "tiers", "*", "price"): money.PriceEntry,
    ("routes", "*", "tiers", "*", "price", "above", "*"): money.LargeInput,
    ("routes", "*", "unpriced"): money.ReserveUpTo,
    ("access",): Access,
    ("currency",): money.CurrencyEntry,
    ("budgets",): Budgets,
    ("limits",): LimitsEntry,
    ("providers", "*", "limits"): LimitsEntry,
    ("accounts", "*", "limits"): LimitsEntry,
    ("accounts", "*"): Account,
    ("accounts", "*", "budgets"): Budgets,
    ("alerts", "*"): WebhookEntry,
    ("ledger",): Ledger,
}


# An account has routes and providers of the same shape.
_OF_ACCOUNTS: Final = {
    ("accounts", "*", *path): section for path, section in SECTIONS.items() if path[:1] in {("routes",), ("providers",)}
}


def section_at(path: tuple[str | int, ...], value: object = None) -> type[Section] | None:
    """The section that a mapping at a path is; a tier's and an alert's depend on the mapping itself."""
    for pattern, section in chain(SECTIONS.items(), _OF_ACCOUNTS.items()):
        if len(pattern) == len(path) and all(step in {"*", at} for step, at in zip(pattern, path, strict=True)):
            if section is WebhookEntry:
                return entry_at(value)
            return BalancedTier if section is TierEntry and _tier_form(value) == "balanced" else section
    return None


class _EditorSchema(GenerateJsonSchema):
    """Without what only fills an editor's screen: generated titles, and null beside every optional value."""

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - the base class calls it by position
        return False

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        return {key: value for key, value in made.items() if key != "default" or value is not None}


def known_keys(section: type[Section]) -> list[str]:
    """The keys that this version acts on: one may have its shape already, and still be refused."""
    names = [field.alias or name for name, field in section.model_fields.items()]
    return [name for name in names if name not in section.later]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, for editors."""
    made = File.model_json_schema(schema_generator=_EditorSchema)
    for section in SECTIONS.values():
        shape = made if section is File else made["$defs"][section.__name__]
        shape["properties"] = {name: shape["properties"][name] for name in known_keys(section)}
    _drop_unused(made)
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    made["title"] = "Penstock routes"
    properties = made["properties"]
    names = {"providers": PROVIDER_ID, "routes": ROUTE_NAME, "cost_tiers": money.TIER_NAME, "accounts": ACCOUNT_ID}
    for name in names.keys() & properties.keys():
        properties[name]["propertyNames"] = {"pattern": f"^{names[name]}$"}
    return made


def _drop_unused(made: dict[str, Any]) -> None:
    """Without the definitions that nothing refers to any more."""
    while True:
        text = json.dumps(made)
        unused = [name for name in made["$defs"] if f'"#/$defs/{name}"' not in text]
        if not unused:
            return
        for name in unused:
            del made["$defs"][name]


def rendered() -> str:
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(rendered())
