"""Takes secrets out of text and bytes that leave the process: the last step before a client or a log sees them.

Known credentials are replaced wherever they stand. What merely looks like a key is replaced too, because providers quote
the credential that they refuse, whole or in part. The expressions are linear: one class of characters, no nesting.
"""

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "[redacted]"

_KEY_SHAPES: Final = re.compile(
    r"\b(?:sk|pk|rk|gsk|hf|xai|psk|csk|fw|pplx|tgp|AIza|ghp|github_pat)[-_]?[A-Za-z0-9*_\-]{12,256}"
)
_BEARER: Final = re.compile(r"([Bb]earer )[A-Za-z0-9._~+/=*\-]{8,512}")
_CREDENTIAL_LENGTH_MIN: Final = 6  # shorter ones would blank out ordinary words
_WRITTEN_LENGTH_MIN: Final = 8  # in lines that name providers: `ollama` is what many give Ollama for a key


def written_forms(secrets: Iterable[str]) -> tuple[str, ...]:
    """Secrets as they are, as JSON and as a repr write them: to look for in what is written already. The longest first."""
    import orjson  # noqa: PLC0415 - what only redacts need not load it

    known = {secret for secret in secrets if len(secret) >= _WRITTEN_LENGTH_MIN}
    known |= {form for secret in known for form in (orjson.dumps(secret).decode()[1:-1], repr(secret)[1:-1])}
    return tuple(sorted(known, key=len, reverse=True))


def text(value: str, credentials: Iterable[str] = ()) -> str:
    for credential in credentials:
        if len(credential) >= _CREDENTIAL_LENGTH_MIN:
            value = value.replace(credential, MASK)
    return _KEY_SHAPES.sub(MASK, _BEARER.sub(rf"\1{MASK}", value))


def body(value: bytes, credentials: Iterable[str] = (), *, shapes: bool = False) -> bytes:
    """A provider's body, byte for byte but for known credentials, and for what looks like one if ``shapes`` is set."""
    for credential in credentials:
        if len(credential) >= _CREDENTIAL_LENGTH_MIN:
            value = value.replace(credential.encode(), MASK.encode())
    return text(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape") if shapes else value
