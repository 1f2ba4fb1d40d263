"""From a file and the environment to a routing table: names to targets, providers to active or the reason why not."""

import hashlib
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import orjson

from proxy.config import schema
from proxy.config.address import expand, refusal
from proxy.config.alerts import channels
from proxy.config.budgets import budget_table
from proxy.config.cache import policy
from proxy.config.check import RESERVED, check
from proxy.config.credentials import SEALED, credentials_of, usual_credential
from proxy.config.limits import limit_table
from proxy.config.pricing import local, pricing
from proxy.config.problem import ConfigError
from proxy.config.read import read, text_of
from proxy.core.backoff import RetryPolicy
from proxy.core.breaker import Policy as BreakerPolicy
from proxy.core.credential import NOTHING_SEALED, Vault
from proxy.core.routing import AuthStyle, Balance, Provider, Route, RoutingTable, Source, Target, Tier, Timeouts
from proxy.providers.catalogue import PATHS, CatalogueRow
from proxy.providers.rows import CATALOGUE
from proxy.terms import AccountId, Api, ProviderId, RouteName

DEMO_MODEL: Final = "penstock-demo"
_UNSET: Final[Mapping[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A file that was read and found right, with all else that its table is made of, but for what is sealed.

    So a change of the sealed secrets makes a new table of the same file, whatever has been written to that meanwhile.
    """

    file: schema.File
    environ: Mapping[str, str] = field(repr=False)
    listening: frozenset[ProviderId]
    source: Source | None = None

    def table(self, vault: Vault = NOTHING_SEALED) -> RoutingTable:
        return replace(_table(self.file, self.environ, self.listening, vault), source=self.source)

    @property
    def names_sealed(self) -> bool:
        """Whether some provider's `api_key` refers to a sealed secret."""
        named = chain.from_iterable(entry.api_key or () for _, entry in _every_provider(self.file))
        return any(reference.startswith(SEALED) for reference in named)


def blueprint(path: Path, environ: Mapping[str, str], *, listening: Collection[ProviderId] = ()) -> Blueprint:
    """Read a file. ``listening``: local providers that answer at their usual address.

    Errors: ConfigError with every problem of the file, or with the one that it cannot be read.
    """
    raw, text = text_of(path)
    source = Source(str(path.resolve()), hashlib.sha256(raw).hexdigest(), time.time())
    return replace(_blueprint(text, str(path), environ, listening), source=source)


def load(
    path: Path,
    environ: Mapping[str, str],
    *,
    listening: Collection[ProviderId] = (),
    vault: Vault = NOTHING_SEALED,
) -> RoutingTable:
    """The table of a file. Errors: ConfigError, as for `blueprint`."""
    return blueprint(path, environ, listening=listening).table(vault)


def parse(
    text: str,
    file: str,
    environ: Mapping[str, str],
    *,
    listening: Collection[ProviderId] = (),
    vault: Vault = NOTHING_SEALED,
) -> RoutingTable:
    """The table of a file's text; ``file`` is its name in problems. Errors: ConfigError, as for `blueprint`."""
    return _blueprint(text, file, environ, listening).table(vault)


def _blueprint(text: str, file: str, environ: Mapping[str, str], listening: Collection[ProviderId]) -> Blueprint:
    document = read(text, file)
    problems = [*document.problems, *check(document, file, environ)]
    if problems:
        raise ConfigError(problems)
    return Blueprint(schema.File.model_validate(document.data or {}), environ, frozenset(listening))


def with_demo(table: RoutingTable, base_url: str) -> RoutingTable:
    """The table with the built-in simulator at ``base_url`` as the last tier of every route, and as a route itself."""
    base_url = base_url.rstrip("/")
    demo = Provider(
        id=ProviderId(RESERVED),
        base_url=base_url,
        urls={api: base_url + path for api, path in PATHS.items()},
        models_url=f"{base_url}/models",
        auth=dict.fromkeys(Api, AuthStyle.NONE),
        local=True,
    )
    routes = {
        name: replace(route, tiers=(*route.tiers, Tier((Target(demo, route.targets[0].model),))))
        for name, route in table.routes.items()
    }
    name = RouteName(RESERVED)
    about = "The built-in simulator: scripted answers, no provider behind them"
    routes[name] = Route(name, (Tier((Target(demo, DEMO_MODEL),)),), table.timeouts, about)
    providers = {**table.providers, demo.id: demo}
    views = {account: with_demo(view, base_url) for account, view in table.views.items()}
    prices = local(table.pricing, demo.id)
    return replace(table, providers=providers, routes=routes, demo=demo, pricing=prices, views=views)


def _table(
    file: schema.File, environ: Mapping[str, str], listening: frozenset[ProviderId], vault: Vault
) -> RoutingTable:
    views = {
        AccountId(name): replace(
            _of_all(_as_seen_by(account, file), environ, listening, vault, _owners(AccountId(name), account)),
            account=AccountId(name),
        )
        for name, account in file.accounts.items()
        if account.routes or account.providers
    }
    return replace(_of_all(file, environ, listening, vault), views=views)


def _owners(account: AccountId, entry: schema.Account) -> dict[ProviderId, AccountId]:
    return dict.fromkeys(map(ProviderId, entry.providers), account)


def _as_seen_by(account: schema.Account, file: schema.File) -> schema.File:
    """The file with an account's own routes and providers before those of all."""
    providers = dict(file.providers)
    for name, own in account.providers.items():
        given = {key: getattr(own, key) for key in own.model_fields_set}
        providers[name] = providers.get(name, schema.ProviderEntry()).model_copy(update=given)
    return file.model_copy(update={"providers": providers, "routes": {**file.routes, **account.routes}})


def _of_all(
    file: schema.File,
    environ: Mapping[str, str],
    listening: frozenset[ProviderId],
    vault: Vault,
    owners: Mapping[ProviderId, AccountId] = MappingProxyType({}),
) -> RoutingTable:
    """``owners``: of providers that an account has for itself, or something of them."""
    entries = {ProviderId(name): entry for name, entry in file.providers.items()}
    absent = schema.ProviderEntry()
    around = _Around(environ, listening, vault, file.defaults.on_disconnect)
    providers = {
        provider_id: _provider(provider_id, entries.get(provider_id, absent), around)
        for provider_id in dict.fromkeys((*CATALOGUE, *entries))
    }
    providers |= {name: replace(providers[name], owner=owner) for name, owner in owners.items()}
    defaults = _timeouts(Timeouts(), file.defaults.timeouts)
    retry = _retry(RetryPolicy(), file.defaults.retry)
    routes = {
        RouteName(name): Route(
            name=RouteName(name),
            tiers=tuple(_tier(tier, providers) for tier in entry.tiers),
            timeouts=_timeouts(defaults, entry.timeouts),
            about=entry.about,
            enabled=entry.enabled,
            retry=_retry(retry, entry.retry),
            hedge=entry.hedge,
            cache=policy(entry.cache, file.defaults.cache),
            drains=None if entry.on_disconnect is None else entry.on_disconnect == "drain",
            params=tuple((name, orjson.dumps(value)) for name, value in entry.params.items()),
        )
        for name, entry in file.routes.items()
    }
    default_route = None if file.default_route is None else RouteName(file.default_route)
    default_provider = None if file.default_provider is None else ProviderId(file.default_provider)
    return RoutingTable(
        providers,
        routes,
        dict(file.models),
        default_route,
        defaults,
        default_provider=default_provider,
        retry=retry,
        breaker=_breaker(file.defaults.breaker),
        cors_origins=frozenset(file.cors.origins),
        pricing=pricing(file, providers),
        budgets=budget_table(file.budgets, {name: account.budgets for name, account in file.accounts.items()}),
        limits=limit_table(
            file.limits,
            {name: account.limits for name, account in file.accounts.items()},
            {place: entry.limits for place, entry in _every_provider(file)},
        ),
        alerts=channels(file.alerts, environ),
        baseline=None if file.baseline is None else _target(file.baseline, providers),
        ledger_keep_days=file.ledger.keep_days,
        open_access=file.access.mode == "open",
    )


def _every_provider(file: schema.File) -> Iterator[tuple[tuple[str | None, str], schema.ProviderEntry]]:
    """Those of accounts too, beside the account: an id that two of them use is two providers."""
    for name, entry in file.providers.items():
        yield (None, name), entry
    for account, own in file.accounts.items():
        for name, entry in own.providers.items():
            yield (account, name), entry


def _timeouts(inherited: Timeouts, given: schema.Timeouts) -> Timeouts:
    return replace(inherited, **{f"{name}_s": value for name, value in given if value is not None})


def _retry(inherited: RetryPolicy, given: schema.Retry) -> RetryPolicy:
    values: dict[str, Any] = {
        "attempts": given.attempts,
        "first_s": given.backoff,
        "factor": given.factor,
        "max_s": given.max,
        "jitter": given.jitter,
        "budget": given.budget if isinstance(given, schema.DefaultRetry) else None,
    }
    return replace(inherited, **{name: value for name, value in values.items() if value is not None})


def _breaker(given: schema.Breaker) -> BreakerPolicy:
    values: dict[str, Any] = {
        "failures": given.failures,
        "cooldown_s": given.cooldown,
        "successes": given.successes,
    }
    return replace(BreakerPolicy(), **{name: value for name, value in values.items() if value is not None})


def _tier(entry: str | schema.TierEntry | schema.BalancedTier, providers: Mapping[ProviderId, Provider]) -> Tier:
    match entry:
        case str():
            return Tier((_target(entry, providers),))
        case schema.TierEntry():
            return Tier((_target(entry.target, providers),))
        case schema.BalancedTier():
            members = [schema.WeightedTarget(target=one) if isinstance(one, str) else one for one in entry.targets]
            targets = tuple(_target(one.target, providers) for one in members)
            return Tier(targets, Balance(entry.balance), tuple(float(one.weight) for one in members))


def _target(name: str, providers: Mapping[ProviderId, Provider]) -> Target:
    provider_id, _, model = name.partition("/")
    return Target(providers[ProviderId(provider_id)], model)


@dataclass(frozen=True, slots=True)
class _Around:
    """What providers are made of beside their entries."""

    environ: Mapping[str, str] = field(repr=False)
    listening: frozenset[ProviderId]
    vault: Vault
    on_disconnect: str


def _provider(provider_id: ProviderId, entry: schema.ProviderEntry, around: _Around) -> Provider:
    environ, vault = around.environ, around.vault
    row = CATALOGUE[ProviderId(entry.like) if entry.like is not None else provider_id]
    address = expand(entry.base_url or row.base_url, environ)
    usual = not address.moved and address.url == expand(row.base_url, _UNSET).url
    if entry.api_key is None:
        found = usual_credential(provider_id, row.key_vars, environ, vault)
    else:
        found = credentials_of(entry.api_key, environ, vault)
    # Whoever moves a local server by its variable has said where it is; a name of their own network is meant then.
    allow_private = entry.allow_private or (row.local and entry.base_url is None and address.moved)

    unset = list(address.unset)
    if not found.credentials and not found.unusable and (entry.api_key is not None or not row.local):
        unset += found.missing
    inactive: str | None = None
    if not entry.enabled:
        inactive = "switched off (enabled: false)"
    elif row.retired is not None:
        inactive = str(row.retired)
    elif unset:
        inactive = f"{' and '.join(unset)} {'is' if len(unset) == 1 else 'are'} not set"
    elif not found.credentials and found.unusable:
        inactive = " and ".join(found.unusable)
    elif (why := refusal(address.url, allow_private=allow_private)) is not None:
        inactive = f"its address from the environment cannot be used: {why}"
    elif row.local and usual and row.id not in around.listening:
        inactive = f"nothing answers at {address.url}"

    base_url = row.base_url if address.unset else address.url
    return Provider(
        id=provider_id,
        base_url=base_url,
        urls=_urls(row, base_url, usual=usual),
        models_url=None if row.models_path is None else base_url + row.models_path,
        auth=_auth(row, has_credential=bool(found.credentials)),
        credentials=found.credentials,
        inactive=inactive,
        key_vars=found.variables,
        asks_usage=row.asks_usage,
        chat_output_cap=row.chat_output_cap,
        pass_headers=frozenset(entry.pass_headers),
        allow_private=allow_private,
        local=row.local,
        drains=(entry.on_disconnect or around.on_disconnect) == "drain",
        retired_apis={api: str(retired) for api, retired in row.retired_apis.items()},
    )


def _urls(row: CatalogueRow, base_url: str, *, usual: bool) -> dict[Api, str]:
    """The URL of each API. A whole URL of the row counts only where the provider is at its usual address."""
    below = {api: base_url + path for api, path in row.paths.items() if path.startswith("/")}
    whole = {api: path for api, path in row.paths.items() if not path.startswith("/")}
    return {**below, **(whole if usual else {})}


def _auth(row: CatalogueRow, *, has_credential: bool) -> dict[Api, AuthStyle]:
    apis = (*row.paths, Api.PASSTHROUGH)
    if not has_credential:
        return dict.fromkeys(apis, AuthStyle.NONE)
    return {api: row.auth_by_api.get(api, row.auth) for api in apis}
