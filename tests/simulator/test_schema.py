from typing import Any

import jsonschema
import pytest

from proxy.simulator.schema import example

_TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["name", "left", "children"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}

SCHEMAS: dict[str, Any] = {
    "string": {"type": "string"},
    "length": {"type": "string", "minLength": 30, "maxLength": 31},
    "short": {"type": "string", "maxLength": 3},
    "format": {"type": "string", "format": "date-time"},
    "enum": {"type": "string", "enum": ["warm", "cold"]},
    "const": {"const": 7},
    "boolean": {"type": "boolean"},
    "null": {"type": "null"},
    "integer": {"type": "integer"},
    "range": {"type": "integer", "minimum": 7, "maximum": 9},
    "above": {"type": "number", "exclusiveMinimum": 2},
    "below": {"type": "number", "exclusiveMaximum": -2},
    "high": {"type": "number", "maximum": -4.5},
    "multiple": {"type": "integer", "minimum": 8, "multipleOf": 5},
    "nullable": {"type": ["null", "string"]},
    "array": {"type": "array", "items": {"type": "integer"}, "minItems": 3},
    "no items": {"type": "array", "items": {"type": "integer"}, "maxItems": 0},
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}]},
    "object": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "number"}}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "only required": {"properties": {"a": {"type": "integer"}, "b": {"not": {}}}, "required": ["a"]},
    "anyOf": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
    "allOf": {
        "allOf": [
            {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
            {"type": "object", "properties": {"b": {"type": "boolean"}}, "required": ["b"]},
        ]
    },
    "escaped ref": {"definitions": {"a/b": {"type": "integer"}}, "$ref": "#/definitions/a~1b"},
    "tree": _TREE,
}


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_the_example_is_valid(schema: Any) -> None:
    jsonschema.validate(example(schema), schema)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        3,
        "text",
        [],
        {"$ref": "#"},
        {"$ref": "#/no"},
        {"$ref": 3},
        {"type": 4},
        {"type": "object", "properties": 1},
    ],
)
def test_what_is_no_schema_does_no_harm(schema: Any) -> None:
    example(schema)


def test_a_schema_that_only_refers_to_itself_ends() -> None:
    schema = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    assert "a" in example(schema)
