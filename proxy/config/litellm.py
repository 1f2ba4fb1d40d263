"""From a LiteLLM proxy configuration to a routes document: pure, and never silent about what it leaves out.

A `model_name` becomes a route, or a name in `models` where it is no legal route name. Deployments of one name are one
tier, in the order that LiteLLM's routing strategy gives them; those of a higher `order` and those of fallbacks are the
tiers after it. What has no counterpart becomes a note with its place. `docs/from-litellm.md` says the same to users.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxy.config.check import RESERVED
from proxy.config.from_litellm.deployments import model_list
from proxy.config.from_litellm.endpoints import Endpoints
from proxy.config.from_litellm.names import Names
from proxy.config.from_litellm.routes import Route, Routes
from proxy.config.from_litellm.settings import Settings, settings
from proxy.config.from_litellm.source import Found, Source, printable, quoted
from proxy.config.from_litellm.tiers import Share, whole
from proxy.config.from_litellm.wildcards import Wildcards
from proxy.config.problem import ConfigError, Path, Problem
from proxy.config.read import Document
from proxy.config.scalars import ROUTE_NAME
from proxy.config.section import shown

_NO_MODEL_LIST = (
    "has no model_list. It is another file, its models stand in a file that it includes, or in LiteLLM's database"
)


@dataclass(frozen=True, slots=True)
class Converted:
    """A routes document as plain data, and what could not be carried over, in the order of LiteLLM's file."""

    document: dict[str, Any]
    notes: tuple[Problem, ...]


def header(file: str) -> tuple[str, ...]:
    """The comment that a converted file begins with, line by line."""
    return (
        "yaml-language-server: $schema=./routes.schema.json",
        "",
        f"Converted by `penstock convert litellm` from {printable(file)}.",
        "`penstock check` finds what is wrong here, `penstock explain ROUTE` shows what a request would do.",
    )


def convert(document: Document, file: str) -> Converted:
    """The routes document for a LiteLLM configuration; ``file`` is its name in notes.

    Errors: ConfigError where it could not be read without problems, is no LiteLLM configuration, or has nothing that can
    be carried over (with the notes that say why).
    """
    if document.problems:
        raise ConfigError(document.problems)
    if not isinstance(document.data, dict) or document.data.get("model_list") is None:
        other = f"expected a LiteLLM configuration with model_list, got {shown(document.data)}"
        message = _NO_MODEL_LIST if isinstance(document.data, dict) else other
        raise ConfigError([Problem(file, *document.value_at(()), (), message)])
    source = Source(document, file)
    root = source.members(Found(document.data, ()))
    known = settings(source, root)
    endpoints = Endpoints(source, known.variables)
    routes = Routes(source, known, endpoints, model_list(source, root, endpoints, known.model_defaults))
    made = _assembled(source, known, endpoints, routes)
    if not made.keys() & {"routes", "models", "providers"}:
        path: Path = ("model_list",)
        message = "nothing of it can be carried over"
        raise ConfigError([*source.notes, Problem(file, *document.key_at(path), path, message)])
    return Converted(made, source.notes)


def _assembled(source: Source, known: Settings, endpoints: Endpoints, routes: Routes) -> dict[str, Any]:
    """The sections that have something in them, in the order in which the shipped file has them."""
    made = routes.made()
    wildcards = Wildcards(source, routes.wildcards, endpoints)
    used = [endpoint for route in made for endpoint in route.endpoints]
    ids, providers = endpoints.named([*used, *wildcards.endpoints])
    section, names = _named(made, known, lambda share: f"{ids[share.endpoint]}/{share.deployment.model}")
    public = {**{name: name for name in section}, **names}
    namesakes, patterns = wildcards.made(ids, providers)
    wanted = {*(ids[endpoint] for endpoint in used), *(value.partition("/")[0] for value in patterns.values())}
    return _filled(
        {
            "providers": {**{name: entry for name, entry in providers.items() if name in wanted}, **namesakes},
            "defaults": _filled({"timeouts": routes.default_timeouts}),
            "routes": section,
            "models": {**names, **_aliases(source, known, public), **patterns},
            "default_route": _default_route(source, known, public, section),
            "budgets": dict(known.budgets),
        }
    )


def _named(made: list[Route], known: Settings, target: Callable[[Share], str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The section `routes`, and the names in `models` that are no legal names of routes."""
    section: dict[str, Any] = {}
    names: dict[str, str] = {}
    taken = Names((RESERVED, *(route.name for route in made), *known.aliases))
    for route in made:
        if re.fullmatch(ROUTE_NAME, route.name) and route.name != RESERVED:
            section[route.name] = _entry(route, known.balance, target)
        elif route.is_one_target:
            names[route.name] = target(route.tiers[0][0])
        else:
            name = taken.take(_slug(route.name))
            section[name] = _entry(route, known.balance, target)
            names[route.name] = name
    return section, names


def _entry(route: Route, balance: str, target: Callable[[Share], str]) -> dict[str, Any]:
    tiers: list[Any] = []
    for tier in route.tiers:
        if len(tier) == 1:
            tiers.append(target(tier[0]))
            continue
        targets: list[dict[str, Any]] = [{"target": target(share)} for share in tier]
        weights = [share.weight for share in tier if share.weight is not None]
        if len(weights) == len(tier):
            targets = [{**one, "weight": weight} for one, weight in zip(targets, whole(weights), strict=True)]
        tiers.append({"targets": targets, "balance": balance})
    return _filled({"tiers": tiers, "timeouts": dict(route.timeouts), "params": dict(route.params)})


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._:-]+", "-", name).strip("-._:")[:56] or "route"


def _aliases(source: Source, known: Settings, public: Mapping[str, str]) -> dict[str, str]:
    made: dict[str, str] = {}
    for alias, one in known.aliases.items():
        if alias not in public and one.name in public:
            made[alias] = public[one.name]
        elif alias not in public:
            source.lost(one.found.path, f"there is no {quoted(one.name)} here that it could stand for")
    return made


def _default_route(
    source: Source, known: Settings, public: Mapping[str, str], section: Mapping[str, Any]
) -> str | None:
    found = known.default_model
    name = source.text(found)
    if found is None or name is None:
        return None
    alias = known.aliases.get(name)
    route = public.get(name if alias is None else alias.name)
    if route not in section:
        source.lost(found.path, f"{quoted(name)} is no route here")
        return None
    source.note(found.path, "carried over as default_route, which does not replace a model that a client names")
    return route


def _filled(section: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if value not in ({}, None)}
