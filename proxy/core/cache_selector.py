"""Which answers of a cache are meant: by route, tag, account, and names by a pattern; all that is given must hold."""

import json
from dataclasses import dataclass, fields
from typing import Any, Final

import orjson

from proxy.core import any_text
from proxy.core.glob import Glob
from proxy.terms import AccountId, ProviderId, RouteName


@dataclass(frozen=True, slots=True)
class Labels:
    """What an answer is selected by. ``provider`` and ``model`` are of the target that gave it."""

    route: RouteName
    account: AccountId
    provider: ProviderId
    model: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Selector:
    """Shapes: ``pattern`` is matched with the route, the model and ``<provider>/<model>``; one of them is enough.

    Nothing given selects everything.
    """

    route: RouteName | None = None
    tag: str | None = None
    account: AccountId | None = None
    pattern: Glob | None = None


EVERYTHING: Final = Selector()


def matches(selector: Selector, labels: Labels) -> bool:
    return (
        (selector.route is None or selector.route == labels.route)
        and (selector.account is None or selector.account == labels.account)
        and (selector.tag is None or selector.tag in labels.tags)
        and (selector.pattern is None or _is_named(selector.pattern, labels))
    )


def _is_named(pattern: Glob, labels: Labels) -> bool:
    names = (labels.route, labels.model, f"{labels.provider}/{labels.model}")
    return any(pattern.matches(name) for name in names)


# The wire. The same selector always has the same bytes. Not orjson, which refuses the lone surrogates of a header's tag.

_NAMES: Final = tuple(sorted(member.name for member in fields(Selector)))


def told(selector: Selector) -> dict[str, str]:
    """What is given of it, for JSON."""
    given = ((name, getattr(selector, name)) for name in _NAMES)
    return {name: value.text if isinstance(value, Glob) else value for name, value in given if value is not None}


def pack(selector: Selector) -> bytes:
    return json.dumps(told(selector), separators=(",", ":")).encode()


def unpack(packed: bytes) -> Selector:
    """What cannot be understood, perhaps of a later version, selects everything: to forget too much is harmless."""
    try:
        given: Any = json.loads(packed)
    except (ValueError, RecursionError):
        return EVERYTHING
    if type(given) is not dict or not all(name in _NAMES and type(value) is str for name, value in given.items()):
        return EVERYTHING
    pattern = given.pop("pattern", None)
    return Selector(**given, pattern=None if pattern is None else Glob.of(pattern))


def pack_labels(labels: Labels) -> bytes:
    one_each = (labels.route, labels.account, labels.provider, labels.model)
    return orjson.dumps([*map(any_text.packed, one_each), [*map(any_text.packed, labels.tags)]])


def unpack_labels(packed: bytes) -> Labels:
    """Raises `ValueError` for what `pack_labels` has not made."""
    return labels_of(orjson.loads(packed))


def labels_of(value: object) -> Labels:
    """Of the JSON value that `pack_labels` writes. Raises `ValueError`."""
    match value:
        case [str(route), str(account), str(provider), str(model), [*tags]]:
            return Labels(
                RouteName(any_text.unpacked(route)),
                AccountId(any_text.unpacked(account)),
                ProviderId(any_text.unpacked(provider)),
                any_text.unpacked(model),
                tuple(any_text.unpacked(_text(tag)) for tag in tags),
            )
    raise ValueError("these are no labels of an answer")


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("a tag is text")  # noqa: TRY004 - wrong data, of which the type is only a sign
    return value
