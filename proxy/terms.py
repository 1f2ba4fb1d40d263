"""The vocabulary: one word, one meaning, in code, YAML, logs and docs. Imports nothing of Penstock.

- *downstream* is the client's side, *upstream* the provider's.
- An *exchange* is one client request and its response; an *attempt* is one try at one target within it.
- A *route* is what was asked for, a *target* (``<provider>/<model>``) is what was used.
- A *credential* is what Penstock shows a provider; a *virtual key* is what a client shows Penstock.
- *tokens* are LLM tokens; a *tariff* is a rate, a *cost* belongs to one exchange, *spend* is a sum of costs.
"""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final, NewType

ProviderId = NewType("ProviderId", str)
RouteName = NewType("RouteName", str)
TargetName = NewType("TargetName", str)  # "<provider>/<model>"
AccountId = NewType("AccountId", str)
ExchangeId = NewType("ExchangeId", str)  # what the client sees as x-request-id
NanoUsd = NewType("NanoUsd", int)

DEFAULT_ACCOUNT: Final = AccountId("default")


class Api(Enum):
    """One endpoint family of the wire, named as the YAML and the logs name it."""

    CHAT = "chat"
    RESPONSES = "responses"
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    EMBEDDINGS = "embeddings"
    COMPLETIONS = "completions"
    MODERATIONS = "moderations"
    IMAGES = "images"
    IMAGE_EDITS = "image_edits"
    SPEECH = "speech"
    TRANSCRIPTIONS = "transcriptions"
    TRANSLATIONS = "translations"
    RERANK = "rerank"
    PASSTHROUGH = "passthrough"  # any other path: relayed to one provider, without a target


class Role(IntEnum):
    """What somebody may do; each may do what those before it may."""

    USER = 1
    VIEWER = 2
    ADMIN = 3


class Commitment(Enum):
    """How far an answer has gone: only before CONTENT may another target still take over.

    ``HEAD``: the upstream has sent its response head, the client nothing yet. ``COMPLETE`` and ``BROKEN`` are final.
    """

    UNCOMMITTED = "uncommitted"
    HEAD = "head"
    CONTENT = "content"
    COMPLETE = "complete"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a provider reported of one answer, its conventions normalised.

    Units: tokens. ``input_tokens`` includes ``cached_tokens`` and ``cache_write_tokens``; ``output_tokens`` includes
    ``reasoning_tokens``. ``cost_nanousd`` is the provider's own report of its bill, None where it makes none.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanousd: NanoUsd | None = None
