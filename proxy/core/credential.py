"""What Penstock shows a provider: a value that stands in no representation, with a name that may be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True, slots=True)
class Credential:
    """``origin`` is the reference that led to it: ``env:NAME`` or ``sealed:NAME``."""

    value: str = field(repr=False)
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Vault:
    """What is sealed, opened: values by name, and why others could not be opened.

    ``change``: as of which change of the store; None: the store was not read.
    """

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    unopened: Mapping[str, str] = field(default_factory=dict)
    change: int | None = None


NOTHING_SEALED: Final = Vault()
