"""Everything that is wrong with a document, at once: its shape, and what its names refer to.

Both stages read the plain data, so that an error of shape in one route hides no dangling reference in another.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from proxy.config import alerts, budgets, limits
from proxy.config.address import expand, refusal
from proxy.config.check_money import check_money
from proxy.config.problem import Path, Problem, dotted
from proxy.config.read import Document
from proxy.config.scalars import PROVIDER_ID, ROUTE_NAME, TARGET, duration_s
from proxy.config.schema import SECTIONS, File, known_keys, section_at
from proxy.config.section import shown
from proxy.core.nearest import did_you_mean
from proxy.core.principal import ACCOUNT_ID
from proxy.core.routing import NAME_CHARS_MAX
from proxy.providers.rows import CATALOGUE

RESERVED: Final = "demo"  # the simulator's provider and route, in demo mode
LIST_MAX: Final = 12  # names that a message lists where none is near

# What pydantic calls it: what we expected there.
_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def check(document: Document, file: str, environ: Mapping[str, str]) -> list[Problem]:
    """Every problem of a document that could be read, in no particular order."""
    if document.data is None:
        return []
    if not isinstance(document.data, dict):
        message = f"expected a mapping with keys such as routes, got {shown(document.data)}"
        return [Problem(file, *document.value_at(()), (), message)]
    early = _keys_held_back(document)
    document = replace(document, data=_without(document.data, early))
    checker = _Checker(document, file, environ)
    return [
        *(checker.too_early(path) for path in early),
        *checker.shape(),
        *checker.providers(),
        *checker.routes(),
        *checker.models(),
        *checker.timeouts(),
        *checker.accounts(),
        *checker.sections(),
        *check_money(document, file),
    ]


class _Checker:
    def __init__(self, document: Document, file: str, environ: Mapping[str, str]) -> None:
        self._document = document
        self._file = file
        self._environ = environ
        self._known_providers = [*CATALOGUE, *_mapping(document.data, "providers")]
        self._known_routes = list(_mapping(document.data, "routes"))

    def _at_value(self, path: Path, message: str) -> Problem:
        return Problem(self._file, *self._document.value_at(path), path, message)

    def _at_key(self, path: Path, message: str) -> Problem:
        return Problem(self._file, *self._document.key_at(path), path, message)

    # Shape.

    def shape(self) -> Iterator[Problem]:
        empty = set(_empty(self._document.data, ()))
        for path in empty:
            yield self._at_key(path, "has no value. Give it one, or remove the key")
        try:
            File.model_validate(self._document.data)
        except ValidationError as error:
            found = [(self._path(one), one) for one in error.errors(include_url=False, include_context=False)]
            misnamed = {path[:-1] for path, one in found if one["type"] == "extra_forbidden"}
            for path, details in found:
                # Beside an unknown key, a missing one is most likely the one that was meant.
                if path not in empty and not (details["type"] == "missing" and path[:-1] in misnamed):
                    yield self._misshapen(path, details)

    def _path(self, details: ErrorDetails) -> Path:
        """Pydantic's location without the names of union members, which stand between the steps of a path."""
        at: Any = self._document.data
        path: Path = ()
        for step in details["loc"]:
            if _holds(at, step):
                at = at[step]
            elif details["type"] != "missing" or step != details["loc"][-1]:
                continue
            path = (*path, step)
        return path

    def _value(self, path: Path) -> Any:
        at: Any = self._document.data
        for step in path:
            at = at[step] if _holds(at, step) else None
        return at

    def _misshapen(self, path: Path, details: ErrorDetails) -> Problem:
        kind, value = details["type"], details["input"]
        if kind == "extra_forbidden":
            return self._unknown_key(path)
        if kind == "missing":
            return self._at_key(path[:-1], f"needs '{path[-1]}'")
        if kind in _EXPECTED:
            return self._at_value(path, f"expected {_EXPECTED[kind]}, got {shown(value)}")
        if kind == "too_short":
            one = "one target" if path[-1] in {"tiers", "targets"} else "one"
            return self._at_value(path, f"is empty. Name at least {one}")
        return self._at_value(path, details["msg"])

    def _unknown_key(self, path: Path) -> Problem:
        key = str(path[-1])
        section = section_at(path[:-1], self._value(path[:-1]))
        if section is None:
            return self._at_key(path, "unknown key")
        if key in section.later:
            return self.too_early(path)
        if key in section.elsewhere:
            return self._at_key(path, f"unknown key '{key}'. Did you mean {section.elsewhere[key]}?")
        known = known_keys(section)
        hint = did_you_mean(key, known) or f" Known keys: {', '.join(known)}"
        return self._at_key(path, f"unknown key '{key[:80]}'.{hint}")

    def too_early(self, path: Path) -> Problem:
        return self._at_key(path, f"'{path[-1]}' is not supported by this version of Penstock yet. Remove it")

    # References.

    def providers(self) -> Iterator[Problem]:
        for place in self._places():
            yield from self._providers((*place, "providers"))

    def _places(self) -> Iterator[Path]:
        """Where routes and providers may stand: at the top, and in an account."""
        yield ()
        for name in _mapping(self._document.data, "accounts"):
            yield ("accounts", name)

    def _providers(self, place: Path) -> Iterator[Problem]:
        for provider_id, entry in _mapping(self._document.data, *place).items():
            path: Path = (*place, provider_id)
            if not re.fullmatch(PROVIDER_ID, provider_id):
                yield self._at_key(path, "a provider id is up to 64 lower-case letters, digits, '.', '_' and '-'")
            elif provider_id == RESERVED:
                yield self._at_key(path, f"'{RESERVED}' is the name of the built-in simulator. Choose another")
            elif isinstance(entry, dict):
                yield from self._provider(path, provider_id, entry)

    def _provider(self, path: Path, provider_id: str, entry: Mapping[str, Any]) -> Iterator[Problem]:
        like = entry.get("like")
        if isinstance(like, str) and like not in CATALOGUE:
            yield self._at_value((*path, "like"), f"provider '{like}' is not in the catalogue.{_near(like, CATALOGUE)}")
        inherited = len(path) > 2 and provider_id in _mapping(self._document.data, "providers")
        if like is None and provider_id not in CATALOGUE and not inherited:
            hint = did_you_mean(provider_id, CATALOGUE)
            advice = "A provider of your own names one whose API it speaks, such as like: vllm"
            yield self._at_key(path, f"provider '{provider_id}' is not in the catalogue.{hint} {advice}")
        base_url = entry.get("base_url")
        if isinstance(base_url, str):
            why = self._url_refusal(base_url, allow_private=entry.get("allow_private") is True)
            if why is not None:
                yield self._at_value((*path, "base_url"), why)

    def _url_refusal(self, template: str, *, allow_private: bool) -> str | None:
        expansion = expand(template, self._environ)
        if expansion.malformed:
            return "expected ${NAME} or ${NAME:-default} after each '${'"
        if expansion.unset:
            names = " and ".join(expansion.unset)
            return f"{names} is not set. Set it, or write ${{{expansion.unset[0]}:-default}}"
        return refusal(expansion.url, allow_private=allow_private)

    def routes(self) -> Iterator[Problem]:
        for place in self._places():
            known = [*self._known_providers, *_mapping(self._document.data, *place, "providers")]
            yield from self._routes((*place, "routes"), known)

    def _routes(self, place: Path, providers: Collection[str]) -> Iterator[Problem]:
        for name, entry in _mapping(self._document.data, *place).items():
            path: Path = (*place, name)
            if not re.fullmatch(ROUTE_NAME, name):
                yield self._at_key(
                    path, "a route's name is up to 64 letters, digits, '.', '_', ':' and '-', without '/'"
                )
            elif name == RESERVED:
                yield self._at_key(path, f"'{RESERVED}' is the name of the built-in simulator's route. Choose another")
            if isinstance(entry, dict) and isinstance(entry.get("tiers"), list):
                yield from self._tiers((*path, "tiers"), entry["tiers"], providers)

    def _tiers(self, path: Path, tiers: list[Any], providers: Collection[str]) -> Iterator[Problem]:
        first: dict[str, Path] = {}
        for here, target in _targets(path, tiers):
            if not isinstance(target, str) or not re.fullmatch(TARGET, target):
                continue  # told as an error of shape
            if target in first:
                yield self._at_value(here, f"unreachable: {dotted(first[target])} already is {target}")
            first.setdefault(target, here)
            yield from self._provider_of(here, target, providers)

    def _provider_of(self, path: Path, target: str, among: Collection[str] | None = None) -> Iterator[Problem]:
        provider_id = target.partition("/")[0]
        known = self._known_providers if among is None else among
        if provider_id not in known:
            near = _near(provider_id, known)
            yield self._at_value(path, f"provider '{provider_id}' is not in the catalogue.{near}")

    def models(self) -> Iterator[Problem]:
        for name, value in _mapping(self._document.data, "models").items():
            path: Path = ("models", name)
            if not name or len(name) > NAME_CHARS_MAX or not name.isprintable():
                yield self._at_key(path, f"a model name is up to {NAME_CHARS_MAX} printable characters")
            elif name.count("*") > 1:
                yield self._at_key(path, "a pattern holds one '*'")
            elif name in self._known_routes:
                yield self._at_key(path, f"unreachable: routes come first, and '{name}' is a route")
            if isinstance(value, str):
                yield from self._mapped(path, value)
        default = self._document.data.get("default_route")
        if isinstance(default, str):
            yield from self._route_of(("default_route",), default)
        provider = self._document.data.get("default_provider")
        if isinstance(provider, str):
            yield from self._provider_of(("default_provider",), f"{provider}/")
        baseline = self._document.data.get("baseline")
        if isinstance(baseline, str) and re.fullmatch(TARGET, baseline):
            yield from self._provider_of(("baseline",), baseline)

    def _mapped(self, path: Path, value: str) -> Iterator[Problem]:
        if "/" not in value:
            yield from self._route_of(path, value)
        elif not re.fullmatch(TARGET, value) or value.count("*") > 1:
            yield self._at_value(
                path, f"expected a route or <provider>/<model> with at most one '*', got {shown(value)}"
            )
        else:
            yield from self._provider_of(path, value)

    def _route_of(self, path: Path, name: str) -> Iterator[Problem]:
        if name not in self._known_routes:
            near = _near(name, self._known_routes)
            yield self._at_value(path, f"route {shown(name)} does not exist.{near}")

    def accounts(self) -> Iterator[Problem]:
        for name in _mapping(self._document.data, "accounts"):
            if not re.fullmatch(ACCOUNT_ID, name):
                yield self._at_key(("accounts", name), "an account's id is up to 64 letters, digits, '.', '_' and '-'")

    # Values that exclude each other.

    def sections(self) -> Iterator[Problem]:
        """What sections with a module of their own say of themselves."""
        data = self._document.data
        for path, why in (*budgets.problems(data), *limits.problems(data), *alerts.problems(data, self._environ)):
            yield self._at_value(path, why)

    def timeouts(self) -> Iterator[Problem]:
        yield from self._timeouts(("defaults", "timeouts"))
        for place in self._places():
            for name in _mapping(self._document.data, *place, "routes"):
                yield from self._timeouts((*place, "routes", name, "timeouts"))

    def _timeouts(self, path: Path) -> Iterator[Problem]:
        given = _mapping(self._document.data, *path)
        total_s = duration_s(given.get("total"))
        for name, value in given.items():
            waits_s = duration_s(value)
            if name != "total" and total_s is not None and waits_s is not None and waits_s > total_s:
                yield self._at_value(
                    (*path, name), f"{value} is longer than total ({given['total']}), so it can never end"
                )


def _mapping(data: Any, *path: str | int) -> Mapping[str, Any]:
    """The mapping at a path; an empty one where there is none."""
    for step in path:
        data = data.get(step) if isinstance(data, dict) else None
    return data if isinstance(data, dict) else {}


def _targets(path: Path, entries: list[Any]) -> Iterator[tuple[Path, Any]]:
    """The targets of tiers, or of one tier, in whatever form, each with its path."""
    for index, entry in enumerate(entries):
        here: Path = (*path, index)
        if not isinstance(entry, dict):
            yield here, entry
        elif isinstance(entry.get("targets"), list):
            yield from _targets((*here, "targets"), entry["targets"])
        else:
            yield (*here, "target"), entry.get("target")


def _keys_held_back(document: Document) -> list[Path]:
    """Where keys stand whose shape is known, and that nothing acts on yet."""
    early = {section: section.later.intersection(section.model_fields) for section in SECTIONS.values()}
    names = frozenset().union(*early.values())
    candidates = [path for path in document.keys if path and path[-1] in names]
    return [path for path in candidates if (section := section_at(path[:-1])) and path[-1] in early[section]]


def _without(data: Any, paths: list[Path]) -> Any:
    """The data without what stands at some paths of keys."""
    for path in paths:
        data = _omitting(data, path)
    return data


def _omitting(data: Any, path: Path) -> Any:
    step, rest = path[0], path[1:]
    if isinstance(data, dict):
        return {
            key: _omitting(value, rest) if key == step else value for key, value in data.items() if key != step or rest
        }
    return [_omitting(item, rest) if index == step else item for index, item in enumerate(data)]


def _holds(data: Any, step: str | int) -> bool:
    return step in data if isinstance(data, dict) else isinstance(data, list) and isinstance(step, int)


def _empty(data: Any, path: Path) -> Iterator[Path]:
    """The paths of keys without a value."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _empty(value, (*path, key))
    elif data is None:
        yield path


def _near(name: str, known: Collection[str]) -> str:
    hint = did_you_mean(name, known)
    if hint or not known:
        return hint
    return f" Known: {', '.join(sorted(known)[:LIST_MAX])}{' ...' if len(known) > LIST_MAX else ''}"
