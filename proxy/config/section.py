"""What every section of the routes file has in common, and how a wrong value is told."""

import json
import math
from collections.abc import Mapping
from typing import ClassVar

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """One mapping of the file. ``later`` are keys that a later version will know, and that are refused until then.

    ``elsewhere`` maps a key that has its place in other sections to those.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    later: ClassVar[frozenset[str]] = frozenset()
    elsewhere: ClassVar[Mapping[str, str]] = {}


def invalid(message: str) -> PydanticCustomError:
    # Braces would be read as a template by pydantic.
    return PydanticCustomError("invalid", "{message}", {"message": message})


def shown(value: object) -> str:
    """A value in a message: as YAML would write it, and short."""
    match value:
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case None:
            return "nothing"
        case float() if not math.isfinite(value):
            return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            text = str(value)
            return f"'{text if len(text) <= 60 else text[:59] + '…'}'"
