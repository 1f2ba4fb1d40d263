"""`penstock secrets`: provider credentials, sealed. It opens the store itself, whether a server runs or not."""

import getpass
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import click

from proxy.cli.options import EXIT_USAGE, fail, json_option, settings
from proxy.cli.progress import progress
from proxy.cli.stores import guarded, using
from proxy.cli.table import show

if TYPE_CHECKING:
    from proxy.core.envelope import Keyring
    from proxy.ports import SealedSecret, SecretStore
    from proxy.server.rotation import Rotated
    from proxy.server.settings import Settings

VALUE_CHARS_MAX: Final = 4096
TOLD_FROM_CHARS: Final = 12  # of a shorter value four characters would be too much of it
_Result = TypeVar("_Result")


class _Act(NamedTuple):
    """What the audit log says of a command. ``first``: what is done as soon as it is written down."""

    what: str
    subject: str
    first: Callable[[], None] = lambda: None


_SET_EPILOG = """\b
Example:
  penstock secrets set openai
  penstock secrets set OPENROUTER_API_KEY < key.txt
"""


@click.group(name="secrets", epilog="Example: penstock secrets set openai")
def command() -> None:
    """Seal provider credentials, list, remove and re-seal them.

    They are in PENSTOCK_DATA/trust.sqlite3, or in the database that DATABASE_URL names, sealed with the master key. A
    running server uses what was changed within a second. Exit code 1 if the store or the key cannot be had.
    """


@command.command("set", epilog=_SET_EPILOG)
@click.argument("name")
@json_option
def set_(name: str, as_json: bool) -> None:
    """Seal a credential under NAME, in the place of the one that has it.

    The value is read from standard input, or asked for on a terminal; it is never an argument. A provider without an
    `api_key` in the routes file finds it where NAME is the provider's id or its variable; others name it:
    `api_key: sealed:NAME`.
    """
    from proxy.server.rotation import put  # noqa: PLC0415 - not for --help

    _check_name(name)
    value = _value()

    async def sealed(store: "SecretStore", ring: "Keyring") -> None:
        await put(store, ring, name, value, int(time.time() * 1e6))
        told = {"name": name, "key_id": ring.current.id}
        click.echo(json.dumps(told) if as_json else f"{name} is sealed with the master key {ring.current.id}.")

    _sealing(sealed, _Act("secrets set", name))


@command.command("list", epilog="Example: penstock secrets list --json")
@json_option
def list_(as_json: bool) -> None:
    """List what is sealed: names, keys, times; of a value at most its last four characters."""
    from proxy.server.sealed import open_all  # noqa: PLC0415 - not for --help

    async def listed(store: "SecretStore", ring: "Keyring | None") -> None:
        held = await store.load()
        vault = open_all(held, ring)
        found = [
            _told(secret, vault.values.get(secret.name, ""), vault.unopened.get(secret.name)) for secret in held.secrets
        ]
        if as_json:
            click.echo(json.dumps(found, indent=2))
        elif found:
            rows = [
                tuple(one[name] or "-" for name in ("name", "key_id", "created", "ends_with", "problem"))
                for one in found
            ]
            show(("NAME", "MASTER KEY", "CREATED", "ENDS WITH", "PROBLEM"), rows)
        else:
            click.echo("Nothing is sealed. `penstock secrets set NAME` seals a credential.")

    _looking(listed)


@command.command("remove", epilog="Example: penstock secrets remove openai")
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove the secret NAME. Exit code 1 if there is none."""
    from proxy.core.nearest import did_you_mean  # noqa: PLC0415 - not for --help

    async def removed(store: "SecretStore", _ring: "Keyring | None") -> None:
        if not await store.remove(name):
            known = [secret.name for secret in (await store.load()).secrets]
            fail(f"there is no secret {name[:80]!r}.{did_you_mean(name, known)}")
        click.echo(json.dumps({"removed": name}) if as_json else f"{name} is removed.")

    _looking(removed, _Act("secrets remove", name))


@command.command("rotate", epilog="Example: penstock secrets rotate")
@json_option
def rotate(as_json: bool) -> None:
    """Seal every secret anew under a new master key, while servers run.

    A key in the data directory is replaced by a new one. One in the environment is yours to replace: start the servers
    with the new one in PENSTOCK_MASTER_KEY and the old one in PENSTOCK_MASTER_KEY_PREVIOUS, and run this with both. What
    was interrupted is gone on with by running it again. Exit code 1 if a secret is left that the keys here do not open.
    """
    from proxy.server.rotation import begin, finish, reseal  # noqa: PLC0415 - not for --help

    environment = settings()

    async def rotated(store: "SecretStore", ring: "Keyring") -> "Rotated":
        to_do = sum(secret.key_id != ring.current.id for secret in (await store.load()).secrets)
        with progress(to_do, "Sealing anew") as advance:
            return await reseal(store, ring, lambda: advance(1))

    done = _sealing(rotated, _Act("secrets rotate", "", lambda: begin(environment)))
    if not done.left:
        guarded(lambda: finish(environment))
    if as_json:
        told = {"key_id": done.key_id, "resealed": done.resealed, "secrets": done.secrets, "left": list(done.left)}
        click.echo(json.dumps(told))
    else:
        click.echo(
            f"{done.secrets - len(done.left)} of {done.secrets} secrets are sealed with the master key {done.key_id}."
        )
    if done.left:
        fail(
            f"{', '.join(done.left)}: the keys here do not open {'it' if len(done.left) == 1 else 'them'}. "
            "Set PENSTOCK_MASTER_KEY_PREVIOUS to the key before, or set the secret anew"
        )


def _check_name(name: str) -> None:
    import re  # noqa: PLC0415 - not for --help

    from proxy.config.scalars import SEALED_NAME  # noqa: PLC0415 - likewise

    if not re.fullmatch(SEALED_NAME, name):
        raise click.UsageError(
            "NAME is up to 64 letters, digits, '.', '_' and '-'."
        )  # what stands there may be a value


def _value() -> str:
    """What is to be sealed. Errors: ends the command with exit code 2; quotes nothing of it."""
    from proxy.config.credentials import is_sendable  # noqa: PLC0415 - not for --help

    asked = sys.stdin.isatty()
    given: str = click.prompt("Value", hide_input=True, err=True) if asked else sys.stdin.read(VALUE_CHARS_MAX + 1)
    value = given.strip()
    if not value:
        problem = "no value came on standard input"
    elif len(given) > VALUE_CHARS_MAX:
        problem = f"the value is longer than {VALUE_CHARS_MAX} characters"
    elif not is_sendable(value):
        problem = "the value holds a space or a character that no header can carry"
    else:
        return value
    click.echo(f"penstock: {problem}. Nothing was sealed.", err=True)
    sys.exit(EXIT_USAGE)


def _told(secret: "SealedSecret", value: str, problem: str | None) -> dict[str, str | None]:
    created = datetime.fromtimestamp(secret.created_us / 1e6, UTC).isoformat(timespec="seconds")
    ends_with = value[-4:] if len(value) >= TOLD_FROM_CHARS else None
    return {
        "name": secret.name,
        "key_id": secret.key_id,
        "created": created,
        "ends_with": ends_with,
        "problem": problem,
    }


def _sealing(work: "Callable[[SecretStore, Keyring], Awaitable[_Result]]", act: _Act) -> _Result:
    """Do something with the store and the keys; there is a master key, made where it is kept and was not."""
    from proxy.server.own_secrets import HOW_TO_MAKE_ONE  # noqa: PLC0415 - not for --help

    environment = settings()
    if environment.database_url is not None and environment.master_key is None:
        fail(
            "PENSTOCK_MASTER_KEY is not set, and DATABASE_URL is: the key must be in the environment, the same for "
            f"every instance. Make a good one with {HOW_TO_MAKE_ONE}"
        )

    async def done(store: "SecretStore", ring: "Keyring | None") -> _Result:
        assert ring is not None  # noqa: S101 - made where it may be, and refused above where it may not
        return await work(store, ring)

    return _looking(done, act, make=True)


def _looking(
    work: "Callable[[SecretStore, Keyring | None], Awaitable[_Result]]", act: _Act | None = None, *, make: bool = False
) -> _Result:
    """Do something with the store and those keys that there are. ``act``: what it changes. Errors: ends the command."""
    from proxy.server.sealed import keyring, store  # noqa: PLC0415 - not for --help

    environment = settings()

    async def worked(opened: "SecretStore") -> _Result:
        if act is not None:
            act.first()
        return await work(opened, keyring(environment, make=make))

    async def done(opened: "SecretStore") -> _Result:
        return await (worked(opened) if act is None else _recorded(environment, act, lambda: worked(opened)))

    return using(lambda: store(environment), done)


async def _recorded(environment: "Settings", act: _Act, work: Callable[[], Awaitable[_Result]]) -> _Result:
    from proxy.server.audit import CommandRecord, audit_log  # noqa: PLC0415 - not for --help

    log = audit_log(environment)
    try:
        return await CommandRecord(log, _user(), time.time).done(act.what, act.subject, work)
    finally:
        await log.close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        return str(os.getuid())
