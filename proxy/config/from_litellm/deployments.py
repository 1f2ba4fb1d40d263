"""The deployments of a LiteLLM `model_list`: under which name, at which endpoint, by which model, with which settings.

A deployment that Penstock cannot speak to is left out with one note; of the others every setting is either carried over
or noted.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.config.from_litellm.endpoints import Endpoint, Endpoints
from proxy.config.from_litellm.facts import BARE_NAMES, REQUEST_MEMBERS, SPOKEN, UNSPOKEN
from proxy.config.from_litellm.source import Found, Source, quoted, reason
from proxy.config.problem import Path
from proxy.config.scalars import DURATION_S_MAX
from proxy.core import redact
from proxy.core.routing import NAME_CHARS_MAX
from proxy.providers.rows import CATALOGUE
from proxy.terms import Api, ProviderId

ANY: Final = "*"
_MODEL_CHARS_MAX: Final = 400  # as a target's
# What LiteLLM takes off a model's name because it only says how to treat it.
_TREATMENTS: Final = re.compile(r"(?:responses|o_series|gpt5_series)/")
_SECRET_NAME: Final = re.compile(
    r"(?i)(?:^|[_-])(?:api[_-]?key|authorization|credentials?|password|secret|auth[_-]?token)$"
)
# Read here or by the tiers; everything else of litellm_params is noted.
_READ: Final = frozenset(
    {
        "api_base",
        "api_key",
        "base_url",
        "custom_llm_provider",
        "extra_body",
        "litellm_credential_name",
        "model",
        "order",
        "rpm",
        "stream_timeout",
        "timeout",
        "tpm",
        "weight",
    }
)
WEIGHTS: Final = ("weight", "rpm", "tpm")  # LiteLLM takes the first that a deployment has


@dataclass(frozen=True, slots=True)
class Deployment:
    """One entry of `model_list` that Penstock can serve.

    Shapes: ``name`` and ``model`` may hold wildcards; ``endpoint`` is None for the model `*`, which stands for any
    provider's, and whose ``prefix`` it is too. ``params`` maps request members to values, ``places`` settings to where
    they stand. Units: seconds.
    """

    name: str
    path: Path
    prefix: str
    model: str
    endpoint: Endpoint | None
    params: Mapping[str, Any]
    weights: Mapping[str, float]
    places: Mapping[str, Path]
    order: float | None = None
    timeout_s: float | None = None
    stream_timeout_s: float | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class ModelList:
    """``named`` has every legal name, also where nothing of it is left, with the place of its first entry."""

    deployments: tuple[Deployment, ...]
    named: Mapping[str, Path]


@dataclass(frozen=True, slots=True)
class _Model:
    prefix: str
    name: str


def model_list(source: Source, root: Mapping[str, Found], endpoints: Endpoints, defaults: Found | None) -> ModelList:
    """Reads `model_list` with `credential_list`. ``defaults``: router_settings.default_litellm_params."""
    reader = _Reader(source, endpoints, _credentials(source, root.get("credential_list")), source.members(defaults))
    named: dict[str, Path] = {}
    deployments: list[Deployment] = []
    for item in source.items(root.get("model_list")):
        entry = source.members(item)
        name = _name(source, entry, item.path)
        if name is None:
            continue
        named.setdefault(name, item.path)
        deployment = reader.deployment(name, entry, item.path)
        if deployment is not None:
            deployments.append(deployment)
    source.rest(reader.defaults, *REQUEST_MEMBERS)
    return ModelList(tuple(deployments), named)


def _name(source: Source, entry: Mapping[str, Found], path: Path) -> str | None:
    if not entry:
        return None
    if "model_name" not in entry:
        source.note(path, "left out: it has no model_name")
        return None
    name = source.text(entry["model_name"])
    if name is not None and not is_name(name):
        source.note(entry["model_name"].path, f"left out: a name is up to {NAME_CHARS_MAX} printable characters")
        return None
    return name


def is_name(text: str) -> bool:
    """Whether a client may ask Penstock for it."""
    return bool(text) and len(text) <= NAME_CHARS_MAX and text.isprintable()


def _is_model(text: str) -> bool:
    """Whether it can stand in a target."""
    return text.isprintable() and not any(map(str.isspace, text)) and 0 < len(text) <= _MODEL_CHARS_MAX


def _credentials(source: Source, found: Found | None) -> dict[str, dict[str, Found]]:
    """The members that each named credential stands for."""
    made: dict[str, dict[str, Found]] = {}
    for item in source.items(found):
        entry = source.members(item)
        name = source.text(entry.get("credential_name"))
        if name is not None:
            made[name] = source.members(entry.get("credential_values"))
        source.rest(entry, "credential_name", "credential_values")
    return made


class _Reader:
    def __init__(
        self,
        source: Source,
        endpoints: Endpoints,
        credentials: Mapping[str, Mapping[str, Found]],
        defaults: Mapping[str, Found],
    ) -> None:
        self._source = source
        self._endpoints = endpoints
        self._credentials = credentials
        self.defaults = dict(defaults)

    def deployment(self, name: str, entry: dict[str, Found], path: Path) -> Deployment | None:
        """The deployment of an entry; None, with a note, where there is none."""
        source = self._source
        params = self._params(entry, path)
        model = None if params is None else self._model(params, path)
        if params is None or model is None:
            return None
        endpoint = None
        if model.prefix != ANY:
            endpoint = self._endpoints.read(model.prefix, params)
            if endpoint is None:
                source.note(path, "left out: Penstock cannot use its address")
                return None
            self._warn(endpoint, params["model"].path)
        if ANY in model.name and ANY not in name:
            source.note(path, "left out: its model is a pattern, and its name is none")
            return None
        info = source.members(entry.get("model_info"))
        source.rest(params, *_READ, *REQUEST_MEMBERS)
        source.rest(info, "order")
        source.rest(entry, "model_name", "litellm_params", "model_info")
        model_id = info.get("id")
        return Deployment(
            name=name,
            path=path,
            prefix=model.prefix,
            model=_sent(model, standard=endpoint is None or endpoint.standard),
            endpoint=endpoint,
            params=self._members({**self.defaults, **params}),
            weights=self._weights(params),
            places={key: found.path for key, found in params.items()},
            order=source.number(params.get("order") or info.get("order")),
            timeout_s=seconds(source, params.get("timeout")),
            stream_timeout_s=seconds(source, params.get("stream_timeout")),
            id=None if model_id is None else str(model_id.value),
        )

    def _params(self, entry: Mapping[str, Found], path: Path) -> dict[str, Found] | None:
        """litellm_params with what a named credential adds to it."""
        source = self._source
        params = source.members(entry.get("litellm_params"))
        if "model" not in params:
            source.note(path, "left out: its litellm_params name no model")
            return None
        name = source.text(params.get("litellm_credential_name"))
        if name is None:
            return params
        if name not in self._credentials:
            source.lost(params["litellm_credential_name"].path, f"credential_list has no {quoted(name)}")
        return {**self._credentials.get(name, {}), **params}

    def _model(self, params: Mapping[str, Found], path: Path) -> _Model | None:
        source = self._source
        text = source.text(params["model"])
        custom = source.text(params.get("custom_llm_provider"))
        why = None
        if text is None:
            why = "it names no model"
        elif text.startswith("os.environ/"):
            why = "its model stands in the environment, and Penstock wants it in the file"
        elif not _is_model(text):
            why = f"a model is up to {_MODEL_CHARS_MAX} printable characters without spaces"
        if why is None and text is not None:
            found = _parted(text, custom)
            if isinstance(found, _Model):
                return found
            why = found
        source.note(path, f"left out: {why}")
        return None

    def _warn(self, endpoint: Endpoint, path: Path) -> None:
        retired = endpoint.row.retired_apis.get(Api.CHAT)
        if retired is not None and endpoint.standard:
            self._source.note(path, f"{endpoint.row.title} no longer serves chat ({retired})")

    def _members(self, params: Mapping[str, Found]) -> dict[str, Any]:
        """What LiteLLM adds to a request: known members, and all of extra_body."""
        source = self._source
        found = {key: one for key, one in params.items() if key in REQUEST_MEMBERS}
        found |= source.members(params.get("extra_body"))
        made: dict[str, Any] = {}
        for key, one in found.items():
            why = _unfit(key, one.value)
            if why is None:
                made[key] = one.value
            else:
                source.lost(one.path, why)
        return made

    def _weights(self, params: Mapping[str, Found]) -> dict[str, float]:
        found = {key: self._source.number(params.get(key)) for key in WEIGHTS}
        return {key: value for key, value in found.items() if value is not None}


def concrete(deployment: Deployment, asked: str, endpoints: Endpoints) -> Deployment | None:
    """What a deployment whose name is a pattern is for one name that matches it; None where nothing serves that."""
    made = _concrete(deployment, asked, endpoints)
    return made if made is not None and ANY not in made.model and _is_model(made.model) else None


def _concrete(deployment: Deployment, asked: str, endpoints: Endpoints) -> Deployment | None:
    if ANY not in deployment.model:
        return replace(deployment, name=asked)
    match = pattern(deployment.name).fullmatch(asked)
    if match is None:
        return None
    name = asked
    if len(match.groups()) <= deployment.model.count(ANY):
        name = deployment.model
        for segment in match.groups():
            name = name.replace(ANY, segment, 1)
        if deployment.name == ANY:
            name = name.removeprefix(f"{deployment.prefix}/")  # asked for as openai/gpt-5 where all goes to openai/*
    if deployment.endpoint is not None:
        model = _Model(deployment.prefix, name)
        return replace(deployment, name=asked, model=_sent(model, standard=deployment.endpoint.standard))
    found = _parted(name, None)
    endpoint = endpoints.read(found.prefix, {}) if isinstance(found, _Model) and found.prefix != ANY else None
    if not isinstance(found, _Model) or endpoint is None:
        return None
    return replace(deployment, name=asked, prefix=found.prefix, model=_sent(found, standard=True), endpoint=endpoint)


def pattern(name: str) -> re.Pattern[str]:
    """A name with wildcards as LiteLLM matches it."""
    return re.compile(re.escape(name).replace(r"\*", "(.*)"))


def seconds(source: Source, found: Found | None) -> float | None:
    """A waiting time that a routes file may hold; None, with a note, for any other."""
    value = source.number(found)
    if found is None or value is None:
        return None
    if value < 0.001:
        source.lost(found.path, "expected at least a millisecond")
        return None
    return min(value, DURATION_S_MAX)


def _parted(text: str, custom: str | None) -> _Model | str:
    """A model with its provider; or, in words, why it is left out."""
    if custom is not None:
        prefix, name = custom, text.removeprefix(f"{custom}/")
    else:
        prefix, slash, name = text.partition("/")
        if not slash or (prefix not in SPOKEN and prefix not in UNSPOKEN):
            return _bare(text, prefix if slash else None)
    if prefix not in SPOKEN:
        why = UNSPOKEN.get(prefix)
        return f"Penstock does not speak to {quoted(prefix)}" + (f": {why}" if why else "")
    row = CATALOGUE[ProviderId(SPOKEN[prefix].like)]
    if row.retired is not None:
        return f"{row.title}: {row.retired}"
    name = _TREATMENTS.sub("", name, count=1) if row.id in {"openai", "azure"} else name
    if not name or name.startswith(("http:", "https:")):
        return "its model is no model's name"
    return _Model(prefix, name)


def _bare(text: str, prefix: str | None) -> _Model | str:
    """A model without a provider that LiteLLM knows."""
    if text == ANY:
        return _Model(ANY, text)
    for form, provider in BARE_NAMES:
        if form.match(text):
            return _Model(provider, text)
    if prefix is not None:
        return (
            f"{quoted(prefix)} is no provider that Penstock knows. For an OpenAI-compatible server write openai/<model>"
        )
    return f"which provider serves {quoted(text)} is not said. Write <provider>/<model>"


def _sent(model: _Model, *, standard: bool) -> str:
    """The model as the provider is asked for it. ``standard``: at the provider's usual address."""
    if model.prefix == ANY:
        return model.name
    prefix = SPOKEN[model.prefix].model_prefix
    if prefix and "*" not in model.name and not model.name.startswith("accounts/"):
        return prefix + model.name
    inference, slash, rest = model.name.partition("/")
    if model.prefix == "huggingface" and standard and slash and "/" in rest:
        return rest if inference == "hf-inference" else f"{rest}:{inference}"
    return model.name


def _unfit(key: str, value: Any) -> str | None:
    """Why a request member cannot stand in a routes file."""
    try:
        text = json.dumps({key: value}, allow_nan=False)
    except ValueError:
        return "JSON has no such number"
    if _holds_null(value):
        return "null has no place in a routes file"
    if "os.environ/" in text:
        return "a request member cannot come from the environment"
    if redact.text(text) != text or any(_SECRET_NAME.search(name) for name in _names({key: value})):
        return "it looks like a credential, and those are never copied"
    return reason(key) if key in {"model", "messages", "stream"} else None


def _holds_null(value: Any) -> bool:
    match value:
        case dict():
            return any(_holds_null(member) for member in value.values())
        case list():
            return any(_holds_null(member) for member in value)
        case _:
            return value is None


def _names(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for name, member in value.items():
                yield name
                yield from _names(member)
        case list():
            for member in value:
                yield from _names(member)
        case _:
            return
