"""Which names get a route, and what is in it: the targets of the name, then those of whatever takes over from it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from proxy.config.from_litellm.deployments import ANY, Deployment, ModelList, concrete, is_name, pattern
from proxy.config.from_litellm.endpoints import Endpoint, Endpoints
from proxy.config.from_litellm.settings import Fallback, Settings
from proxy.config.from_litellm.source import Source, quoted
from proxy.config.from_litellm.tiers import Tier, fresh, tiers
from proxy.config.from_litellm.timeouts import Waits, first_s, timeouts
from proxy.config.problem import Path
from proxy.core.routing import Timeouts

TIERS_MAX: Final = 50  # the schema's


@dataclass(frozen=True, slots=True)
class Route:
    """Shapes: ``name`` is LiteLLM's, so not always a legal one; ``tiers`` is never empty."""

    name: str
    tiers: tuple[Tier, ...]
    params: Mapping[str, Any]
    timeouts: Mapping[str, str]

    @property
    def endpoints(self) -> list[Endpoint]:
        return [share.endpoint for tier in self.tiers for share in tier]

    @property
    def is_one_target(self) -> bool:
        """Whether it is nothing but another name for a target."""
        return not self.params and not self.timeouts and len(self.endpoints) == 1


class Routes:
    def __init__(self, source: Source, known: Settings, endpoints: Endpoints, models: ModelList) -> None:
        self._source = source
        self._settings = known
        self._endpoints = endpoints
        self._named = models.named
        self._groups: dict[str, list[Deployment]] = {name: [] for name in models.named}
        for one in models.deployments:
            self._groups[one.name].append(one)
        self._patterns = sorted((name for name in models.named if ANY in name), key=lambda name: -len(name))
        self._by_id = {one.id: one for one in reversed(models.deployments) if one.id is not None}
        self.default_timeouts = timeouts([(known.timeout_s, known.stream_timeout_s)])
        self._warn_of_total(known.timeout_place, known.timeout_s)

    @property
    def wildcards(self) -> dict[str, list[Deployment]]:
        """The deployments behind each name that is a pattern, in the order of the file."""
        return {name: self._groups[name] for name in self._named if ANY in name}

    def made(self) -> list[Route]:
        names = [*self._own_names(), *self._names_with_fallbacks(), *self._aliases_of_patterns()]
        if self._patterns and self._settings.any_fallbacks:
            self._source.note(self._settings.any_fallbacks[0].found.path, "not carried over to patterns")
        return [route for name in dict.fromkeys(names) if (route := self._route(name)) is not None]

    # Which names.

    def _own_names(self) -> Iterator[str]:
        for name, path in self._named.items():
            if name in self._settings.aliases:
                self._source.note(path, f"left out: model_group_alias makes {quoted(name)} stand for another")
            elif ANY not in name:
                yield name

    def _names_with_fallbacks(self) -> Iterator[str]:
        """Names beside those of the list that have fallbacks: of aliases, and of models that a pattern serves."""
        for name, taking_over in self._settings.fallbacks.items():
            if name in self._named and ANY not in name:
                continue
            if ANY not in name and is_name(name) and self._serving(name):
                yield name
            elif taking_over and not any(_is_rest_of(name, known) for known in self._named):
                why = "a pattern has no fallbacks" if ANY in name else f"no model is called {quoted(name)}"
                self._source.lost(taking_over[0].found.path, why)

    def _aliases_of_patterns(self) -> Iterator[str]:
        for alias, one in self._settings.aliases.items():
            if one.name not in self._named and self._serving(alias):
                yield alias

    def _serving(self, name: str) -> list[Deployment]:
        """The deployments behind a name: its own, those of a pattern that it matches, the one whose id it is."""
        alias = self._settings.aliases.get(name)
        name = name if alias is None else alias.name
        if name in self._groups and ANY not in name:
            return self._groups[name]
        for known in self._patterns:
            if pattern(known).fullmatch(name):
                found = (concrete(one, name, self._endpoints) for one in self._groups[known])
                return [one for one in found if one is not None]
        by_id = self._by_id.get(name)
        return [] if by_id is None or ANY in by_id.model else [by_id]

    # One route.

    def _route(self, name: str) -> Route | None:
        own = self._serving(name)
        params = self._params(name, own)
        made: list[Tier] = []
        seen: set[tuple[Endpoint, str]] = set()
        for deployments in chain((own,), self._taking_over(name, params)):
            if len(made) > TIERS_MAX:
                break
            for tier in tiers(self._source, deployments, self._settings.balance):
                left = fresh(self._source, tier, seen)
                seen.update(share.target for share in left)
                if left:
                    made.append(left)
        if not made:
            if name in self._named:
                self._source.note(self._named[name], f"left out: {quoted(name)} has no target left")
            return None
        if len(made) > TIERS_MAX:
            place = self._named.get(name, ("model_list",))
            self._source.note(place, f"{quoted(name)} keeps its first {TIERS_MAX} tiers: a route has no more")
        kept = tuple(made[:TIERS_MAX])
        return Route(name, kept, params, self._timeouts([share.deployment for tier in kept for share in tier]))

    def _taking_over(self, name: str, params: Mapping[str, Any]) -> Iterator[list[Deployment]]:
        """The deployments of every name that takes over from one, and from those in turn, each name once."""
        seen = {name}
        waiting = list(reversed(self._fallbacks(name)))
        while waiting:
            one = waiting.pop()
            if one.name in seen:
                continue
            seen.add(one.name)
            found = self._serving(one.name)
            if not found and one.name not in self._named:
                self._source.lost(one.found.path, f"no model is called {quoted(one.name)}")
            elif found and _common(found) != params:
                why = f"where {quoted(one.name)} takes over, the params stay those of the name that was asked for"
                self._source.note(one.found.path, why)
            yield found
            waiting.extend(reversed(self._fallbacks(one.name)))

    def _fallbacks(self, name: str) -> tuple[Fallback, ...]:
        """As LiteLLM looks them up: by the name, by what follows the provider in it, else those of any name."""
        given = self._settings.fallbacks
        if name in given:
            return given[name]
        return next((given[key] for key in given if _is_rest_of(key, name)), self._settings.any_fallbacks)

    def _params(self, name: str, deployments: list[Deployment]) -> dict[str, Any]:
        """The request members that all deployments of a name have in common; the others are noted."""
        common = _common(deployments)
        for one in deployments:
            for key in one.params:
                if key not in common:
                    path = one.places.get(key) or one.places.get("extra_body") or one.path
                    self._source.lost(path, f"the deployments of {quoted(name)} differ in it, and a route has one")
        return common

    def _timeouts(self, deployments: list[Deployment]) -> dict[str, str]:
        """What a route has beyond the defaults."""
        known = self._settings
        calls: list[Waits] = [
            (one.timeout_s or known.timeout_s, one.stream_timeout_s or known.stream_timeout_s) for one in deployments
        ]
        self._note_timeouts(deployments, calls)
        return {key: value for key, value in timeouts(calls).items() if self.default_timeouts.get(key) != value}

    def _note_timeouts(self, deployments: list[Deployment], calls: list[Waits]) -> None:
        """What becomes of each deployment's own waiting times among those of its route."""
        incomplete = "not every target of its route has one"
        firsts = [first for call in calls if (first := first_s(call)) is not None]
        longest = max(firsts, default=0.0)
        all_begin = len(firsts) == len(calls)
        all_end = all(timeout_s is not None for timeout_s, _ in calls)
        for one in deployments:
            own_s = one.stream_timeout_s or one.timeout_s
            if one.timeout_s is not None and all_end:
                self._warn_of_total(one.places["timeout"], one.timeout_s)
            elif one.timeout_s is not None:
                self._source.lost(one.places["timeout"], incomplete)
            if one.stream_timeout_s is not None and not all_begin:
                self._source.lost(one.places["stream_timeout"], incomplete)
            elif own_s is not None and all_begin and own_s < longest:
                place = one.places["timeout" if one.stream_timeout_s is None else "stream_timeout"]
                self._source.note(place, "a route waits for each of its targets as long as for the slowest")

    def _warn_of_total(self, place: Path, timeout_s: float | None) -> None:
        if timeout_s is not None and timeout_s < Timeouts().total_s:
            self._source.note(place, "carried over as total, which ends a stream too that is still being sent")


def _is_rest_of(key: str, name: str) -> bool:
    """Whether a name is that one with a provider before it."""
    return bool(key) and name.partition("/")[2] == key


def _common(deployments: list[Deployment]) -> dict[str, Any]:
    first = deployments[0].params if deployments else {}
    return {key: value for key, value in first.items() if all(_has(one.params, key, value) for one in deployments)}


def _has(params: Mapping[str, Any], key: str, value: Any) -> bool:
    return key in params and type(params[key]) is type(value) and params[key] == value
