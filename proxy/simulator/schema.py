"""A JSON value that a JSON Schema accepts: what the simulator answers where a schema is asked for.

Deterministic and small: required properties, the first of every choice, the shortest list. Not handled: `pattern`,
`not`, `if`, `dependentSchemas` (no provider's structured output takes them either). Held by
`tests/simulator/test_schema.py`, which lets `jsonschema` judge.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

_DEPTH_MAX: Final = 24  # a schema that refers to itself ends here
_DEPTH_OPTIONAL: Final = 6  # below it, only what is required is made
_TEXT: Final = "simulated text"
_FORMATS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "date-time": "2025-01-01T00:00:00Z",
        "date": "2025-01-01",
        "time": "00:00:00Z",
        "duration": "P1D",
        "email": "someone@example.com",
        "hostname": "example.com",
        "ipv4": "192.0.2.1",
        "ipv6": "2001:db8::1",
        "uri": "https://example.com/",
        "uuid": "00000000-0000-4000-8000-000000000000",
    }
)


def example(schema: Any) -> Any:
    """A value for `schema`, a decoded JSON Schema; null where it is none."""
    return _value(schema, schema, 0)


def _value(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        return None
    schema = _merged(schema, root)
    if "const" in schema:
        return schema["const"]
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    for word in ("anyOf", "oneOf"):
        if isinstance(schema.get(word), list) and schema[word]:
            return _value(_choice(schema[word], depth), root, depth + 1)
    make = _MAKERS.get(_type_of(schema))
    return make(schema, root, depth) if make else None


def _merged(schema: dict[str, Any], root: Any) -> dict[str, Any]:
    """`$ref` and `allOf` folded in; a chain of references is followed at most `_DEPTH_MAX` times."""
    for _ in range(_DEPTH_MAX):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            break
        rest = {name: value for name, value in schema.items() if name != "$ref"}
        schema = {**_referred(reference, root), **rest}
    for part in schema.get("allOf") or ():
        inner = _merged(part, root) if isinstance(part, dict) else {}
        properties = {**(schema.get("properties") or {}), **(inner.get("properties") or {})}
        required = [*(schema.get("required") or ()), *(inner.get("required") or ())]
        schema = {**inner, **schema}
        if properties:
            schema |= {"properties": properties, "required": required}
    return schema


def _referred(reference: str, root: Any) -> dict[str, Any]:
    found = root
    for name in reference.removeprefix("#").split("/")[1:]:
        found = found.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else {}


def _choice(choices: list[Any], depth: int) -> Any:
    """The first; deep down the one that ends a recursion."""
    if depth > _DEPTH_OPTIONAL:
        return next((one for one in choices if isinstance(one, dict) and one.get("type") == "null"), choices[-1])
    return choices[0]


def _type_of(schema: dict[str, Any]) -> str:
    named = schema.get("type")
    if isinstance(named, list):
        named = next((one for one in named if one != "null"), "null")
    if isinstance(named, str):
        return named
    if "properties" in schema or "required" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema:
        return "array"
    return "string"


def _object(schema: dict[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    required = schema.get("required")
    if not isinstance(required, list):
        required = list(properties) if depth < _DEPTH_OPTIONAL else []
    return {name: _value(properties.get(name, {}), root, depth + 1) for name in required if isinstance(name, str)}


def _array(schema: dict[str, Any], root: Any, depth: int) -> list[Any]:
    first = schema.get("prefixItems")
    made = [_value(item, root, depth + 1) for item in first] if isinstance(first, list) else []
    wanted = _whole(schema.get("minItems"), 0 if depth > _DEPTH_OPTIONAL else 1)
    wanted = min(wanted, _whole(schema.get("maxItems"), wanted))
    while len(made) < wanted:
        made.append(_value(schema.get("items", {}), root, depth + 1))
    return made


def _string(schema: dict[str, Any], _root: Any, _depth: int) -> str:
    text = _FORMATS.get(str(schema.get("format")), _TEXT)
    return text.ljust(_whole(schema.get("minLength"), 0), ".")[: _whole(schema.get("maxLength"), 1 << 20)]


def _integer(schema: dict[str, Any], root: Any, depth: int) -> int:
    return int(_number(schema, root, depth, 1))


def _number(schema: dict[str, Any], _root: Any, _depth: int, default_step: float = 0.5) -> float:
    """The lowest multiple of the step within the bounds, or 1 where there are none."""
    step = _real(schema.get("multipleOf")) or default_step
    low, above = _real(schema.get("minimum")), _real(schema.get("exclusiveMinimum"))
    high, below = _real(schema.get("maximum")), _real(schema.get("exclusiveMaximum"))
    if above is not None:
        return step * (math.floor(above / step) + 1)
    if low is not None:
        return step * math.ceil(low / step)
    if below is not None:
        return min(step, step * (math.ceil(below / step) - 1))
    return step if high is None else min(step, step * math.floor(high / step))


def _whole(value: Any, otherwise: int) -> int:
    return min(value, 1 << 20) if isinstance(value, int) and value >= 0 else otherwise


def _real(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


_MAKERS: Final[Mapping[str, Callable[[dict[str, Any], Any, int], Any]]] = MappingProxyType(
    {
        "object": _object,
        "array": _array,
        "string": _string,
        "integer": _integer,
        "number": _number,
        "boolean": lambda _schema, _root, _depth: True,
    }
)
