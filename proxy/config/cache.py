"""The section `cache`, of `defaults` and of a route: whether answers are kept, which of them, and for how long.

    cache: {ttl: 1h, tool_calls: false, replay: immediate}
    cache: off

A route that says nothing has what `defaults` say; one that says something has nothing of it.
"""

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from proxy.config.scalars import CacheTtl
from proxy.config.section import Section, invalid, shown
from proxy.core.cache_policy import CachePolicy

REPLAYS: Final = ("immediate", "paced")


def _replay(value: object) -> str:
    if value in REPLAYS:
        return str(value)
    raise invalid(f"expected immediate or paced, got {shown(value)}")


def _off(value: object) -> str:
    if value is False or value == "off":
        return "off"
    raise invalid(f"expected off or a mapping such as {{ttl: 1h}}, got {shown(value)}")


class CacheEntry(Section):
    """Answers are kept, and given again to who asks the same."""

    ttl: CacheTtl = Field(description="For how long an answer is given again.")
    tool_calls: bool = Field(default=False, description="true keeps answers that call tools too.")
    replay: Annotated[
        Literal["immediate", "paced"],
        BeforeValidator(_replay),
        WithJsonSchema({"type": "string", "enum": list(REPLAYS)}),
    ] = Field(
        default="immediate",
        description="How a kept stream is sent: immediate, all at once; paced, event by event as a model would.",
    )


def _form(value: object) -> str:
    return "mapping" if isinstance(value, dict | CacheEntry) else "word"


CacheOff = Annotated[Literal["off"], BeforeValidator(_off), WithJsonSchema({"enum": ["off", False]})]
Cache = Annotated[Annotated[CacheOff, Tag("word")] | Annotated[CacheEntry, Tag("mapping")], Discriminator(_form)]


def policy(own: Cache | None, inherited: Cache | None) -> CachePolicy | None:
    """What holds for a route; None: its answers are not kept."""
    said = inherited if own is None else own
    if not isinstance(said, CacheEntry):
        return None
    return CachePolicy(said.ttl, said.tool_calls, said.replay == "paced")
