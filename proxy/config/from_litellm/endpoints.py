"""Where LiteLLM sends a deployment's requests, and the entry of `providers` that makes Penstock send them there.

A literal credential is compared with others and then forgotten: it reaches neither an entry nor a note.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from proxy.config.address import expand, is_loopback, refusal
from proxy.config.check import RESERVED
from proxy.config.from_litellm.facts import NO_CREDENTIAL, SPOKEN, Spoken
from proxy.config.from_litellm.names import Names
from proxy.config.from_litellm.source import Found, Source, reference
from proxy.config.problem import Path
from proxy.providers.catalogue import CatalogueRow
from proxy.providers.rows import CATALOGUE
from proxy.terms import ProviderId

_UNSET: Final[Mapping[str, str]] = {}
_SLUG_CHARS_MAX: Final = 48  # an id has 64, and a number may follow
# What says of a host or a variable only that it is one.
_PLAIN_PREFIXES: Final = ("api.", "www.")
_PLAIN_SUFFIXES: Final = (
    ".openai.azure.com",
    ".services.ai.azure.com",
    ".cognitiveservices.azure.com",
    ".endpoints.huggingface.cloud",
)
_PLAIN_WORDS: Final = frozenset({"api", "base", "endpoint", "url"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address with one credential.

    Shapes: ``home`` is the id that the provider would have if it were the only one of its kind; empty for a server of the
    deployer's own behind `openai/`, which is called by its ``slug``. ``base_url`` None: the row's own. ``standard``: where
    LiteLLM goes unless it is told otherwise. ``variable`` None: the row's own variables, or none. ``literal``: the number
    of the literal credential that stands there.
    """

    like: ProviderId
    home: str
    slug: str
    base_url: str | None
    standard: bool
    allow_private: bool
    variable: str | None = None
    literal: int | None = None

    @property
    def row(self) -> CatalogueRow:
        return CATALOGUE[self.like]


@dataclass(frozen=True, slots=True)
class _Address:
    """An address that can be used. ``near``: it is on this machine or in a private network."""

    spoken: Spoken
    base_url: str | None = None
    standard: bool = True
    allow_private: bool = False
    near: bool = False
    slug: str = ""

    @property
    def row(self) -> CatalogueRow:
        return CATALOGUE[ProviderId(self.spoken.like)]

    @property
    def own(self) -> bool:
        """Whether it is some OpenAI-compatible server that no row and no table knows."""
        return self.spoken.like == "openai" and not self.spoken.id and self.base_url is not None

    def endpoint(self, variable: str | None = None, literal: int | None = None) -> Endpoint:
        # The row of a local server needs no credential, and what it serves costs nothing.
        bare = variable is None and literal is None
        like = ProviderId("vllm" if self.own and (self.near or bare) else self.spoken.like)
        home = "" if self.own else self.spoken.id or self.spoken.like
        read_anyway = home == like and variable == _first(CATALOGUE[like])
        return Endpoint(
            like,
            home,
            self.slug,
            self.base_url,
            self.standard,
            self.allow_private,
            None if read_anyway else variable,
            literal,
        )


class Endpoints:
    """Reads the address and the credential of each deployment; later names the providers that they make."""

    def __init__(self, source: Source, variables: Mapping[str, str]) -> None:
        self._source = source
        self._variables = variables  # what LiteLLM's environment_variables set
        self._secrets: dict[str, int] = {}
        self._literals: dict[tuple[Path, Endpoint], None] = {}  # in the order of the file

    def read(self, prefix: str, params: Mapping[str, Found]) -> Endpoint | None:
        """The endpoint of one deployment; None, with a note, where Penstock cannot use its address."""
        spoken = SPOKEN[prefix]
        given = params.get("api_base") or params.get("base_url")
        address = _standard(spoken) if given is None else self._address(spoken, given)
        return None if address is None else self._with_credential(address, params.get("api_key"))

    def _address(self, spoken: Spoken, given: Found) -> _Address | None:
        text = self._source.text(given)
        if text is None:
            return None
        if spoken.own_form:
            why = "LiteLLM speaks the provider's own API there, Penstock speaks OpenAI's"
            self._source.lost(given.path, why)
            return None
        variable = reference(text)
        if variable is not None:
            return _from_variable(spoken, variable, self._variables.get(variable, ""))
        if text.strip().startswith("os.environ/"):
            self._source.lost(given.path, "what follows os.environ/ is no name of a variable")
            return None
        return self._from_url(spoken, text.strip(), given.path)

    def _from_url(self, spoken: Spoken, text: str, path: Path) -> _Address | None:
        url = _appended(text, spoken.suffix)
        expansion = expand(url, _UNSET)
        if expansion.malformed or expansion.unset:
            self._source.lost(path, "expected a URL, or os.environ/NAME")
            return None
        why = refusal(url, allow_private=True)
        if why is not None:
            self._source.lost(path, why)
            return None
        known = _known(spoken, url)
        if known is not None:
            return _Address(known, known.base_url)
        allow_private = refusal(url, allow_private=False) is not None
        near = _is_near(url)
        if allow_private and not near:
            host = urlsplit(url).hostname
            self._source.note(path, f"plain http to '{host}' shows the credential to the network. Use https if you can")
        return _Address(spoken, url, False, allow_private, near, _slug_of_url(url))

    def _with_credential(self, address: _Address, given: Found | None) -> Endpoint:
        text = "" if given is None else str(given.value).strip()
        if given is None or not text:
            return address.endpoint(_usual_variable(address))
        if text.casefold() in NO_CREDENTIAL and (address.own or address.row.local):
            return address.endpoint()
        variable = reference(text)
        if variable is not None:
            return address.endpoint(variable)
        number = self._secrets.setdefault(text, len(self._secrets))
        endpoint = address.endpoint(literal=number)
        self._literals[given.path, endpoint] = None
        return endpoint

    def named(self, used: Iterable[Endpoint]) -> tuple[dict[Endpoint, str], dict[str, Any]]:
        """The provider's id of each endpoint, and the section `providers`, in the order in which they are used.

        Notes which variable to set for each literal credential.
        """
        endpoints = list(dict.fromkeys(used))
        ids = _ids(endpoints)
        variables = _variables(endpoints, ids)
        for path, endpoint in self._literals:
            if endpoint in ids:
                message = f"a literal credential is never copied. Set {variables[endpoint]} to it"
                self._source.note(path, message)
        return ids, {ids[endpoint]: _entry(endpoint, ids[endpoint], variables[endpoint]) for endpoint in endpoints}


def _entry(endpoint: Endpoint, provider_id: str, variable: str | None) -> dict[str, Any]:
    """What `providers` says of it; an empty mapping where the catalogue says it all."""
    made: dict[str, Any] = {}
    if provider_id != endpoint.like:
        made["like"] = endpoint.like
    if endpoint.base_url is not None:
        made["base_url"] = endpoint.base_url
    if variable is not None and not (endpoint.home == endpoint.like and variable == _first(endpoint.row)):
        made["api_key"] = f"env:{variable}"
    if endpoint.base_url is not None and endpoint.allow_private:
        made["allow_private"] = True
    return made


# Addresses.


def _standard(spoken: Spoken) -> _Address:
    """Where LiteLLM goes without `api_base`."""
    if spoken.base_url is not None or spoken.base_var is None:
        return _Address(spoken, spoken.base_url)
    return _from_variable(spoken, spoken.base_var, "")


def _from_variable(spoken: Spoken, variable: str, value: str) -> _Address:
    """``value``: what LiteLLM's configuration itself gives the variable, empty where nothing does."""
    url = _appended(value.strip(), spoken.suffix)
    usable = not set(url) & set("${}") and refusal(url, allow_private=True) is None
    local = CATALOGUE[ProviderId(spoken.like)].local
    private = local or (usable and refusal(url, allow_private=False) is not None)
    default = f":-{url.removesuffix(spoken.suffix)}" if usable else ""
    template = f"${{{variable}{default}}}{spoken.suffix}"
    slug = _slug_of_variable(variable, spoken.like)
    return _Address(spoken, template, variable == spoken.base_var, private, private, slug)


def _appended(url: str, suffix: str) -> str:
    """A base URL with what LiteLLM appends to it, once; a path that names one endpoint of the API is cut off."""
    url = url.rstrip("/").removesuffix("/chat/completions")
    if not suffix:
        return url
    scheme, separator, rest = url.partition("://")
    host, *path = rest.split("/")
    first = suffix.split("/")[1]
    kept = path[: path.index(first)] if first in path else path
    return f"{scheme}{separator}{'/'.join((host, *kept))}{suffix}"


def _is_near(url: str) -> bool:
    """Whether a server is on this machine or in a private network: by its address, or by a name without a dot."""
    host = urlsplit(url).hostname or ""
    if is_loopback(host) or not set(host) & set(".:"):
        return True
    return refusal(f"https:{url.partition(':')[2]}", allow_private=False) is not None


def _known(spoken: Spoken, url: str) -> Spoken | None:
    """The provider whose usual address a URL is: the one that was named, or for `openai/` any."""
    any_other = (one for one in SPOKEN.values() if spoken == SPOKEN["openai"] and not one.own_server)
    return next((one for one in (spoken, *any_other) if url in _usual_addresses(one)), None)


def _usual_addresses(spoken: Spoken) -> tuple[str, ...]:
    if spoken.id:
        return (spoken.base_url,) if spoken.base_url else ()
    return (expand(CATALOGUE[ProviderId(spoken.like)].base_url, _UNSET).url, *spoken.usual)


def _usual_variable(address: _Address) -> str | None:
    """The variable that LiteLLM reads where no credential is given; None where Penstock's row reads it too."""
    if address.own:
        return None if address.near else _first(address.row)
    return None if address.row.local else address.spoken.key_var


def _first(row: CatalogueRow) -> str | None:
    return next(iter(row.key_vars), None)


# Names.


def _ids(endpoints: list[Endpoint]) -> dict[Endpoint, str]:
    homes: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        homes.setdefault(endpoint.home, []).append(endpoint)
    plain = {chosen: home for home, variants in homes.items() if (chosen := _plain(home, variants)) is not None}
    names = Names((RESERVED, *CATALOGUE, *plain.values()))
    return {endpoint: plain.get(endpoint) or names.take(_wanted(endpoint, names)) for endpoint in endpoints}


def _plain(home: str, variants: list[Endpoint]) -> Endpoint | None:
    """Which of the endpoints of one kind is called by the kind's own id."""
    standard = [one for one in variants if one.standard]
    if not home:
        return None
    if standard:
        return next((one for one in standard if one.variable is None and one.literal is None), standard[0])
    only = variants[0]
    at_their_own = only.row.local or only.home == "azure"  # everyone has an address of their own there
    return only if at_their_own and len(variants) == 1 else None


def _wanted(endpoint: Endpoint, taken: Names) -> str:
    slug = endpoint.slug or ("" if endpoint.home else "server")
    home = endpoint.home or endpoint.like
    says_it = slug.startswith(home) if endpoint.home else slug[:1].isalpha()
    if says_it and slug not in taken:
        return slug
    return f"{home}-{slug}" if slug else home


def _slug_of_url(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    for prefix in _PLAIN_PREFIXES:
        host = host.removeprefix(prefix)
    for suffix in _PLAIN_SUFFIXES:
        host = host.removesuffix(suffix)
    return _slug(f"{host}-{parts.port}" if parts.port else host)


def _slug_of_variable(variable: str, like: str) -> str:
    words = re.split(r"_+", variable.casefold())
    return _slug("-".join(word for word in words if word and word not in _PLAIN_WORDS and word != like))


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.casefold()).strip("-._")[:_SLUG_CHARS_MAX]


def _variables(endpoints: list[Endpoint], ids: Mapping[Endpoint, str]) -> dict[Endpoint, str | None]:
    """The variable that each provider reads. One that is made up for a literal credential has no other use."""
    taken = {one.variable for one in endpoints if one.variable is not None}
    taken.update(name for one in endpoints if one.variable is None and one.literal is None for name in one.row.key_vars)
    names = Names(taken)
    return {
        one: one.variable if one.literal is None else names.take(_wanted_variable(one, ids[one]), "_")
        for one in endpoints
    }


def _wanted_variable(endpoint: Endpoint, provider_id: str) -> str:
    first = _first(endpoint.row)
    if provider_id == endpoint.like and first is not None:
        return first
    name = re.sub(r"[^A-Z0-9]+", "_", provider_id.upper())
    return f"{'' if name[0].isalpha() else 'SERVER_'}{name}_API_KEY"
