"""How one member of an answer comes together from the pieces that a stream brings it in.

A gatherer is given every piece in order and asked for the whole at the end. Text is joined once, at the end: an answer of a
million characters in four-character pieces would take minutes otherwise. What comes in one piece is never merged with
itself, so that a whole answer sent as one piece stays what it is. A piece of another kind than those before raises
`Unclear`.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from proxy.core.assembly.recorded import Unclear


class Gatherer(Protocol):
    """Takes the pieces of one member; none of them is None."""

    def add(self, piece: Any) -> None: ...
    def value(self) -> Any: ...


class Text:
    """Pieces of one text."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, piece: Any) -> None:
        if type(piece) is not str:
            raise Unclear("a piece of a text is no text")
        self._parts.append(piece)

    def value(self) -> str:
        return "".join(self._parts)


class Name(Text):
    """A text that some providers repeat whole with every piece (vLLM does with the names of tools)."""

    __slots__ = ("_chars",)

    def __init__(self) -> None:
        super().__init__()
        self._chars = 0

    def add(self, piece: Any) -> None:
        if type(piece) is str and len(piece) == self._chars and piece == self.value():
            return
        super().add(piece)
        self._chars += len(piece)


class Id:
    """What must not change; empty where it is not told again."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Any = ""

    def add(self, piece: Any) -> None:
        if self._value in ("", piece):
            self._value = piece
        elif piece != "":
            raise Unclear("two ids are told for one thing")

    def value(self) -> Any:
        return self._value


class Last:
    """What is told anew: the last that says anything counts."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: Any = None

    def add(self, piece: Any) -> None:
        if self._value is None or piece not in ("", {}):
            self._value = piece

    def value(self) -> Any:
        return self._value


class Items:
    """Lists that follow each other."""

    __slots__ = ("_items",)

    def __init__(self) -> None:
        self._items: list[Any] = []

    def add(self, piece: Any) -> None:
        if type(piece) is not list:
            raise Unclear("a piece of a list is no list")
        self._items += piece

    def value(self) -> list[Any]:
        return self._items


class Base64:
    """Pieces that are base64 each on its own, or of which each goes on where the one before was cut."""

    __slots__ = ("_parts",)

    def __init__(self) -> None:
        self._parts: list[str] = []

    def add(self, piece: Any) -> None:
        if type(piece) is not str:
            raise Unclear("a piece of base64 is no text")
        self._parts.append(piece)

    def value(self) -> str:
        whole = "".join(self._parts)
        if "=" not in whole[:-2]:
            return whole
        try:
            return base64.b64encode(b"".join(base64.b64decode(part, validate=True) for part in self._parts)).decode()
        except binascii.Error:
            raise Unclear("pieces of base64 do not fit together") from None


Choose = Callable[[Any], Gatherer]  # by a member's first piece


def as_delta(piece: Any) -> Gatherer:
    """For members of a delta that nobody here knows: a delta's text is a piece of text."""
    return Text() if type(piece) is str else as_state(piece)


def as_state(piece: Any) -> Gatherer:
    """For members beside the delta that nobody here knows."""
    return Items() if type(piece) is list else Last()


class Members:
    """An object whose members come in pieces. A null is kept where nothing else comes."""

    __slots__ = ("_choose", "_dropped", "_gathered", "_named")

    def __init__(
        self, named: Mapping[str, Callable[[], Gatherer]], choose: Choose, dropped: frozenset[str] = frozenset()
    ) -> None:
        self._named = named
        self._choose = choose
        self._dropped = dropped
        self._gathered: dict[str, Gatherer | None] = {}

    def add(self, piece: Any) -> None:
        if type(piece) is not dict:
            raise Unclear("a piece of an object is no object")
        for name, value in piece.items():
            if name in self._dropped:
                continue
            gatherer = self._gathered.setdefault(name, None)
            if value is None:
                continue
            if gatherer is None:
                gatherer = self._gathered[name] = self._new(name, value)
            gatherer.add(value)

    def value(self) -> dict[str, Any]:
        return {name: None if one is None else one.value() for name, one in self._gathered.items()}

    def _new(self, name: str, value: Any) -> Gatherer:
        known = self._named.get(name)
        return known() if known is not None else self._choose(value)


class Parts:
    """Content that is a text, or a list of parts to which texts are joined (Mistral, where a model reasons)."""

    __slots__ = ("_kinds", "_parts", "_text")

    def __init__(self) -> None:
        self._text = Text()
        self._parts: list[Members] | None = None
        self._kinds: list[Any] = []

    def add(self, piece: Any) -> None:
        if type(piece) is list:
            self._add_parts(piece)
        elif self._parts is None:
            self._text.add(piece)
        elif type(piece) is not str:
            raise Unclear("a piece of content is neither text nor parts")
        elif piece:
            self._add_parts([{"type": "text", "text": piece}])

    def value(self) -> Any:
        return self._text.value() if self._parts is None else [part.value() for part in self._parts]

    def _add_parts(self, parts: list[Any]) -> None:
        if self._parts is None:
            self._parts = []
            before = self._text.value()
            if before:
                self._append({"type": "text", "text": before})
        for position, part in enumerate(parts):
            kind = part.get("type") if type(part) is dict else None
            if position == 0 and self._kinds and kind == self._kinds[-1] and kind in ("text", "thinking"):
                self._parts[-1].add(part)
            else:
                self._append(part)

    def _append(self, part: Any) -> None:
        members = Members({"type": Last, "text": Text, "thinking": Parts}, as_delta)
        members.add(part)
        assert self._parts is not None  # noqa: S101 - both callers have made it
        self._parts.append(members)
        self._kinds.append(part.get("type"))


class Details:
    """Steps of reasoning as OpenRouter streams them: objects, of which those of one kind and index belong together."""

    __slots__ = ("_open", "_steps")

    def __init__(self) -> None:
        self._steps: list[Members] = []
        self._open: dict[tuple[Any, Any], Members] = {}

    def add(self, piece: Any) -> None:
        if type(piece) is not list or any(type(step) is not dict for step in piece):
            raise Unclear("reasoning_details are no list of objects")
        fresh: dict[tuple[Any, Any], Members] = {}
        for step in piece:
            place = (_plain(step.get("type")), _plain(step.get("index")))
            members = self._open.get(place) if place[1] is not None else None
            if members is None:
                members = Members(_STEP, as_state)
                self._steps.append(members)
                fresh[place] = members
            members.add(step)
        self._open |= fresh

    def value(self) -> list[Any]:
        return [step.value() for step in self._steps]


_STEP: Final[Mapping[str, Callable[[], Gatherer]]] = {"text": Text, "summary": Text, "data": Text}


def _plain(value: Any) -> str | int | None:
    return value if type(value) in (str, int) else None
