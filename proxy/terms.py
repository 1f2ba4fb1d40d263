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
VirtualKeyId = NewType("VirtualKeyId", str)  # public; the secret part of a virtual key is nowhere kept
ExchangeId = NewType("ExchangeId", str)  # what the client sees as x-request-id
NanoUsd = NewType("NanoUsd", int)
CacheKey = NewType("CacheKey", str)
Generation = NewType("Generation", int)  # of a cache: grows by every invalidation; only order means something

DEFAULT_ACCOUNT: Final = AccountId("default")


class Api(Enum):
    """One endpoint family of the wire, named as the YAML and the logs name it."""

    __hash__ = object.__hash__  # an enum's own is written in Python, and an exchange looks by its API six times

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


class PriceSource(Enum):
    """Where the price of an exchange is known from, in the order in which they are asked."""

    REPORTED = "reported"  # the provider's own bill
    CONFIGURED = "configured"  # the routes file
    LOCAL = "local"  # a server of one's own: 0
    LISTED = "listed"  # the price list
    FREE = "free"  # nobody bills for this API
    UNKNOWN = "unknown"  # nowhere: the route's policy decides


@dataclass(slots=True, unsafe_hash=True)  # not frozen, though nobody changes one: that takes nine times as long to make
class Usage:
    """What one answer used, as its provider reported it or as it was estimated; providers' conventions normalised.

    Units: tokens, unless the name says otherwise. ``input_tokens`` includes the cached, the written to a cache, and those
    of audio and images; ``cache_write_tokens`` includes those kept for an hour; ``output_tokens`` includes reasoning, audio
    and images. ``images`` are made, ``audio_ms`` heard, ``characters`` spoken, ``searches`` the search units of a rerank
    or the web searches that a provider ran. ``cost_nanousd`` is the provider's own bill, None where it sends none.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanousd: NanoUsd | None = None
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_input_tokens: int = 0
    image_output_tokens: int = 0
    images: int = 0
    audio_ms: int = 0
    characters: int = 0
    searches: int = 0
    estimated: bool = False
