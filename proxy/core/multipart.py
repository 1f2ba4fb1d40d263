"""The `model` field of a multipart/form-data body, found as the bytes pass: only its value changes, all else is untouched.

`FormScanner` is fed the body in any chunking and remembers where the field's value stands. It keeps no more of a body than
half a delimiter, or the head of the part that it is in.

States: PREAMBLE (nothing but the first delimiter may come), EDGE (behind a delimiter), HEAD (of a part), VALUE (of a part),
END (behind the last delimiter). What two parsers could read differently is refused rather than guessed: bytes before the
first delimiter or behind the last one, a boundary within a line, a second `model`, a name that is spelled
with escapes or in an extended form. What we route by must be what the provider obeys.

Deliberately not handled: what stands in the other fields, nested multiparts, transfer encodings (RFC 7578 has none).

Held by `tests/core/test_multipart.py`: any chunking of a body against the standard library's email parser.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

HEAD_BYTES_MAX: Final = 8 * 1024  # of one part
PARTS_MAX: Final = 1000
MODEL_BYTES_MAX: Final = 2048
BOUNDARY_CHARS_MAX: Final = 70  # RFC 2046, section 5.1.1

_BOUNDARY: Final = re.compile(r"[A-Za-z0-9'()+_,\-./:=?]+(?: [A-Za-z0-9'()+_,\-./:=?]+)*")
_PARAMETER: Final = re.compile(r';\s*([A-Za-z0-9!#$&+.^_`|~*-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)\s*')
_CRLF: Final = b"\r\n"
_BLANK: Final = b"\r\n\r\n"


class FormError(ValueError):
    """The body is not a form that we can act on. The message says what was expected and what was got."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class _State(Enum):
    PREAMBLE = auto()
    EDGE = auto()
    HEAD = auto()
    VALUE = auto()
    END = auto()


@dataclass(frozen=True, slots=True)
class Patch:
    """Put ``value`` in the place of the bytes from ``start`` to ``end`` of the body."""

    start: int
    end: int
    value: bytes

    @property
    def growth(self) -> int:
        return len(self.value) - (self.end - self.start)


def boundary_of(content_type: str) -> bytes | None:
    """The boundary that a content-type names; None where it is no multipart/form-data, or names none that is usable."""
    media_type, _, _ = content_type.partition(";")
    if media_type.strip().lower() != "multipart/form-data":
        return None
    named = [value for name, value in _parameters(content_type) if name == "boundary"]
    if len(named) != 1 or len(named[0]) > BOUNDARY_CHARS_MAX or not _BOUNDARY.fullmatch(named[0]):
        return None
    return named[0].encode("ascii")


class FormScanner:
    """One body on its way. ``model`` is None until the field's whole value has come."""

    __slots__ = ("_boundary", "_delimiter", "_held", "_is_model", "_offset", "_parts", "_state", "model", "model_span")

    def __init__(self, boundary: bytes) -> None:
        self._boundary = boundary
        self._delimiter = b"\r\n--" + boundary
        self._held = _CRLF  # the first delimiter has no line before it; this stands for one
        self._offset = -len(_CRLF)  # of the first byte held
        self._state = _State.PREAMBLE
        self._is_model = False
        self._parts = 0
        self.model: str | None = None
        self.model_span: tuple[int, int] | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body. Raises `FormError`."""
        self._held = self._held + chunk if self._held else chunk
        while self._step():
            continue

    def finish(self) -> None:
        """The body is over. Raises `FormError` where the form is not."""
        if self._state is not _State.END:
            raise FormError("The multipart body is cut: its closing boundary is missing.")

    def patch(self, model: str) -> Patch:
        """What makes `model` the form's model: of a body without that field, once it is over, a part at its front."""
        value = model.encode()
        if self.model_span is not None:
            return Patch(*self.model_span, value)
        head = b"--" + self._boundary + b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'
        return Patch(0, 0, head + value + _CRLF)

    def _step(self) -> bool:
        """Take one element of what is held; whether there may be another."""
        match self._state:
            case _State.PREAMBLE:
                return self._take_first_delimiter()
            case _State.EDGE:
                return self._take_edge()
            case _State.HEAD:
                return self._take_head()
            case _State.VALUE:
                return self._take_value()
            case _State.END:
                if self._held.strip(_CRLF):
                    raise FormError("The multipart body goes on behind its closing boundary.")
                self._drop(len(self._held))
                return False

    def _take_first_delimiter(self) -> bool:
        if len(self._held) < len(self._delimiter):
            if not self._delimiter.startswith(self._held):
                raise self._no_delimiter()
            return False
        if not self._held.startswith(self._delimiter):
            raise self._no_delimiter()
        self._drop(len(self._delimiter))
        self._state = _State.EDGE
        return True

    def _no_delimiter(self) -> FormError:
        return FormError("The multipart body does not begin with the boundary that its content-type names.")

    def _take_edge(self) -> bool:
        if len(self._held) < 2:
            return False
        edge = self._held[:2]
        if edge not in (_CRLF, b"--"):
            raise FormError("A boundary of the multipart body is followed by something else than a line's end.")
        if edge == b"--":
            self._drop(2)
            self._state = _State.END
            return True
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise FormError(f"The multipart body has more than {PARTS_MAX} parts.")
        self._state = _State.HEAD  # the line's end is kept: of a part without headers it is half of the blank line
        return True

    def _take_head(self) -> bool:
        end = self._held.find(_BLANK)
        if end < 0:
            if len(self._held) > HEAD_BYTES_MAX:
                raise FormError(f"The head of part {self._parts} is larger than {HEAD_BYTES_MAX} bytes.")
            return False
        self._is_model = _is_model(self._held[2:end], self._parts)
        if self._is_model and self.model_span is not None:
            raise FormError("The form field 'model' stands twice; send it once.", "model")
        self._drop(end + len(_BLANK))
        self._state = _State.VALUE
        return True

    def _take_value(self) -> bool:
        mark = self._held.find(self._delimiter[2:])
        if self._is_model and (mark if mark >= 0 else len(self._held) - len(self._delimiter)) > MODEL_BYTES_MAX:
            raise FormError(f"The form field 'model' is longer than {MODEL_BYTES_MAX} bytes.", "model")
        if mark < 0:
            if not self._is_model:
                self._drop(max(0, len(self._held) - len(self._delimiter) + 1))
            return False
        if self._held[max(0, mark - 2) : mark] != _CRLF:
            raise FormError("The multipart body holds its boundary within a line.")  # a delimiter to lenient parsers
        if self._is_model:
            self._note_model(self._held[: mark - 2])
        self._drop(mark + len(self._delimiter) - 2)
        self._state = _State.EDGE
        return True

    def _note_model(self, value: bytes) -> None:
        try:
            model = value.decode()
        except UnicodeDecodeError:
            raise FormError("The form field 'model' is not UTF-8.", "model") from None
        if not model.isprintable():
            raise FormError(f"The form field 'model' must be one line of text, got {model[:40]!r}.", "model")
        self.model = model
        self.model_span = self._offset, self._offset + len(value)

    def _drop(self, count: int) -> None:
        self._held = self._held[count:]
        self._offset += count


def _is_model(head: bytes, number: int) -> bool:
    """Whether a part's head makes it the field `model`."""
    lines = head.split(_CRLF)
    if any(b"\r" in line or b"\n" in line or line[:1] in (b" ", b"\t") for line in lines):
        raise FormError(f"The head of part {number} of the form has a folded line, or one that does not end with CRLF.")
    dispositions = [line for line in lines if line.lower().startswith(b"content-disposition")]
    if len(dispositions) != 1:
        raise FormError(f"Part {number} of the form needs one content-disposition, got {len(dispositions)}.")
    name, colon, text = dispositions[0].decode("latin-1").partition(":")
    if name.lower() != "content-disposition" or not colon or text.partition(";")[0].strip().lower() != "form-data":
        raise FormError(f"Part {number} of the form needs a content-disposition of the kind form-data.")
    given = _parameters(text)
    names = [value for key, value in given if key.rstrip("*0123456789") == "name"]
    if len(names) != 1 or not any(key == "name" for key, _ in given):
        raise FormError(f"Part {number} of the form needs one name, got {len(names)}.")
    if re.sub(r"\\(.)", r"\1", names[0]) != "model":
        return False
    # A value in another encoding would be one model for us and another for the provider.
    encoded = any(line.lower().startswith(b"content-transfer-encoding") for line in lines)
    if names[0] != "model" or encoded or any(key.startswith("filename") for key, _ in given):
        raise FormError("The form field 'model' must be plain text under its plain name.", "model")
    return True


def _parameters(text: str) -> list[tuple[str, str]]:
    """The parameters of a header value, names in lower case, quotes removed and escapes left as they are."""
    found = []
    for name, value in _PARAMETER.findall(text):
        found.append((name.lower(), value[1:-1] if value.startswith('"') else value))
    return found
