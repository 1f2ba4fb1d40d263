"""The key of the cache: which requests get the same answer?

A request is canonical when what cannot change its answer is gone: the order of members, spacing, spelling of strings, and
the fields of `NOT_ASKED`. Everything else is part of the key, also every field that nobody here knows: a wrong miss costs
a call, a wrong hit gives somebody an answer to what was not asked.

- The key begins with the account: two accounts never meet, whatever they send (S39).
- Numbers: a top-level one is a setting, and 1 is 1.0 there. Further down (in a tool's schema, say) it may be text that the
  model reads, where 1 and 1.0 differ, so it counts as it is written. What the parser cannot hold exactly, integers beyond
  64 bits, is refused: two of them could look the same.
- Members that stand twice are refused: the provider may obey the one that we did not see (S43).
- `null` is not the same as absent: a route's params are inserted only for what is absent.
- Files, pictures and sound that are in the body count by their content, those at a URL or under an id by that name.
- `service_tier`, `seed`, `n`, `prediction` and the like are deliberately part of it: the answer tells or shows them.

`scope` and `settings` are digests of their own, so that requests which differ in the question alone can be told.

Held by `tests/core/test_cache_key.py`. A chat body of 4 KiB takes 13 us, twice that with spaces: less than to parse it.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from proxy.core.headers import ANTHROPIC_VERSION
from proxy.core.splice import Body
from proxy.terms import AccountId, Api, CacheKey, RouteName, VirtualKeyId

VERSION: Final = 1  # of what goes into the key, and how: another one finds none of the answers that are kept

_FORMS: Final = (Api.CHAT, Api.COMPLETIONS, Api.RESPONSES, Api.MESSAGES)
_EVERY: Final = tuple(Api)
_NOT_ECHOED: Final = tuple(api for api in Api if api is not Api.RESPONSES)


class NotAsked(NamedTuple):
    """A field that cannot change the answers of some APIs, and why."""

    apis: tuple[Api, ...]
    reason: str


# Responses echoes most of what it is sent in its answer: there these fields do change it, and count.
NOT_ASKED: Final[Mapping[str, NotAsked]] = MappingProxyType(
    {
        "model": NotAsked(_EVERY, "the route stands for it; which target answers does not matter"),
        "stream": NotAsked(_FORMS, "the form of the answer; what is kept in one form is converted to the other"),
        "user": NotAsked(_NOT_ECHOED, "names the end user to the provider's checks for abuse"),
        "safety_identifier": NotAsked((Api.CHAT,), "as `user`, which it replaces"),
        "metadata": NotAsked((Api.CHAT, Api.MESSAGES), "labels of a stored completion; `user_id` in Messages"),
        "prompt_cache_key": NotAsked((Api.CHAT,), "where the provider keeps the prompt: its price and speed"),
        "prompt_cache_retention": NotAsked((Api.CHAT,), "how long the provider keeps the prompt"),
        "store": NotAsked((Api.CHAT,), "true is refused, and anything else asks for nothing"),
    }
)
_NAMES_NOT_ASKED: Final = MappingProxyType(
    {api: frozenset(name for name, row in NOT_ASKED.items() if api in row.apis) for api in Api}
)
# Of `stream_options`, where `stream` is not asked: usage is kept and withheld, and obfuscation is padding.
_STREAM_OPTIONS_NOT_ASKED: Final = frozenset({"include_usage", "include_obfuscation"})

# What the model reads of a request, as against how it is to answer.
_QUESTION: Final = frozenset({"messages", "input", "prompt", "system", "instructions", "query", "documents"})

# Fields that, where they say anything, make the answer depend on what a provider keeps, or make the provider do something.
_STATE: Final[Mapping[Api, tuple[str, ...]]] = MappingProxyType(
    {
        Api.CHAT: ("deferred",),  # xAI: the answer is fetched later
        Api.RESPONSES: ("previous_response_id", "conversation", "background"),
        Api.MESSAGES: ("container", "mcp_servers"),
    }
)
# Tools that the provider runs and that keep something between calls, or act on the world.
_TOOLS_WITH_STATE: Final = ("code_interpreter", "code_execution", "mcp", "shell")
_VARIANT_HEADERS: Final = ("openai-beta", "x-penstock-provider", "x-penstock-tier")
_LISTS: Final = ("anthropic-beta", "openai-beta")
_EXACT_MAX: Final = 2**53  # of a float, below which every integer is itself
_HUGE: Final = 2.0**63
_EXPONENT: Final = re.compile(rb"e\+[0-9]")  # as a float from 1e16 on is written


class KeyParts(NamedTuple):
    """Shapes: SHA-256 digests. ``scope``: account, route, API. ``settings``: how to answer. ``question``: what."""

    scope: bytes
    settings: bytes
    question: bytes

    @property
    def text(self) -> CacheKey:
        """All of it, as a store keeps it: the version and 64 hexadecimal digits."""
        return CacheKey(f"{VERSION}.{sha256(b''.join(self)).hexdigest()}")


@dataclass(frozen=True, slots=True)
class Uncacheable:
    """A request whose answer is nobody else's. ``reason``: in words, for the log and `explain`."""

    reason: str


def digest(
    account: AccountId,
    route: RouteName,
    api: Api,
    body: Body,
    *,
    params: Iterable[tuple[str, bytes]] = (),
    variants: Mapping[str, str] = MappingProxyType({}),
    alone: VirtualKeyId | None = None,
) -> KeyParts | Uncacheable:
    """The key of a request.

    Shapes: ``route`` is the plan's route, or what was asked for where it names a target directly. ``params`` are the members
    (name, JSON value) that the route inserts; what the client says itself wins. ``variants`` is what else decides: see
    `variants`. ``alone``: the virtual key whose answers are for nobody else, not even in its account.
    """
    fields = body.fields
    asked: dict[str, Any] = {name: orjson.loads(value) for name, value in params}
    asked |= fields
    reason = _state(api, asked)
    if reason is not None:
        return Uncacheable(reason)
    not_asked = _NAMES_NOT_ASKED[api]
    question: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for name, value in asked.items():
        if name in _QUESTION:
            question[name] = value
        elif name not in not_asked:
            settings[name] = int(value) if type(value) is float and _is_whole(value) else value
    if "stream" in not_asked and type(settings.get("stream_options")) is dict:
        _drop_form(settings)
    scope = [VERSION, account, route, api.value]
    parts = (
        _canonical(scope if alone is None else [*scope, alone]),
        _canonical([settings, dict(variants)]),
        _canonical(question),
    )
    # A plus alone is rare outside of base64, and found ten times as fast.
    if any(_EXPONENT.search(part) for part in parts if b"+" in part) and _has_huge(asked):
        return Uncacheable("it holds a number beyond 64 bits, which is not known exactly")
    if _repeats(body):
        return Uncacheable("a member stands twice in an object of its body")
    return KeyParts(*(sha256(part).digest() for part in parts))


def variants(headers: Mapping[str, str], api: Api, also: Iterable[str] = ()) -> dict[str, str]:
    """What a request's headers say that may change its answer. ``also``: names, in lower case, that a provider is passed."""
    wanted = {*_VARIANT_HEADERS, *also, *(("accept",) if api is Api.SPEECH else ())}
    found: dict[str, str] = {}
    for header, value in headers.items():
        name = header.lower()
        if name in wanted or name.startswith("anthropic-"):
            found[name] = f"{found[name]},{value}" if name in found else value
    for name in _LISTS:
        if name in found:
            found[name] = ",".join(sorted({part.strip() for part in found[name].split(",")} - {""}))
    if found.get("anthropic-version") == ANTHROPIC_VERSION:  # what is sent where the client names none
        del found["anthropic-version"]
    return found


def _state(api: Api, fields: Mapping[str, Any]) -> str | None:
    """Why the answer depends on more than the request; None where it does not."""
    if api is Api.PASSTHROUGH:
        return "it is relayed as it is, to a path that is not read"
    for name in _STATE.get(api, ()):
        if fields.get(name):
            return f"'{name}' refers to what a provider keeps"
    if api in (Api.CHAT, Api.RESPONSES) and fields.get("store") is True:
        return "'store' asks the provider to keep the answer, and an answer from the cache would not be kept"
    for tool in _objects(fields.get("tools")):
        kind = tool.get("type")
        if type(kind) is str and kind.startswith(_TOOLS_WITH_STATE):
            return f"the tool '{kind[:40]}' is run by the provider and keeps a state"
    if api is Api.RESPONSES and any(item.get("type") == "item_reference" for item in _objects(fields.get("input"))):
        return "its input refers to what a provider keeps"
    return None


def _objects(value: object) -> Iterable[dict[str, Any]]:
    return (item for item in value if type(item) is dict) if type(value) is list else ()


def _drop_form(settings: dict[str, Any]) -> None:
    options = settings.pop("stream_options")
    left = {name: value for name, value in options.items() if name not in _STREAM_OPTIONS_NOT_ASKED}
    if left:
        settings["stream_options"] = left


def _is_whole(number: float) -> bool:
    return number.is_integer() and -_EXACT_MAX < number < _EXACT_MAX


def _canonical(value: Any) -> bytes:
    """One spelling of a document. What orjson does not write (deeper than 254 levels, larger integers) others do: both
    spellings are read as what they were made of, so no two documents share one.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _has_huge(document: object) -> bool:
    waiting: list[Any] = [document]
    while waiting:
        value = waiting.pop()
        if type(value) is dict:
            waiting += value.values()
        elif type(value) is list:
            waiting += value
        elif type(value) is float and abs(value) >= _HUGE:
            return True
    return False


def _repeats(body: Body) -> bool:
    """Whether some object of the body has a member twice, of which the parser kept the last.

    Most clients spell it just as what was parsed is written. Else quotes that are not escaped tell how many strings there
    are, and a member that was dropped was at least one more: if there are as many as in what was parsed, none was. Only a
    string that ends with an escaped backslash counts one less, and what was parsed is written with the most of those, so
    that this errs by looking twice.
    """
    try:
        spelled = orjson.dumps(body.fields)
    except orjson.JSONEncodeError:
        spelled = b""
    return body.raw != spelled and _quotes(body.raw) != _quotes(spelled) and _repeats_exactly(body.raw)


def _quotes(text: bytes) -> int:
    return text.count(b'"') - (text.count(b'\\"') if b"\\" in text else 0)


def _repeats_exactly(raw: bytes) -> bool:
    repeated: list[str] = []
    json.loads(raw, object_pairs_hook=partial(_note_repeated, repeated))
    return bool(repeated)


def _note_repeated(repeated: list[str], members: list[tuple[str, Any]]) -> None:
    names = [name for name, _ in members]
    if len(set(names)) < len(names):
        repeated.append(names[0])
