"""A multipart body read as it comes: its fields, and of each file how long it is and its hash. No file is kept."""

import hashlib
from dataclasses import dataclass, field
from typing import Final

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

FIELD_BYTES_MAX: Final = 256 * 1024  # a prompt is the longest field there is: OpenAI takes 32,000 characters
PARTS_MAX: Final = 1000
MULTIPART: Final = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class File:
    """A part that has a file's name. ``sha256`` is hexadecimal."""

    name: str
    filename: str
    content_type: str
    size: int
    sha256: str


@dataclass(slots=True)
class Form:
    """Shapes: ``fields`` by name, each with every value that it was given; ``files`` in their order. ``problem`` says what
    is wrong with the body, where it is no form.
    """

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    problem: str | None = None


class FormReader:
    """``form`` fills as parts end."""

    __slots__ = ("_hash", "_parser", "_segment", "_value", "form")

    def __init__(self, content_type: str) -> None:
        self.form = Form()
        self._segment: MultipartSegment | None = None
        self._value = bytearray()
        self._hash = hashlib.sha256()
        self._parser: PushMultipartParser | None = None
        _, options = parse_options_header(content_type)  # type: ignore[no-untyped-call] # the one without annotations
        boundary = options.get("boundary")
        if not boundary:
            self.form.problem = "its content-type names no boundary"
            return
        self._parser = PushMultipartParser(boundary, max_segment_count=PARTS_MAX)

    def feed(self, data: bytes) -> None:
        """``b""``: the body has ended."""
        if self.form.problem is not None or self._parser is None:
            return
        try:
            for event in self._parser.parse(data):
                if isinstance(event, MultipartSegment):
                    self._segment = event
                elif event:
                    self._take(bytes(event))
                else:
                    self._end_part()
        except MultipartError as error:
            self.form.problem = str(error)

    def _take(self, data: bytes) -> None:
        if self._segment is not None and self._segment.filename is not None:
            self._hash.update(data)
            return
        self._value += data
        if len(self._value) > FIELD_BYTES_MAX:
            raise MultipartError(f"a field is longer than {FIELD_BYTES_MAX} bytes")

    def _end_part(self) -> None:
        segment = self._segment
        if segment is None:
            return
        name = segment.name or ""
        if segment.filename is None:
            self.form.fields.setdefault(name, []).append(self._value.decode(errors="replace"))
            self._value.clear()
        else:
            content_type = segment.content_type or ""
            sha256 = self._hash.hexdigest()
            self.form.files.append(File(name, segment.filename, content_type, segment.size, sha256))
            self._hash = hashlib.sha256()
        self._segment = None
