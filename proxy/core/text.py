"""Text that any store takes."""

from typing import Final

REPLACEMENT: Final = "\ufffd"


def storable(text: str) -> str:
    """The text with U+FFFD for every NUL and lone surrogate: JSON lets both in, PostgreSQL and UTF-8 neither."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", REPLACEMENT).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
