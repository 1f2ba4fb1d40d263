"""`penstock audit`: what was done to the proxy and by whom, and whether the log is as it was written."""

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from proxy.cli import moments
from proxy.cli.options import EXIT_PROBLEMS, fail, json_option, settings, together
from proxy.cli.progress import progress
from proxy.cli.stores import using
from proxy.cli.table import plain, show

if TYPE_CHECKING:
    from proxy.core.audit import AuditEntry, AuditFilter, Noted
    from proxy.ports import AuditLog

PAGE: Final = 1000
_Result = TypeVar("_Result")


@click.group(name="audit", epilog="Example: penstock audit verify")
def command() -> None:
    """Read the audit log: PENSTOCK_DATA/trust.sqlite3, or the database that DATABASE_URL names.

    Nothing is changed, and a server may be running. Exit code 1 if it cannot be read.
    """


_filters: Final = together(  # the options that choose entries; `_wanted` reads them
    click.option("--actor", help="Only this actor: 'admin key', 'key:<id>', 'penstock' or 'nobody'."),
    click.option("--act", help="Only this act, such as 'POST /admin/breakers/reset'."),
    click.option("--subject", help="Only what was done to this."),
    click.option("--account", help="Only acts with keys of this account."),
    click.option("--since", type=click.DateTime(), help="Then or later, in UTC."),
    click.option("--until", type=click.DateTime(), help="Before then, in UTC."),
)


def _wanted(filters: dict[str, Any]) -> "AuditFilter":
    from proxy.core.audit import AuditFilter  # noqa: PLC0415 - not for --help

    return AuditFilter(**moments.span(filters))


@command.command(name="list", epilog="Example: penstock audit list --actor 'admin key' --since 2026-11-01")
@click.option("-n", "count", type=click.IntRange(1, 10_000), default=50, show_default=True, help="How many entries.")
@_filters
@json_option
def listed(count: int, as_json: bool, **filters: Any) -> None:
    """The last entries, the newest at the end. With --json one object a line."""
    from proxy.core.audit import document  # noqa: PLC0415 - not for --help

    wanted = _wanted(filters)
    entries = _read(lambda log: log.page(wanted, count)).entries[::-1]
    if as_json:
        for entry in entries:
            click.echo(json.dumps(document(entry)))
        return
    headers = ("NUMBER", "AT (UTC)", "ACTOR", "ACT", "SUBJECT", "OUTCOME", "FROM", "CHANGES")
    show(headers, [_cells(entry) for entry in entries])


def _cells(entry: "AuditEntry") -> tuple[str, ...]:
    act = entry.act
    of = "" if act.begun is None else f" ({act.begun})"
    changes = "" if act.changes == "{}" else act.changes
    cells = (act.actor, act.act, act.subject or "-", f"{act.outcome}{of}", act.peer or "-", changes)
    return (str(entry.number), moments.shown(act.at_us), *map(plain, cells))


def _noted(_context: click.Context, _option: click.Parameter, given: str | None) -> "Noted | None":
    from proxy.core.audit import noted_from  # noqa: PLC0415 - not for --help

    found = None if given is None else noted_from(given)
    if given is not None and found is None:
        raise click.BadParameter(f"{given[:80]!r} is none. Write NUMBER:HASH, as verify printed it")
    return found


@command.command(epilog="Example: penstock audit verify --noted 1042:9f86d081884c7d65...")
@click.option(
    "--noted", callback=_noted, metavar="NUMBER:HASH", help="A head that was printed earlier: is it still there?"
)
@json_option
def verify(noted: "Noted | None", as_json: bool) -> None:
    """Say whether any entry was changed, removed or moved. Exit code 1 if one was, or if the log cannot be read.

    It ends with the head, NUMBER:HASH. Note it where who can write to the store cannot, and give it to the next verify: by
    the store alone nobody can tell a log that was written anew as a whole, or cut together with its head.
    """
    from proxy.server.audit import verified  # noqa: PLC0415 - not for --help

    async def work(log: "AuditLog") -> Any:
        with progress((await log.head()).number, "verifying") as advance:
            return await verified(log, noted, advance)

    head, flaws = _read(work)
    if as_json:
        told = {
            "installation": head.installation,
            "entries": head.number,
            "head": str(head),
            "flaws": [flaw._asdict() for flaw in flaws],
        }
        click.echo(json.dumps(told, indent=2))
    else:
        for flaw in flaws:
            click.echo(f"entry {flaw.number}: {flaw.what}")
        state = f"{len(flaws)} flaws" if flaws else "as they were written"
        click.echo(f"{head.number} entries of installation {head.installation}: {state}")
        click.echo(f"head {head}")
    if flaws:
        sys.exit(EXIT_PROBLEMS)


@command.command(epilog="Example: penstock audit export --output audit.jsonl")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Default: standard output.")
def export(output: Path | None) -> None:
    """Every entry in its order, one JSON object a line, hashes included."""
    from proxy.core.audit import document  # noqa: PLC0415 - not for --help

    async def work(log: "AuditLog") -> int:
        last, place = (await log.head()).number, 0
        with (
            click.open_file("-" if output is None else str(output), "w", encoding="utf-8") as opened,
            progress(last if output is not None else 0, "exporting") as advance,
        ):
            while place < last and (entries := await log.read(place, PAGE)):
                opened.writelines(f"{json.dumps(document(entry))}\n" for entry in entries)
                place = entries[-1].number
                advance(len(entries))
        return place

    try:
        last = _read(work)
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    if output is not None:
        click.echo(f"{output}: entries up to {last}", err=True)


def _read(work: "Callable[[AuditLog], Awaitable[_Result]]") -> _Result:
    """The result of some reading. Errors: as `using`."""
    from proxy.server.audit import audit_log  # noqa: PLC0415 - not for --help

    environment = settings()
    return using(lambda: audit_log(environment, read_only=True), work)
