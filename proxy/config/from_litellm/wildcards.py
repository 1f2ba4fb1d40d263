"""Wildcard names of a LiteLLM `model_list`, as Penstock has them: patterns of `models`, or a provider of that name.

In Penstock a `*` on the right stands for the whole requested name, and `<provider>/<model>` is a name of its own. So
`gpt-*` to `openai/gpt-*` is the pattern `gpt-*: openai/*`, and `groq/*` to `groq/*` is what a provider `groq` does anyway.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from proxy.config.check import RESERVED
from proxy.config.from_litellm.deployments import ANY, Deployment
from proxy.config.from_litellm.endpoints import Endpoint, Endpoints
from proxy.config.from_litellm.facts import ANTHROPIC_FAMILIES, OPENAI_FAMILIES
from proxy.config.from_litellm.source import Source, quoted
from proxy.config.problem import Path
from proxy.config.scalars import PROVIDER_ID

_FAMILIES: Final = {"openai": OPENAI_FAMILIES, "anthropic": ANTHROPIC_FAMILIES}
_TARGET_CHARS_MAX: Final = 400  # of a model in a target


@dataclass(frozen=True, slots=True)
class _Pattern:
    """``value``: the model on the right, where `*` is the whole requested name."""

    name: str
    path: Path
    endpoint: Endpoint
    value: str


@dataclass(frozen=True, slots=True)
class _Namesake:
    """A provider that has to have a certain id, so that its direct names are the ones that match."""

    id: str
    path: Path
    endpoint: Endpoint


class Wildcards:
    """Sorts the wildcards first, so that their endpoints can be named, and makes the entries afterwards."""

    def __init__(self, source: Source, groups: Mapping[str, list[Deployment]], endpoints: Endpoints) -> None:
        self._source = source
        self._patterns: list[_Pattern] = []
        self._namesakes: list[_Namesake] = []
        for name, deployments in groups.items():
            for one in deployments[1:]:
                source.note(one.path, f"left out: {quoted(name)} is a pattern, and a pattern leads to one target")
            if deployments:
                self._sort(name, deployments[0], endpoints)

    @property
    def endpoints(self) -> list[Endpoint]:
        return [*(one.endpoint for one in self._patterns), *(one.endpoint for one in self._namesakes)]

    def _sort(self, name: str, one: Deployment, endpoints: Endpoints) -> None:
        made = _family(one, endpoints) if one.endpoint is None else _form(name, one, one.endpoint)
        if not made:
            self._source.note(one.path, f"left out: Penstock cannot tell the model from the name in {quoted(name)}")
            return
        for form in made:
            if isinstance(form, _Pattern):
                self._patterns.append(form)
            else:
                self._namesakes.append(form)
        for key in (*one.params, *one.weights, "timeout", "stream_timeout"):
            if key in one.places:
                self._source.lost(one.places[key], "a pattern has no settings of its own")

    def made(self, ids: Mapping[Endpoint, str], providers: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Providers whose direct names are wanted, and the patterns of `models`."""
        extra: dict[str, Any] = {}
        for one in self._namesakes:
            known = ids[one.endpoint]
            if known == one.id:
                extra[one.id] = providers[known]
            elif one.id in {RESERVED, *providers, *extra} or not re.fullmatch(PROVIDER_ID, one.id):
                self._source.note(one.path, f"left out: no provider here can be called {quoted(one.id)} for it")
            else:
                like = {} if one.endpoint.like == one.id else {"like": one.endpoint.like}
                extra[one.id] = {**like, **providers[known]}
        return extra, dict(self._entries(ids, list(extra)))

    def _entries(self, ids: Mapping[Endpoint, str], direct: list[str]) -> Iterator[tuple[str, str]]:
        for one in self._patterns:
            target = f"{ids[one.endpoint]}/{one.value}"
            hidden = [name for name in direct if f"{name}/".startswith(one.name.partition(ANY)[0])]
            families = _FAMILIES.get(one.endpoint.like, ()) if one.name == one.value == ANY else ()
            if not hidden:
                yield one.name, target
            elif families:
                why = (
                    f"a pattern comes before {quoted(f'{hidden[0]}/...')}, so it stands for {', '.join(families)} alone"
                )
                self._source.note(one.path, why)
                yield from ((family, target) for family in families)
            else:
                self._source.note(one.path, f"left out: it would hide {quoted(f'{hidden[0]}/...')}")


def _family(one: Deployment, endpoints: Endpoints) -> list[_Pattern | _Namesake]:
    """`*` to `*`: any provider's models by their bare names; those with a provider before them are direct names."""
    if one.name != ANY:
        return []
    made: list[_Pattern | _Namesake] = []
    for provider, families in _FAMILIES.items():
        endpoint = endpoints.read(provider, {})
        if endpoint is not None:
            made.extend(_Pattern(family, one.path, endpoint, ANY) for family in families)
    return made


def _form(name: str, one: Deployment, endpoint: Endpoint) -> list[_Pattern | _Namesake]:
    if name.count(ANY) > 1 or one.model.count(ANY) > 1:
        return []
    if ANY not in one.model:
        return [_Pattern(name, one.path, endpoint, one.model)]
    head, _, tail = name.partition(ANY)
    model_head, _, model_tail = one.model.partition(ANY)
    if model_head.endswith(head) and model_tail.startswith(tail):
        value = f"{model_head.removesuffix(head)}{ANY}{model_tail.removeprefix(tail)}"
        return [_Pattern(name, one.path, endpoint, value)] if len(value) <= _TARGET_CHARS_MAX else []
    provider, slash, rest = head.partition("/")
    return [_Namesake(provider, one.path, endpoint)] if slash and (rest, tail) == (model_head, model_tail) else []
