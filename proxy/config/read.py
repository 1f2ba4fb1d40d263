"""YAML with positions: plain data, and where in the file each key and value of it stands.

Scalars resolve by YAML 1.2's core schema, so `no`, `1:30`, `2026-01-01` and `1_000` are text and `010` is ten. The
parser's events are read directly: anchors are expanded within a bound, an anchor inside itself is refused, merge keys
have no meaning, and a duplicate key is a problem that does not hide the others (its first value stands).
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Final

import yaml

from proxy.config.problem import ConfigError, Path, Problem

BYTES_MAX: Final = 4 * 1024 * 1024  # a thousand routes take 0.3 MiB
DEPTH_MAX: Final = 32  # the schema needs 7
NODES_MAX: Final = 200_000  # after expansion: stops a few lines of aliases from filling the memory
DIGITS_MAX: Final = 20

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGERS: Final = ((re.compile(r"[-+]?[0-9]+"), 10), (re.compile(r"0o[0-7]+"), 8), (re.compile(r"0x[0-9a-fA-F]+"), 16))
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
_NAN: Final = frozenset({".nan", ".NaN", ".NAN"})
_TAG_PREFIX: Final = "tag:yaml.org,2002:"

Position = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds.

    Shapes: ``data`` is plain (dict, list, str, int, float, bool, None). ``keys`` and ``values`` map a path to line and
    column, counted from 1; the root has the path ``()`` and no key.
    """

    data: Any
    keys: Mapping[Path, Position]
    values: Mapping[Path, Position]
    problems: tuple[Problem, ...]

    def value_at(self, path: Path) -> Position:
        """Where a value stands; for one that is missing, the key of what it is missing from."""
        return self.values.get(path) or self.key_at(path[:-1])

    def key_at(self, path: Path) -> Position:
        """Where a key stands; an item of a list, or the nearest known ancestor, where there is none."""
        while path:
            found = self.keys.get(path) or self.values.get(path)
            if found is not None:
                return found
            path = path[:-1]
        return self.values.get((), (1, 1))


@dataclass(slots=True)
class _Node:
    """``value`` is a scalar, a list of nodes or a list of pairs of nodes, as ``kind`` says; ``whole`` once read."""

    kind: str
    position: Position
    value: Any = None
    whole: bool = False


@dataclass(slots=True)
class _Reader:
    """Events to nodes, nodes to plain data; collects problems instead of raising them."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    anchors: dict[str, _Node] = field(default_factory=dict)
    keys: dict[Path, Position] = field(default_factory=dict)
    values: dict[Path, Position] = field(default_factory=dict)
    nodes: int = 0

    def problem(self, position: Position, path: Path, message: str) -> None:
        self.problems.append(Problem(self.file, *position, path, message))

    # Events to nodes.

    def node(self, events: Iterator[yaml.Event], event: yaml.Event, depth: int = 0) -> _Node:
        position = _start(event)
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event, position)
        made = _Node("scalar", position)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self.anchors[anchor] = made
        if depth > DEPTH_MAX:
            raise _TooMuch(position, f"nested deeper than {DEPTH_MAX} levels")
        if isinstance(event, yaml.ScalarEvent):
            made.value = self._scalar(event, position)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event.tag, "seq", position)
            made.kind = "list"
            made.value = [self.node(events, item, depth + 1) for item in _until(events, yaml.SequenceEndEvent)]
        elif isinstance(event, yaml.MappingStartEvent):
            self._check_tag(event.tag, "map", position)
            made.kind = "mapping"
            made.value = [
                (self.node(events, key, depth + 1), self.node(events, next(events), depth + 1))
                for key in _until(events, yaml.MappingEndEvent)
            ]
        made.whole = True
        return made

    def _aliased(self, event: yaml.AliasEvent, position: Position) -> _Node:
        anchor = str(event.anchor)
        target = self.anchors.get(anchor)
        if target is not None and target.whole:
            return target
        why = "is not defined before it" if target is None else "contains itself"
        self.problem(position, (), f"alias *{anchor}: its anchor {why}")
        return _Node("scalar", position, whole=True)

    def _check_tag(self, tag: str | None, expected: str, position: Position) -> None:
        if tag is not None and tag not in {"!", _TAG_PREFIX + expected}:
            shown = tag.replace(_TAG_PREFIX, "!!")[:80]
            self.problem(position, (), f"tag '{shown}' is not supported. Write the value plainly, without a tag")

    def _scalar(self, event: yaml.ScalarEvent, position: Position) -> Any:
        text = str(event.value)
        plain = bool(event.implicit[0]) and event.tag is None
        if not plain:
            self._check_tag(event.tag, "str", position)
            return text
        digits = len(text.strip("+-"))
        if digits > DIGITS_MAX and any(form.fullmatch(text) for form, _ in _INTEGERS):
            self.problem(position, (), f"a number of {digits} digits is out of any range here. Quote it to mean text")
            return text
        return _plain(text)

    # Nodes to data.

    def data(self, node: _Node, path: Path = ()) -> Any:
        self.nodes += 1
        if self.nodes > NODES_MAX or len(path) > DEPTH_MAX:
            raise _TooMuch(node.position, f"aliases expand to more than {NODES_MAX} values or {DEPTH_MAX} levels")
        self.values[path] = node.position
        if node.kind == "list":
            return [self.data(item, (*path, index)) for index, item in enumerate(node.value)]
        if node.kind == "mapping":
            return self._mapping(node, path)
        return node.value

    def _mapping(self, node: _Node, path: Path) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in node.value:
            if key.kind != "scalar":
                self.problem(key.position, path, f"a key must be text, not a {key.kind}")
            elif not isinstance(key.value, str):
                shown = json.dumps(key.value)
                self.problem(key.position, path, f'key {shown} is not text. Quote it: "{shown}"')
            elif key.value in made:
                line, _ = self.keys[(*path, key.value)]
                self.problem(key.position, (*path, key.value), f"this key is already set on line {line}. Keep one")
            else:
                here = (*path, key.value)
                self.keys[here] = key.position
                made[key.value] = self.data(value, here)
        return made


class _TooMuch(Exception):  # noqa: N818 - ends the reading of one file, within this module
    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position


def text_of(path: FilePath) -> tuple[bytes, str]:
    """A file's bytes and their text. Errors: ConfigError, with the one problem that it cannot be read."""
    try:
        with path.open("rb") as opened:
            raw = opened.read(BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, (), f"cannot be read: {error.strerror or error}")]) from error
    try:
        return raw, raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = "not UTF-8: save the file in that encoding"
        raise ConfigError([Problem(str(path), line, 1, (), message)]) from error


def read(text: str, file: str) -> Document:
    """Parse one document. Errors: never raises for its content; a syntax error is one problem, and the data None."""
    reader = _Reader(file)
    data: Any = None
    try:
        data = _read(reader, text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = (1, 1) if mark is None else (mark.line + 1, mark.column + 1)
        reader.problem(position, (), f"not YAML: {_why(text, position, error)}")
    except yaml.reader.ReaderError as error:
        reader.problem(_place(text, error.position), (), f"not YAML: {error.reason}")
    except UnicodeEncodeError as error:
        reader.problem(_place(text, error.start), (), "not YAML: a lone surrogate is no character")
    except _TooMuch as error:
        reader.problem(error.position, (), str(error))
    return Document(data, reader.keys, reader.values, tuple(reader.problems))


def _read(reader: _Reader, text: str) -> Any:
    if len(text) > BYTES_MAX:
        raise _TooMuch((1, 1), f"the file is larger than {BYTES_MAX // 1024 // 1024} MiB")
    events = yaml.parse(text, Loader=yaml.CSafeLoader)
    root: _Node | None = None
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            if root is not None:
                raise _TooMuch(_start(event), "a second document begins here. Keep one in a file")
            root = reader.node(events, next(events))
    return None if root is None else reader.data(root)


def _start(event: yaml.Event) -> Position:
    mark = event.start_mark
    return (1, 1) if mark is None else (mark.line + 1, mark.column + 1)


def _until(events: Iterator[yaml.Event], end: type[yaml.Event]) -> Iterator[yaml.Event]:
    for event in events:
        if isinstance(event, end):
            return
        yield event


def _plain(text: str) -> Any:
    """A plain scalar by the core schema of YAML 1.2. Source: yaml.org/spec/1.2.2, section 10.3.2."""
    if text in _NULL:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    for form, base in _INTEGERS:
        if form.fullmatch(text):
            return int(text if base == 10 else text[2:], base)
    if _FLOAT.fullmatch(text):
        return float(text)
    infinite = _INFINITE.fullmatch(text)
    if infinite is not None:
        return float(f"{infinite[1]}inf")
    return float("nan") if text in _NAN else text


def _why(text: str, position: Position, error: yaml.MarkedYAMLError) -> str:
    line, column = position
    if "".join(text.split("\n")[line - 1 : line])[column - 1 : column] == "\t":
        return "a tab begins here. Indent with spaces"
    context = f" {error.context}" if error.context else ""
    return f"{error.problem or 'it cannot be parsed'}{context}"


def _place(text: str, index: int) -> Position:
    before = text[:index]
    return before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1
