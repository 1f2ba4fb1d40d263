"""How a command reaches a running server: its address, the admin key, one request, and what to do when it fails.

The standard library's client, which reads no proxy from the environment and follows no redirect: the key goes where it was
sent.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, urlsplit

import click

from proxy.cli.options import fail, settings
from proxy.server import own_secrets
from proxy.server.settings import PORT, Settings

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

WAIT_S: Final = 10.0  # for each read of an answer that a server has at hand
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
TOLD_CHARS_MAX: Final = 500
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_ELSEWHERE: Final = "Is it another program's port? Name Penstock's with --url or PENSTOCK_URL."


class NoAnswer(Exception):  # noqa: N818 - a message for whoever ran the command
    """The server gave no answer that can be used. The message says why and what to do; it holds no key."""


def asked(method: str, path: str, *, url: str | None, body: Mapping[str, object] | None = None) -> Any:
    """What the running server's admin API answers. ``url``: what `--url` said. Errors: a message, and exit code 1."""
    environment = settings()
    try:
        where, key = address(url, environment), held_key(environment)
        warn_of_clear("the admin key", where)
        return ask(method, path, where, key, body)
    except NoAnswer as problem:
        fail(problem)


def warn_of_clear(what: str, where: "Address") -> None:
    if where.scheme == "http" and where.host not in _LOOPBACK:
        click.echo(f"penstock: {what} goes to {where} in clear; use https where others can listen.", err=True)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. ``prefix``: the path that it is mounted at, mostly empty."""

    scheme: str
    host: str
    port: int | None
    prefix: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{'' if self.port is None else f':{self.port}'}{self.prefix}"


def address(given: str | None, environment: Settings, *, admin: bool = True) -> Address:
    """The server's: as given, as PENSTOCK_URL says, or this machine's. A base URL for SDKs, which ends in /v1, will do.

    ``admin``: whether its admin API is meant, which may have a port of its own.
    """
    here = (environment.admin_port if admin else None) or environment.port or PORT
    text = given or environment.url or f"http://127.0.0.1:{here}"
    who = "--url" if given else "PENSTOCK_URL"
    parts, port = _split(text, who)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or "@" in parts.netloc
        or parts.query
        or parts.fragment
    ):
        raise _no_url(who)
    prefix = parts.path.rstrip("/").removesuffix("/v1").removesuffix("/admin")
    return Address(parts.scheme, parts.hostname, port, prefix)


def _split(text: str, who: str) -> tuple[SplitResult, int | None]:
    if not text.isascii() or not text.isprintable() or " " in text:
        raise _no_url(who)
    try:
        return (parts := urlsplit(text)), parts.port
    except ValueError:
        raise _no_url(who) from None


def _no_url(who: str) -> NoAnswer:
    return NoAnswer(f"{who}: expected a URL such as http://127.0.0.1:{PORT}, without user name and query.")


def held_key(environment: Settings) -> own_secrets.Held:
    """The admin key of this environment; never makes one."""
    secret = own_secrets.ADMIN_KEY
    try:
        held = own_secrets.find(secret, environment.admin_key, environment.data)
    except (own_secrets.SecretRefused, own_secrets.SecretUnavailable) as problem:
        raise NoAnswer(str(problem)) from None
    if held is None:
        path = environment.data / secret.file
        raise NoAnswer(
            f"there is no admin key: {secret.variable} is not set, and there is no {path}, which `penstock serve` makes. "
            "Start it here, or set PENSTOCK_DATA to the data directory of the one that runs."
        )
    return held


def ask(method: str, path: str, where: Address, key: own_secrets.Held, body: Mapping[str, object] | None = None) -> Any:
    """One request, and the JSON of its answer. Raises `NoAnswer`."""
    from http.client import HTTPException, IncompleteRead  # noqa: PLC0415 - 20 ms, not for --help

    connection = _connection(where)
    headers = {"authorization": f"Bearer {key.value}", "accept": "application/json", "user-agent": "penstock-cli"}
    if body is not None:
        headers["content-type"] = "application/json"
    try:
        connection.request(method, where.prefix + path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        raw = answer.read(ANSWER_BYTES_MAX + 1)
    except TimeoutError:
        raise NoAnswer(f"no answer from {where} within {WAIT_S:.0f} s.") from None
    except IncompleteRead:
        raise _cut(where) from None
    except HTTPException:
        raise NoAnswer(f"what listens at {where} does not speak HTTP as a server does. {_ELSEWHERE}") from None
    except (OSError, UnicodeError) as error:  # UnicodeError: a host name that no resolver takes
        raise unreached(where, error) from None
    finally:
        connection.close()
    if answer.length or len(raw) > ANSWER_BYTES_MAX:
        raise _cut(where)
    return _document(answer, raw, where, key, path)


def _cut(where: Address) -> NoAnswer:
    return NoAnswer(f"the answer of {where} was cut, or is larger than {ANSWER_BYTES_MAX // 1024 // 1024} MiB.")


def _connection(where: Address) -> "HTTPConnection":
    from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - as above

    kind = HTTPSConnection if where.scheme == "https" else HTTPConnection
    return kind(where.host, where.port, timeout=WAIT_S)


def unreached(where: Address, error: OSError | UnicodeError) -> NoAnswer:
    """What to say where no connection came about."""
    if isinstance(error, ConnectionRefusedError):
        return NoAnswer(
            f"nothing listens at {where}. Start the server with `penstock serve`, or name one that runs with --url or "
            "PENSTOCK_URL."
        )
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return NoAnswer(f"{where} cannot be reached: {printable(why)}. Is --url or PENSTOCK_URL right?")


def _document(answer: "HTTPResponse", raw: bytes, where: Address, key: own_secrets.Held, path: str) -> Any:
    document: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        document = json.loads(raw)
    if answer.status == 200 and isinstance(document, dict):
        return document
    if not message_of(document):
        raise NoAnswer(f"what answers at {where} (with {answer.status}) is not Penstock. {_ELSEWHERE}")
    raise _refused(answer.status, document, where, key, path)


def _refused(status: int, document: Any, where: Address, key: own_secrets.Held, path: str) -> NoAnswer:
    told, code = message_of(document), code_of(document)
    match status:
        case 401 | 429:
            return NoAnswer(
                f"the server at {where} does not take the admin key of {key.origin}. "
                "Set PENSTOCK_ADMIN_KEY to the server's, or PENSTOCK_DATA to its data directory, where admin.key is."
            )
        case 404 if code == "key_not_found":  # the path is there, and what it names is not
            return NoAnswer(told)
        case 404:
            return NoAnswer(
                f"the Penstock at {where} has no {path}: it is of another version than this command, or its admin API is "
                "on a port of its own (--admin-port)."
            )
        case _:
            return NoAnswer(f"the server at {where} answered {status}: {told}")


def code_of(document: Any) -> object:
    """The code of an error in the API's form; None where it is none."""
    error = document.get("error") if isinstance(document, dict) else None
    return error.get("code") if isinstance(error, dict) else None


def message_of(document: Any) -> str:
    """The message of an error in the API's form, fit for a terminal."""
    error = document.get("error") if isinstance(document, dict) else None
    message = error.get("message") if isinstance(error, dict) else None
    return printable(message) if isinstance(message, str) else ""


def printable(text: str) -> str:
    """Without what would steer the terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:TOLD_CHARS_MAX])
