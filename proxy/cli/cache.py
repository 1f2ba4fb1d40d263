"""`penstock cache`: what the running server's cache holds, how to make it forget, and how to fill it."""

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import click

from proxy.cli.explain_cache import span
from proxy.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_PROBLEMS,
    client_url_option,
    concurrency_option,
    fail,
    json_option,
    key_option,
    settings,
    url_option,
)
from proxy.cli.table import show

_MIB: Final = 1024 * 1024
_HEADERS: Final = (
    *("WHERE", "ENTRIES", "SIZE", "OF", "HITS", "COALESCED", "MISSES", "REFRESHED", "BYPASSED", "HIT RATE", "SAVED"),
)
_EXAMPLES: Final = """\b
Examples:
  penstock cache stats
  penstock cache invalidate --route qualification --tag team=search
  penstock cache warm questions.jsonl --concurrency 5
"""


@click.group(name="cache", epilog=_EXAMPLES)
def command() -> None:
    """Show, empty and warm the cache of the running server.

    A route keeps answers where the routes file says for how long: cache: {ttl: 1h}.
    """


@command.command(epilog="Example: penstock cache stats --json")
@json_option
@url_option
def stats(as_json: bool, url: str | None) -> None:
    """Show what the cache holds, and what it has done in the process that answers, since it started.

    Exit code 1 if its store cannot be reached.
    """
    from proxy.cli.admin_client import asked  # noqa: PLC0415 - not for --help

    told: dict[str, Any] = asked("GET", "/admin/cache", url=url)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        show(_HEADERS, [_cells(told)])
        click.echo("")
        _show_routes(told["routes"])
    if told["away"] is not None:
        click.echo(f"penstock: the cache's store cannot be reached: {told['away']}", err=True)
        sys.exit(EXIT_PROBLEMS)


def _cells(told: dict[str, Any]) -> tuple[str, ...]:
    from proxy.core.currency import Currency, shown  # noqa: PLC0415 - not for --help

    currency = Currency(told["currency"]["code"], Decimal(str(told["currency"]["per_usd"])))
    return (
        told["where"],
        "?" if told["entries"] is None else str(told["entries"]),
        _size(told["bytes"]),
        _size(told["bytes_max"]),
        *(str(told[name]) for name in ("hits", "coalesced", "misses", "refreshed", "bypassed")),
        "-" if told["hit_rate"] is None else f"{told['hit_rate']:.1%}",
        shown(told["saved_nanousd"], currency),
    )


def _size(given: int | None) -> str:
    return "?" if given is None else f"{given / _MIB:.1f} MiB"


def _show_routes(routes: list[dict[str, Any]]) -> None:
    if not routes:
        click.echo("No route keeps answers: one does with cache: {ttl: 1h} in the routes file.")
        return
    rows = [(one["route"], span(one["ttl_s"]), "kept" if one["tool_calls"] else "-", one["replay"]) for one in routes]
    show(("ROUTE", "KEPT FOR", "TOOL CALLS", "REPLAY"), rows)


@command.command(epilog="Example: penstock cache invalidate --route qualification --tag team=search")
@click.option("--route", help="Answers of this route.")
@click.option("--tag", metavar="NAME=VALUE", help="Answers to requests with this tag of x-penstock-tags.")
@click.option("--account", help="Answers to this account.")
@click.option("--pattern", help="Answers whose route, model or <provider>/<model> is like this: gpt-*.")
@click.option("--all", "everything", is_flag=True, help="All answers; asks first on a terminal.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@url_option
def invalidate(everything: bool, yes: bool, as_json: bool, url: str | None, **given: str | None) -> None:
    """Serve no answer any more that all the given options select, in every process at once."""
    selector: dict[str, object] = {name: value for name, value in given.items() if value is not None}
    if everything == bool(selector):
        raise click.UsageError("Say which answers with --route, --tag, --account or --pattern, or else --all.")
    if everything:
        selector = {"all": True}
        if not yes and sys.stdin.isatty():
            click.confirm("Drop every answer of every route and account?", abort=True, err=True)
    from proxy.cli.admin_client import asked, printable  # noqa: PLC0415 - not for --help

    told: dict[str, Any] = asked("POST", "/admin/cache/invalidate", url=url, body=selector)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    count = told["invalidated"]
    whose = " and ".join(f"{name} {printable(value)}" for name, value in told["selector"].items()) or "all"
    click.echo(f"Dropped {count} answer{'' if count == 1 else 's'}: {whose}")
    if told.get("hint"):
        click.echo(f"penstock: {printable(told['hint'])}", err=True)


@command.command(epilog="Example: penstock cache warm questions.jsonl --concurrency 5")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@concurrency_option(4, most=32)
@key_option
@click.option("--account", metavar="ID", help="The account whose answers they are; takes the admin key.")
@json_option
@client_url_option
def warm(*, file: Path, concurrency: int, key: str | None, account: str | None, as_json: bool, url: str | None) -> None:
    """Send the requests of FILE to the server as a client, so that their answers are in its cache.

    Each line of FILE is a chat body, or a line of OpenAI's batch form: {"method": "POST", "url": "/v1/responses",
    "body": {...}}. Nothing is sent if a line is neither. What is not in the cache yet costs what it costs.

    Exit code 0 if every answer is in the cache now, 1 if one is not.
    """
    from proxy.cli import cache_warm, client  # noqa: PLC0415 - not for --help
    from proxy.cli.admin_client import NoAnswer, address, warn_of_clear  # noqa: PLC0415
    from proxy.cli.progress import progress  # noqa: PLC0415
    from proxy.cli.request_file import BadFile  # noqa: PLC0415

    try:
        total = cache_warm.count(file)
        where = address(url, settings(), admin=False)
        if key:
            warn_of_clear("the key", where)
        with progress(total, "warming") as advance:
            tally = cache_warm.run(file, where, client.shown(key or None, account), concurrency, lambda: advance(1))
    except (NoAnswer, BadFile) as problem:
        fail(problem)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    told = tally.document("line")
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        _show_warmed(told)
    if not tally.is_clean:
        sys.exit(EXIT_PROBLEMS)


def _show_warmed(told: dict[str, Any]) -> None:
    counts = ("requests", "warmed", "hit", "not_kept", "failed")
    show(("REQUESTS", "WARMED", "HIT ALREADY", "NOT KEPT", "FAILED"), [tuple(str(told[name]) for name in counts)])
    for one in told["reasons"]:
        what = " ".join(str(part) for part in (one["status"], one["code"]) if part is not None)
        click.echo(f"line {one['line']}: {f'{what}: ' if what else ''}{one['message']}", err=True)
    more = told["not_kept"] + told["failed"] - len(told["reasons"])
    if more:
        click.echo(f"and {more} more", err=True)
