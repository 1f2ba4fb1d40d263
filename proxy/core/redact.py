"""Takes secrets out of text and bytes that leave the process: the last step before a client or a log sees them.

Known credentials are replaced wherever they stand. What merely looks like a key is replaced too, because providers quote
the credential that they refuse, whole or in part. The expressions are linear: one class of characters, no nesting.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

MASK: Final = "[redacted]"

_KEY_SHAPES: Final = re.compile(
    r"\b(?=[Abcfghnprstxy])(?:sk|pk|rk|gsk|hf|xai|psk|csk|fw|pplx|tgp|AIza|ghp|gho|ghs|github_pat|nvapi|glpat|xox[abprs]|AKIA|ASIA"
    r"|ya29\.|AQ\.|bce-v3/)"
    r"[-_]?[A-Za-z0-9*_\-]{12,256}"
)
_WORD_LENGTH_MIN: Final = 14  # two letters that say whose it is, and twelve
# What no key is made of parts words: all bytes but those in `_KEY_SHAPES`.
_WORDS: Final = bytes(
    byte if byte in b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz*_-./" else ord(" ")
    for byte in range(256)
)
_BEARER: Final = re.compile(r"([Bb]earer )[A-Za-z0-9._~+/=*\-]{8,512}")
_BASIC: Final = re.compile(r"([Bb]asic )(?=[A-Za-z+/]{0,64}[0-9=])[A-Za-z0-9+/=]{8,512}")  # no word has a figure
# Three parts in base64url, of which the first begins as a JSON object does.
_JWT: Final = re.compile(r"\beyJ[A-Za-z0-9_\-]{8,2048}\.[A-Za-z0-9_\-]{2,4096}(?:\.[A-Za-z0-9_\-]{0,1024})?")
# What stands between the scheme and the @ of a URL: a name and a password, or the password alone.
_USERINFO: Final = re.compile(r"(://[^\s/@:\"'<>\\]{0,128}:)[^\s/@\"'<>\\]{1,256}@")
_NAMED: Final = re.compile(
    r"([?&; ](?:api[_-]?key|key|access[_-]?token|token|secret|password|passwd|pwd)=)[^\s&;,\"'<>\\]{6,512}",
    re.IGNORECASE,
)
_WEBHOOK: Final = re.compile(r"(hooks\.slack\.com/)[A-Za-z0-9/_\-]{8,256}")
_LOOKED_AT_CHARS_MAX: Final = 4096
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
    # A look for a few letters costs a tenth of an expression, and most texts have none of these.
    if "earer " in value:
        value = _BEARER.sub(rf"\1{MASK}", value)
    if "asic " in value:
        value = _BASIC.sub(rf"\1{MASK}", value)
    if "eyJ" in value:
        value = _JWT.sub(MASK, value)
    if "://" in value:
        value = _USERINFO.sub(rf"\1{MASK}@", value)
    if "=" in value:
        value = _NAMED.sub(rf"\1{MASK}", value)
    if "hooks.slack.com" in value:
        value = _WEBHOOK.sub(rf"\1{MASK}", value)
    return _KEY_SHAPES.sub(MASK, value) if _may_hold_a_key(value) else value


def _may_hold_a_key(value: str) -> bool:
    """A look at the long words alone: a log line has three of them, and the expression costs 20 us a line."""
    words = value.encode("utf-8", "surrogatepass").translate(_WORDS).split()
    return any(_KEY_SHAPES.search(word.decode("ascii")) for word in words if len(word) >= _WORD_LENGTH_MIN)


def cut(value: str, chars_max: int) -> str:
    """At most so much of a client's own words: masked first, because half a secret looks like none.

    What hides one in percent form is masked whole.
    """
    bounded = value[:_LOOKED_AT_CHARS_MAX]
    if "%" in bounded and text(decoded := unquote(bounded)) != decoded:
        return MASK
    return text(bounded)[:chars_max]


def body(value: bytes, credentials: Iterable[str] = (), *, shapes: bool = False) -> bytes:
    """A provider's body, byte for byte but for known credentials, and for what looks like one if ``shapes`` is set."""
    for credential in credentials:
        if len(credential) >= _CREDENTIAL_LENGTH_MIN:
            value = value.replace(credential.encode(), MASK.encode())
    return text(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape") if shapes else value


def passwords_of(url: str) -> tuple[str, ...]:
    """The password in a URL, as it is written there and as it is meant."""
    try:
        password = urlsplit(url).password
    except ValueError:
        return ()
    return tuple(dict.fromkeys((password, unquote(password)))) if password else ()
