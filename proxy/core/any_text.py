"""Any text in JSON: what was read from a header may hold lone surrogates, which JSON's UTF-8 has no place for.

ASCII stays as it is; other text is written as the Latin-1 reading of its bytes.
"""


def packed(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "surrogatepass").decode("latin-1")


def unpacked(text: str) -> str:
    """Raises `ValueError` for what `packed` has not made."""
    return text if text.isascii() else text.encode("latin-1").decode("utf-8", "surrogatepass")
