"""The values that sections of the routes file hold: how each is written, and what is told where it is not."""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import orjson
from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from proxy.config.section import invalid, shown
from proxy.core import duration

_DURATION: Final = r"[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h)"
DURATION_S_MAX: Final = 24 * 3600.0  # a longer wait for one answer is a mistyped unit
_TTL: Final = r"[0-9]{1,9}(\.[0-9]{1,9})?(ms|s|m|h|d)"
TTL_S_MAX: Final = 30 * 24 * 3600.0  # no store keeps an answer for longer

PROVIDER_ID: Final = r"[a-z0-9][a-z0-9._-]{0,63}"
ROUTE_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,63}"
TARGET: Final = rf"{PROVIDER_ID}/\S{{1,400}}"
_ENV_REFERENCE: Final = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")
SEALED_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}"
CREDENTIALS_MAX: Final = 16  # each that is refused costs a request a round trip
_CREDENTIAL_REFERENCE: Final = re.compile(rf"{_ENV_REFERENCE.pattern}|sealed:{SEALED_NAME}")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]{1,64}")

_ORIGIN: Final = r"[a-z][a-z0-9+.-]*://[a-z0-9.\-\[\]:_]{1,253}"
BALANCES: Final = ("weighted", "fastest", "cheapest", "sticky")
WEIGHT_MAX: Final = 1_000_000
ATTEMPTS_MAX: Final = 100
KEEP_DAYS: Final = (35, 3660)  # the books of a month are made again from its rows; ten years
# What says which answer is asked for, and in which form: a default for it would change what a request means.
REFUSED_PARAMS: Final = frozenset({"model", "messages", "prompt", "stream", "stream_options", "n", "input"})

# What no client may set on the way to a provider: credentials, identity, and what belongs to one connection.
REFUSED_HEADERS: Final = frozenset(
    {
        "accept-encoding",
        "api-key",
        "authorization",
        "connection",
        "content-encoding",
        "content-length",
        "cookie",
        "cookie2",
        "expect",
        "forwarded",
        "host",
        "http2-settings",
        "keep-alive",
        "origin",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
        "x-api-key",
        "x-goog-api-key",
    }
)
REFUSED_HEADER_PREFIXES: Final = ("x-penstock-", "x-forwarded-", "sec-", "proxy-")


def _duration(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise invalid(f"a duration needs a unit: {value}s, {value}ms, {value}m or {value}h")
    seconds = duration.parse(value) if isinstance(value, str) and re.fullmatch(_DURATION, value) else None
    if seconds is None:
        raise invalid(f"expected a duration such as 500ms, 5s, 2m or 1h, got {shown(value)}")
    if seconds <= 0:
        raise invalid(f"expected a duration longer than zero, got {shown(value)}")
    if seconds > DURATION_S_MAX:
        raise invalid(f"expected at most {DURATION_S_MAX / 3600:.0f}h, got {shown(value)}")
    return seconds


def _ttl(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise invalid(f"a duration needs a unit: {value}s, {value}m, {value}h or {value}d")
    seconds = duration.parse(value) if isinstance(value, str) and re.fullmatch(_TTL, value) else None
    if seconds is None:
        raise invalid(f"expected a duration such as 90s, 5m, 1h or 7d, got {shown(value)}")
    if not 0 < seconds <= TTL_S_MAX:
        raise invalid(f"expected a duration longer than zero and at most {TTL_S_MAX / 86400:.0f}d, got {shown(value)}")
    return seconds


def duration_s(value: object) -> float | None:
    """Seconds, None where it is no duration."""
    try:
        return _duration(value)
    except PydanticCustomError:
        return None


def _target(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(TARGET, value) and value.isprintable():
        return value
    raise invalid(f"expected a target <provider>/<model> such as openai/gpt-4o-mini, got {shown(value)}")


def _credentials(value: object) -> tuple[str, ...]:
    """References as they are written, a single one as a list of one."""
    given = value if isinstance(value, list) else [value]
    for one in given:
        if not isinstance(one, str) or not _CREDENTIAL_REFERENCE.fullmatch(one):
            # What stands here may be a credential: it is never quoted.
            raise invalid(
                "expected a reference env:NAME to an environment variable, sealed:NAME to a sealed secret, or a list of "
                "them. A credential never stands in this file"
            )
    if not 0 < len(given) <= CREDENTIALS_MAX:
        raise invalid(f"expected 1 to {CREDENTIALS_MAX} references, got {len(given)}")
    if len(set(given)) < len(given):
        raise invalid("names a reference twice")
    return tuple(given)


def _reference(value: object) -> str:
    if isinstance(value, str) and _ENV_REFERENCE.fullmatch(value):
        return value.removeprefix("env:")
    if isinstance(value, str) and value.startswith("sealed:"):
        raise invalid("only a provider's api_key can be sealed. Use env:NAME here")
    # What stands here may be a credential: it is never quoted.
    raise invalid("expected a reference env:NAME to an environment variable. A credential never stands in this file")


def _header(value: object) -> str:
    if not isinstance(value, str) or not _HEADER.fullmatch(value):
        raise invalid(f"expected a header name such as x-trace-id, got {shown(value)}")
    name = value.lower()
    if name in REFUSED_HEADERS or name.startswith(REFUSED_HEADER_PREFIXES):
        raise invalid(f"header '{name}' is never passed on: it carries a credential or belongs to one connection")
    return name


def _access_mode(value: object) -> str:
    if value not in ("open", "keys"):
        raise invalid(f"expected open or keys, got {shown(value)}")
    return str(value)


def _number(what: str, least: float, most: float, *, above: bool = False) -> Callable[[object], float]:
    def checked(value: object) -> float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and least <= float(value) <= most and not (above and value == least):  # type: ignore[arg-type] # a number
            return float(value)  # type: ignore[arg-type] # likewise
        raise invalid(f"expected {what} up to {most:.0f}, got {shown(value)}")

    return checked


def _whole(least: int, most: int, what: str = "a whole number") -> Callable[[object], int]:
    def checked(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise invalid(f"expected {what} from {least} to {most}, got {shown(value)}")

    return checked


def _on_disconnect(value: object) -> str:
    if value in ("cancel", "drain"):
        return str(value)
    raise invalid(f"expected cancel or drain, got {shown(value)}")


def _balance(value: object) -> str:
    if value in BALANCES:
        return str(value)
    raise invalid(f"expected weighted, fastest, cheapest or sticky, got {shown(value)}")


def _origin(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(_ORIGIN, value):
        return value
    if value in ("*", "null"):
        raise invalid(f"'{value}' would let any web page spend with your keys. Name each origin")
    raise invalid(f"expected an origin such as https://app.example.com, without a path, got {shown(value)}")


def _params(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise invalid(f"expected a mapping such as {{temperature: 0.3}}, got {shown(value)}")
    for name in value:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", name):
            raise invalid(f"expected names of request members such as temperature, got {shown(name)}")
        if name in REFUSED_PARAMS:
            raise invalid(f"'{name}' is the request's own and cannot be a route's parameter")
    try:
        orjson.dumps(value)
    except (orjson.JSONEncodeError, TypeError):
        raise invalid("expected values that JSON can hold: numbers, text, true, false, lists and mappings") from None
    return value


Duration = Annotated[
    float,
    BeforeValidator(_duration),
    WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$", "examples": ["500ms", "5s", "2m", "1h"]}),
]
CacheTtl = Annotated[
    float,
    BeforeValidator(_ttl),
    WithJsonSchema({"type": "string", "pattern": f"^{_TTL}$", "examples": ["90s", "5m", "1h", "7d"]}),
]
TargetName = Annotated[
    str,
    BeforeValidator(_target),
    WithJsonSchema({"type": "string", "pattern": f"^{TARGET}$", "examples": ["openai/gpt-4o-mini"]}),
]
EnvReference = Annotated[
    str,
    BeforeValidator(_reference),
    WithJsonSchema({"type": "string", "pattern": f"^{_ENV_REFERENCE.pattern}$", "examples": ["env:OPENAI_API_KEY"]}),
]
_REFERENCE_SCHEMA: Final = {
    "type": "string",
    "pattern": f"^({_CREDENTIAL_REFERENCE.pattern})$",
    "examples": ["env:OPENAI_API_KEY", "sealed:openai"],
}
CredentialReferences = Annotated[
    tuple[str, ...],
    BeforeValidator(_credentials),
    WithJsonSchema(
        {
            "anyOf": [
                _REFERENCE_SCHEMA,
                {
                    "type": "array",
                    "items": _REFERENCE_SCHEMA,
                    "minItems": 1,
                    "maxItems": CREDENTIALS_MAX,
                    "uniqueItems": True,
                },
            ]
        }
    ),
]
HeaderName = Annotated[
    str, BeforeValidator(_header), WithJsonSchema({"type": "string", "pattern": f"^{_HEADER.pattern}$"})
]
Weight = Annotated[
    float,
    BeforeValidator(_number("a weight above 0 and", 0, WEIGHT_MAX, above=True)),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": WEIGHT_MAX}),
]
Share = Annotated[
    float,
    BeforeValidator(_number("a share from 0", 0, 1)),
    WithJsonSchema({"type": "number", "minimum": 0, "maximum": 1}),
]
ShareAboveZero = Annotated[
    float,
    BeforeValidator(_number("a share above 0 and", 0, 1, above=True)),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 1, "examples": [0.8]}),
]
Factor = Annotated[
    float,
    BeforeValidator(_number("a factor from 1", 1, 100)),
    WithJsonSchema({"type": "number", "minimum": 1, "maximum": 100}),
]
Attempts = Annotated[
    int,
    BeforeValidator(_whole(1, ATTEMPTS_MAX)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": ATTEMPTS_MAX}),
]
Port = Annotated[
    int,
    BeforeValidator(_whole(1, 65535, "a port")),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535}),
]
Days = Annotated[
    int,
    BeforeValidator(_whole(*KEEP_DAYS, "a number of days")),
    WithJsonSchema({"type": "integer", "minimum": KEEP_DAYS[0], "maximum": KEEP_DAYS[1]}),
]
BalanceName = Annotated[
    Literal["weighted", "fastest", "cheapest", "sticky"],
    BeforeValidator(_balance),
    WithJsonSchema({"type": "string", "enum": list(BALANCES)}),
]
Origin = Annotated[
    str, BeforeValidator(_origin), WithJsonSchema({"type": "string", "examples": ["https://app.example.com"]})
]
Params = Annotated[
    dict[str, Any],
    BeforeValidator(_params),
    WithJsonSchema({"type": "object", "examples": [{"temperature": 0.3}]}),
]
OnDisconnect = Annotated[
    Literal["cancel", "drain"],
    BeforeValidator(_on_disconnect),
    WithJsonSchema({"type": "string", "enum": ["cancel", "drain"]}),
]
AccessMode = Annotated[
    Literal["open", "keys"], BeforeValidator(_access_mode), WithJsonSchema({"type": "string", "enum": ["open", "keys"]})
]
