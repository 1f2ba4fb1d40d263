"""`penstock keys`: the virtual keys of the running server."""

import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import click

from proxy.cli.options import EXIT_USAGE, json_option, together, url_option
from proxy.cli.table import show

_EXAMPLES: Final = """\b
Examples:
  penstock keys create "nightly search" --account acme --route voice --route 'openai/*' --daily 5
  penstock keys list --account acme
  penstock keys rotate GdkP8s0QvA1x --grace 1h
  penstock keys revoke GdkP8s0QvA1x
"""
_HEADERS: Final = ("KEY", "NAME", "ACCOUNT", "ROLE", "STATE", "ROUTES", "LIMITS", "BUDGETS", "EXPIRES", "CREATED")
_ROLES: Final = ("user", "viewer", "admin")
_STATES: Final = ("active", "expired", "revoked")
_LIMITS: Final = ("rps", "burst", "tpm", "concurrency")
_LIMIT_HELP: Final = {
    "rps": "Requests a second.",
    "burst": "Requests at once.",
    "tpm": "Tokens a minute.",
    "concurrency": "Requests under way.",
}


@click.group(name="keys", epilog=_EXAMPLES)
def command() -> None:
    """Make, list, change, rotate and revoke the virtual keys of the running server.

    Clients show a virtual key instead of a provider's. It has an account, a role, and what it may ask for and spend. It is
    shown whole once, when it is made.
    """


_fields: Final = together(  # what a key may be made with and changed to
    click.option("--role", type=click.Choice(_ROLES), help="viewer and admin may also use /admin/keys."),
    click.option(
        "--route", "routes", multiple=True, help="May be asked for: a route or <provider>/<model>, with one *."
    ),
    *(click.option(f"--{name}", type=float if name == "rps" else int, help=_LIMIT_HELP[name]) for name in _LIMITS),
    click.option("--daily", metavar="USD", help="What it may spend a day."),
    click.option("--monthly", metavar="USD", help="What it may spend a month."),
    click.option("--expires", metavar="WHEN", help="In a while (30d, 12h), or a day or time (2027-01-31)."),
    click.option("--tag", "tags", multiple=True, metavar="A=B", help="Kept with each request in the ledger."),
    click.option("--cache", type=click.Choice(("account", "key")), help="With whom it shares cached answers."),
)


@command.command(epilog="Example: penstock keys create batch --expires 30d --rps 5 --monthly 100")
@click.argument("name")
@click.option("--account", help="Whom its requests belong to. Default: the account default.")
@_fields
@click.option("--passthrough", is_flag=True, help="May ask paths without a route, such as /v1/files.")
@json_option
@url_option
def create(name: str, account: str | None, as_json: bool, url: str | None, **fields: Any) -> None:
    """Make a key called NAME, and print it: standard output is the key alone.

    It is kept nowhere. Whoever loses it rotates it.
    """
    body = {"name": name, **_body(fields)} | ({} if account is None else {"account": account})
    _show_secret(_asked("POST", "", url, body), as_json=as_json)


@command.command(name="list", epilog="Example: penstock keys list --account acme --state active")
@click.option("--account", help="Only this account's.")
@click.option("--state", type=click.Choice(_STATES), help="Only those in it.")
@json_option
@url_option
def list_(account: str | None, state: str | None, as_json: bool, url: str | None) -> None:
    """List all keys, the newest first: none whole, each with its id and its last four letters."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while True:
        given = {"account": account, "state": state, "after": after, "limit": 1000}
        page = _asked("GET", _query(given), url)
        found += page["keys"]
        after = page["next"]
        if after is None:
            break
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        show(_HEADERS, [_cells(key) for key in found])
    else:
        click.echo("There are no such keys: `penstock keys create NAME` makes one.")


@command.command(name="show", epilog="Example: penstock keys show GdkP8s0QvA1x --json")
@click.argument("key_id", metavar="ID")
@json_option
@url_option
def show_(key_id: str, as_json: bool, url: str | None) -> None:
    """Show one key. Exit code 1 if there is none with this ID."""
    _show(_asked("GET", _path(key_id), url)["key"], as_json=as_json)


@command.command(epilog="Example: penstock keys change GdkP8s0QvA1x --daily 10 --clear routes")
@click.argument("key_id", metavar="ID")
@click.option("--name", help="What it is for.")
@_fields
@click.option("--passthrough/--no-passthrough", default=None, help="May ask paths without a route.")
@click.option(
    "--clear",
    multiple=True,
    type=click.Choice(("routes", "limits", "budgets", "expires", "tags")),
    help="Take it away: all routes, no limits of its own, ...",
)
@json_option
@url_option
def change(key_id: str, name: str | None, clear: Sequence[str], as_json: bool, url: str | None, **fields: Any) -> None:
    """Change what is named, and nothing else. Limits and budgets are replaced whole.

    A change holds within a second. Exit code 1 if there is no key with this ID.
    """
    cleared = {{"expires": "expires_at"}.get(one, one): None for one in clear}
    said = _body(fields) | ({} if name is None else {"name": name})
    if both := sorted(cleared.keys() & said.keys()):
        raise click.UsageError(f"{', '.join(both)} cannot be set and cleared at once.")
    if not cleared and not said:
        raise click.UsageError("Say what to change, for instance --daily 10 or --clear routes.")
    _show(_asked("PATCH", _path(key_id), url, {**cleared, **said})["key"], as_json=as_json)


@command.command(epilog="Example: penstock keys revoke GdkP8s0QvA1x")
@click.argument("key_id", metavar="ID")
@json_option
@url_option
def revoke(key_id: str, as_json: bool, url: str | None) -> None:
    """Let nobody in with it any more, for ever. It holds within a second.

    Exit code 1 if there is no key with this ID.
    """
    told = _asked("DELETE", _path(key_id), url)["key"]
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(f"Revoked: {_line(told)}")


@command.command(epilog="Example: penstock keys rotate GdkP8s0QvA1x --grace 1h")
@click.argument("key_id", metavar="ID")
@click.option("--grace", metavar="TIME", default="0s", show_default=True, help="For how long the old secret goes on.")
@json_option
@url_option
def rotate(key_id: str, grace: str, as_json: bool, url: str | None) -> None:
    """Give a key a new secret, and print it: standard output is the key alone. Its ID, rights and spend stay.

    Exit code 1 if there is no key with this ID.
    """
    from proxy.core import duration  # noqa: PLC0415 - not for --help

    grace_s = duration.parse(grace)
    if grace_s is None or grace_s != int(grace_s):
        raise click.UsageError(f"--grace: expected whole seconds, such as 90s, 10m or 1h, got {grace[:40]!r}.")
    _show_secret(_asked("POST", f"{_path(key_id)}/rotate", url, {"grace_s": int(grace_s)}), as_json=as_json)


def _asked(method: str, path: str, url: str | None, body: dict[str, Any] | None = None) -> Any:
    from proxy.cli.admin_client import asked  # noqa: PLC0415 - not for --help

    return asked(method, f"/admin/keys{path}", url=url, body=body)


def _path(key_id: str) -> str:
    from urllib.parse import quote  # noqa: PLC0415 - not for --help

    from proxy.core.virtual_key import KEY_CHARS, PREFIX  # noqa: PLC0415 - likewise

    if key_id.startswith(PREFIX) and len(key_id) == KEY_CHARS:
        click.echo("penstock: this is a whole key. Name it by its ID, the 12 letters after psk-.", err=True)
        sys.exit(EXIT_USAGE)
    return f"/{quote(key_id, safe='', errors='replace')}"


def _query(given: dict[str, Any]) -> str:
    from urllib.parse import urlencode  # noqa: PLC0415 - not for --help

    return "?" + urlencode({name: value for name, value in given.items() if value is not None}, errors="replace")


def _body(fields: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as members of a body."""
    body = {name: fields[name] for name in ("role", "cache", "passthrough") if fields[name] is not None}
    limits = {name: fields[name] for name in _LIMITS if fields[name] is not None}
    budgets = {name: fields[name] for name in ("daily", "monthly") if fields[name] is not None}
    body |= {"routes": list(fields["routes"])} if fields["routes"] else {}
    body |= {"limits": limits} if limits else {}
    body |= {"budgets": budgets} if budgets else {}
    body |= {"tags": _tags(fields["tags"])} if fields["tags"] else {}
    body |= {"expires_at": _expiry(fields["expires"])} if fields["expires"] is not None else {}
    return body


def _tags(given: Sequence[str]) -> dict[str, str]:
    for one in given:
        if "=" not in one:
            raise click.UsageError(f"--tag: expected NAME=VALUE, got {one[:40]!r}.")
    return {name: value for name, _, value in (one.partition("=") for one in given)}


def _expiry(given: str) -> str | int:
    """A while from now; whatever else it may be, the server judges."""
    from proxy.core import duration  # noqa: PLC0415 - not for --help

    while_s = duration.parse(given)
    return given if while_s is None else int(time.time() + while_s)


def _show_secret(told: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(told["secret"])
    click.echo(f"penstock: {_line(told['key'])}. It is shown this once.", err=True)


def _line(key: dict[str, Any]) -> str:
    from proxy.cli.admin_client import printable  # noqa: PLC0415 - not for --help

    return f"{key['id']} ({printable(key['name'])}), account {key['account']}, role {key['role']}"


def _show(key: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(key, indent=2))
    else:
        show(_HEADERS, [_cells(key)])


def _cells(key: dict[str, Any]) -> tuple[str, ...]:
    from proxy.cli.admin_client import printable  # noqa: PLC0415 - not for --help

    if key["state"] == "unreadable":
        return (key["id"], *("?" for _ in _HEADERS[1:4]), key["state"], *("?" for _ in _HEADERS[5:]))
    return (
        f"{key['id']}...{key['last4']}",
        printable(key["name"]),
        key["account"],
        key["role"],
        key["state"],
        "all" if key["routes"] is None else " ".join(map(printable, key["routes"])),
        _told(key["limits"], _LIMITS),
        _told(key["budgets"], ("daily", "monthly")),
        key["expires_at"] or "never",
        key["created_at"],
    )


def _told(given: dict[str, Any] | None, names: Sequence[str]) -> str:
    said = [f"{name} {given[name]:g}" for name in names if given[name] is not None] if given else []
    return ", ".join(said) or "-"
