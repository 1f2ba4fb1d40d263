"""`penstock ledger`: what was used and what it cost, read from the store itself, beside a running server."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from proxy.cli import moments
from proxy.cli.currency import currency_options
from proxy.cli.options import fail, json_option, settings, together
from proxy.cli.progress import progress
from proxy.cli.stores import using
from proxy.cli.table import plain, show

if TYPE_CHECKING:
    from proxy.core.currency import Currency
    from proxy.core.forecast import Band, Forecast
    from proxy.core.ledger import LedgerFilter, LedgerRow
    from proxy.core.rollup import Measures
    from proxy.core.summary import Summary
    from proxy.ports import Ledger

FOLLOW_S: Final = 0.5
_DIMENSIONS: Final = ("provider", "model", "route", "account", "virtual_key", "tag")
_VALUES_SHOWN: Final = 15
_Result = TypeVar("_Result")


@click.group(name="ledger", epilog="Example: penstock ledger summary --days 30 --by model")
def command() -> None:
    """Read the ledger: PENSTOCK_DATA/ledger.sqlite3, or the database that DATABASE_URL names.

    Nothing is changed, and a server may be running. Exit code 1 if the ledger cannot be read.
    """


def _tag(_context: click.Context, _option: click.Parameter, given: str | None) -> tuple[str, str] | None:
    if given is None:
        return None
    name, equals, value = given.partition("=")
    if not equals or not name.strip():
        raise click.BadParameter(f"{given!r} is no tag. Write name=value")
    return name, value


_account_option: Final = click.option("--account", help="Only this account.")


_filters: Final = together(  # the options that choose rows; `_wanted` reads them
    _account_option,
    click.option("--key", "virtual_key", help="Only this virtual key, by its id."),
    click.option("--route", help="Only this route."),
    click.option("--provider", help="Only this provider."),
    click.option("--model", help="Only this model."),
    click.option("--outcome", help="ok, refused, failed, partial, client_cancelled or interrupted."),
    click.option("--status", type=int, help="Only this status."),
    click.option("--code", help="Only this error code."),
    click.option("--tag", callback=_tag, metavar="NAME=VALUE", help="Only requests with this tag."),
    click.option("--since", type=click.DateTime(), help="Started then or later, in UTC."),
    click.option("--until", type=click.DateTime(), help="Started before then, in UTC."),
)


def _wanted(filters: dict[str, Any]) -> "LedgerFilter":
    from proxy.core.ledger import LedgerFilter  # noqa: PLC0415 - not for --help

    return LedgerFilter(**moments.span(filters))


@command.command(epilog="Example: penstock ledger summary --days 30 --by model --by tag --currency CAD=1.38")
@click.option(
    "--days", type=click.IntRange(1, 3660), default=7, show_default=True, help="How many days, today included."
)
@click.option("--by", multiple=True, type=click.Choice(_DIMENSIONS), help="Which tables to show; may be repeated.")
@_account_option
@currency_options
@json_option
def summary(days: int, by: tuple[str, ...], account: str | None, currency: "Currency", as_json: bool) -> None:
    """Calls, tokens, costs, savings, rates and latencies, from the daily roll-ups (days are UTC)."""
    from proxy.core.summary import document, last_days  # noqa: PLC0415 - not for --help

    span = last_days(days, _today())
    found = _read(lambda ledger: ledger.summary(span, account))
    if as_json:
        click.echo(json.dumps(document(found, currency), indent=2))
    else:
        _show_summary(found, by or ("provider", "model", "route"), currency)


def _show_summary(found: "Summary", by: tuple[str, ...], currency: "Currency") -> None:
    from proxy.core.summary import day_text  # noqa: PLC0415 - not for --help

    whose = f", account {found.account}" if found.account else ""
    click.echo(f"{day_text(found.span.first_day)} to {day_text(found.span.last_day)} (UTC){whose}")
    show(("", *_HEADERS), [("total", *_cells(found.total, currency))])
    if found.total.unpriced:
        click.echo(f"{found.total.unpriced} calls have no known price: their cost is missing here.")
    for dimension in by:
        values = found.by[dimension]
        click.echo("")
        rows = [(plain(value) or "-", *_cells(measured, currency)) for value, measured in values[:_VALUES_SHOWN]]
        show((dimension.upper(), *_HEADERS), rows)
        if len(values) > _VALUES_SHOWN:
            click.echo(f"and {len(values) - _VALUES_SHOWN} more; --json has them all")
    click.echo("")
    show(("DAY", *_HEADERS), [(day_text(day), *_cells(measured, currency)) for day, measured in found.days])


_HEADERS: Final = (
    "CALLS",
    "ERRORS",
    "INPUT",
    "OUTPUT",
    "COST",
    "SAVED",
    "VS BASELINE",
    "CACHE",
    "FIRST P50/P95",
    "TOTAL P50/P95",
    "TOKENS/S",
)


def _cells(m: "Measures", currency: "Currency") -> tuple[str, ...]:
    from proxy.core.currency import shown  # noqa: PLC0415 - not for --help
    from proxy.core.summary import share, tokens_per_s  # noqa: PLC0415

    return (
        str(m.calls),
        _percent(share(m.failed, m.calls)),
        str(m.input_tokens),
        str(m.output_tokens),
        shown(m.cost_nanousd, currency),
        shown(m.saved_nanousd, currency),
        shown(m.baseline_nanousd - m.baseline_cost_nanousd, currency) if m.baseline_nanousd else "-",
        _percent(share(m.cache_hits, m.cache_lookups)),
        _quantiles(m.first_event),
        _quantiles(m.total),
        "-" if (speed := tokens_per_s(m)) is None else f"{speed:.0f}",
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _quantiles(packed: int) -> str:
    from proxy.core.histogram import quantile  # noqa: PLC0415 - not for --help

    median, high = quantile(packed, 0.5), quantile(packed, 0.95)
    return "-" if median is None or high is None else f"{median:.0f}/{high:.0f} ms"


@command.command(epilog="Example: penstock ledger forecast --horizon-days 30 --monthly-budget 1000")
@click.option("--horizon-days", type=click.IntRange(1, 366), default=30, show_default=True)
@click.option("--monthly-budget", type=click.FloatRange(min=0), metavar="USD", help="Say on which day it runs out.")
@_account_option
@currency_options
@json_option
def forecast(
    horizon_days: int, monthly_budget: float | None, account: str | None, currency: "Currency", as_json: bool
) -> None:
    """What spending will be: trend and weekday pattern of the last eight weeks, with a 90 % interval."""
    from proxy.core.forecast import Cap, document, foretell, looked_at, spent_by_day  # noqa: PLC0415 - not for --help
    from proxy.core.window import Period  # noqa: PLC0415

    today = _today()
    days = _read(lambda ledger: ledger.days(looked_at(today), account))
    caps = () if monthly_budget is None else (Cap(None, Period.MONTHLY, round(monthly_budget * 10**9)),)
    found = foretell(spent_by_day(days), today, horizon_days=horizon_days, caps=caps)
    if as_json:
        click.echo(json.dumps(document(found, currency, account), indent=2))
    else:
        _show_forecast(found, currency)


def _show_forecast(found: "Forecast", currency: "Currency") -> None:
    from proxy.core.currency import shown  # noqa: PLC0415 - not for --help

    def cells(band: "Band") -> tuple[str, str]:
        interval = (
            "-"
            if band.low is None or band.high is None
            else f"{shown(band.low, currency)} to {shown(band.high, currency)}"
        )
        return shown(band.expected, currency), interval

    if found.note is not None:
        click.echo(f"{found.note}\n")
    show(
        ("", "EXPECTED", "90 % INTERVAL"),
        [
            ("spent this month", shown(found.spent_this_month, currency), ""),
            ("this month", *cells(found.current_month)),
            ("next month", *cells(found.next_month)),
            (f"next {len(found.days)} days", *cells(found.total)),
        ],
    )
    for one in found.exhausted:
        when = "not in these days, nor this month" if one.on is None else one.on.isoformat()
        click.echo(f"\nThe {one.cap.period.value} budget of {shown(one.cap.nanousd, currency)} runs out: {when}")
    click.echo("")
    show(("DAY", "EXPECTED", "90 % INTERVAL"), [(day.isoformat(), *cells(band)) for day, band in found.days])


@command.command(epilog="Example: penstock ledger tail -n 50 --outcome failed --follow")
@click.option("-n", "count", type=click.IntRange(0, 10_000), default=20, show_default=True, help="How many rows.")
@click.option("-f", "--follow", is_flag=True, help="Go on with new rows until interrupted.")
@_filters
@json_option
def tail(count: int, follow: bool, as_json: bool, **filters: Any) -> None:
    """The last rows, the newest at the end. With --json one object a line."""
    wanted = _wanted(filters)

    async def work(ledger: "Ledger") -> None:
        place = await ledger.newest_seq()
        rows = (await ledger.page(wanted, count)).rows[::-1] if count else ()
        _show_rows(rows, as_json, headers=True)
        seen = {one.id for one in rows}
        while follow:
            found = await ledger.booked(place, 500, wanted)
            place = found[-1].seq if found else place
            _show_rows([one.row for one in found if one.row.id not in seen], as_json, headers=False)
            if not found:
                await asyncio.sleep(FOLLOW_S)

    _read(work)


def _show_rows(rows: "tuple[LedgerRow, ...] | list[LedgerRow]", as_json: bool, *, headers: bool) -> None:
    from proxy.core.ledger_document import document  # noqa: PLC0415 - not for --help

    if as_json:
        for row in rows:
            click.echo(json.dumps(document(row)))
        return
    cells = [_row_cells(row) for row in rows]
    if headers:
        show(("STARTED (UTC)", "ID", "OUTCOME", "STATUS", "ACCOUNT", "TARGET", "TOKENS", "COST", "MS"), cells)
        return
    for one in cells:
        click.echo("  ".join(one))


def _row_cells(row: "LedgerRow") -> tuple[str, ...]:
    from proxy.core.currency import shown  # noqa: PLC0415 - not for --help

    target = f"{row.provider}/{row.model}" if row.provider else "-"
    about = "~" if row.estimated else ""
    return (
        moments.shown(row.started_us),
        plain(row.id),
        plain(row.outcome if row.code is None else f"{row.outcome}: {row.code}"),
        str(row.status or "-"),
        plain(row.account),
        plain(target),
        f"{about}{row.input_tokens}+{row.output_tokens}",
        "?" if row.cost_source == "unknown" else shown(row.cost_nanousd),
        f"{row.total_ms:.0f}",
    )


@command.command(name="show", epilog="Example: penstock ledger show req_5f2c9a0b1d3e4f5061728394")
@click.argument("exchange_id", metavar="ID")
@currency_options
@json_option
def one(exchange_id: str, currency: "Currency", as_json: bool) -> None:
    """Show one row: ID is an answer's x-request-id, its own or the client's (then the latest). Exit code 1: no such row."""
    from proxy.core.ledger_document import document  # noqa: PLC0415 - not for --help

    row = _read(lambda ledger: ledger.row(exchange_id))
    if row is None:
        fail(f"the ledger has no row with the id or request id {exchange_id[:80]!r}.")
    told = document(row, currency)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    told["tags"] = ", ".join(f"{name}={value}" for name, value in row.tags)
    for name in ("cost", "saved", "baseline"):
        told[name] = None if told[name] is None else f"{told[name]} {currency.code}"
    show(("FIELD", "VALUE"), [(name, plain(_told(value))) for name, value in told.items()])


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None or value == "" else str(value)


@command.command(epilog="Example: penstock ledger export --format csv --since 2026-01-01 --output january.csv")
@click.option("--format", "form", type=click.Choice(("csv", "jsonl", "parquet")), default="csv", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Default: standard output.")
@_filters
def export(form: str, output: Path | None, **filters: Any) -> None:
    """Every row, in the order in which they were booked. Parquet needs pyarrow and --output."""
    from proxy.cli.ledger_export import CannotExport, writer  # noqa: PLC0415 - not for --help

    wanted = _wanted(filters)
    try:
        writing = writer(form, output)
    except CannotExport as error:
        fail(error)

    async def work(ledger: "Ledger") -> int:
        last = await ledger.newest_seq()
        place = written = 0
        with writing as write, progress(last if output is not None else 0, "exporting") as advance:
            while place < last and (found := await ledger.booked(place, 2000, wanted)):
                rows = [one.row for one in found if one.seq <= last]  # what comes meanwhile is for the next export
                write(rows)
                written += len(rows)
                advance(found[-1].seq - place)
                place = found[-1].seq
        return written

    try:
        written = _read(work)
    except OSError as error:
        fail(f"{output}: {error.strerror}")
    if output is not None:
        click.echo(f"{output}: {written} rows", err=True)


def _read(work: "Callable[[Ledger], Awaitable[_Result]]") -> _Result:
    """The result of some reading. Errors: as `using`."""
    from proxy.server.books import ledger  # noqa: PLC0415 - not for --help

    environment = settings()
    return using(lambda: ledger(environment, read_only=True), work)


def _today() -> date:
    return datetime.now(UTC).date()
