"""`penstock bench`: latency, tokens a second, errors and cost of routes and targets, through a running server."""

import json
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from proxy.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_PROBLEMS,
    client_url_option,
    concurrency_option,
    config_option,
    fail,
    json_option,
    key_option,
    loaded,
    settings,
)
from proxy.cli.table import show

if TYPE_CHECKING:
    from proxy.cli.bench_report import Row

_EPILOG: Final = """\b
Example:
  penstock bench general openai/gpt-4o-mini --prompts prompts.jsonl --requests 20 --concurrency 4 --budget 0.50
"""
_HEADERS: Final = (
    "NAME",
    "REQUESTS",
    "ERRORS",
    "FIRST P50",
    "FIRST P95",
    "TOTAL P50",
    "TOTAL P95",
    "TOKENS/S",
    "COST USD",
)


def _nanousd(_context: click.Context, _option: click.Parameter, given: str) -> int:
    try:
        amount = Decimal(given)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or not 0 <= amount <= 10**6:
        raise click.BadParameter(f"{given!r} is no amount of USD; write 0.50")
    return int(amount * 10**9)


@click.command(epilog=_EPILOG)
@click.argument("names", metavar="[ROUTE|TARGET]...", nargs=-1)
@click.option(
    "--prompts",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A line each: a chat body, a line of the batch form, or a question as text. Default: three short questions.",
)
@click.option("--requests", type=click.IntRange(1, 100_000), default=10, show_default=True, help="To each of them.")
@concurrency_option(2, most=256)
@click.option(
    "--budget",
    default="1.00",
    show_default=True,
    metavar="USD",
    callback=_nanousd,
    help="It ends before this is passed.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(1, 1_000_000),
    default=256,
    show_default=True,
    help="The output cap of a prompt that sets none.",
)
@config_option
@key_option
@json_option
@client_url_option
def command(
    *,
    names: tuple[str, ...],
    file: Path | None,
    requests: int,
    concurrency: int,
    budget: int,
    max_tokens: int,
    config: Path,
    key: str | None,
    as_json: bool,
    url: str | None,
) -> None:
    """Ask each ROUTE and TARGET in turn, streamed, and show how they do; without any, each route of the server.

    What a request may cost at most, by the routes file and the price list here, is held before it is sent: what could pass
    the budget is left out. Kept answers are not taken, and none is kept.

    Exit code 0 if everything was asked and answered, 1 if not.
    """
    from proxy.cli import bench_run  # noqa: PLC0415 - not for --help
    from proxy.cli.admin_client import NoAnswer, address, warn_of_clear  # noqa: PLC0415
    from proxy.cli.progress import progress  # noqa: PLC0415
    from proxy.config.pricing import with_price_list  # noqa: PLC0415

    rows: list[Row] = []
    try:
        where = address(url, settings(), admin=False)
        if key:
            warn_of_clear("the key", where)
        bench = bench_run.Bench(
            where,
            key or None,
            bench_run.prompts(file),
            requests,
            concurrency,
            max_tokens,
            budget,
            with_price_list(loaded(config)),
        )
        with progress(requests * len(names), "asking", lambda: _note(rows)) as advance:
            bench.run(names, rows, lambda: advance(1))
    except (NoAnswer, bench_run.BadPrompts) as problem:
        fail(problem)
    except KeyboardInterrupt:
        _tell(rows, as_json=as_json)
        sys.exit(EXIT_INTERRUPTED)
    _tell(rows, as_json=as_json)
    if any(row.unsent or len(row.good) < len(row.samples) for row in rows):
        sys.exit(EXIT_PROBLEMS)


def _spent(rows: "list[Row]") -> int:
    return sum(sample.spent_nanousd for row in rows for sample in row.samples)


def _note(rows: "list[Row]") -> str:
    return f"{_spent(rows) / 10**9:.4f} USD"


def _tell(rows: "list[Row]", *, as_json: bool) -> None:
    from proxy.core.budget import usd  # noqa: PLC0415 - not for --help

    found = [row.document() for row in rows]
    if as_json:
        click.echo(json.dumps({"results": found, "spent_usd": usd(_spent(rows))}, indent=2))
        return
    show(
        _HEADERS,
        [
            (
                one["name"],
                str(one["requests"]),
                str(one["errors"]),
                *(_ms(one[of], at) for of in ("first_event_ms", "total_ms") for at in ("p50", "p95")),
                "-" if one["tokens_per_s"] is None else f"{one['tokens_per_s']:.1f}",
                one["cost_usd"],
            )
            for one in found
        ],
    )
    for one in found:
        for why, count in one["reasons"].items():
            click.echo(f"{one['name']}: {count} x {why}", err=True)
        if one["assumed_usd"] != usd(0):
            click.echo(f"{one['name']}: up to {one['assumed_usd']} USD more, for answers that told no cost", err=True)
    if unsent := sum(one["unsent"] for one in found):
        click.echo(
            f"{unsent} requests were left out, since they could have passed the budget: raise --budget", err=True
        )


def _ms(spread: dict[str, float] | None, at: str) -> str:
    return "-" if spread is None else f"{spread[at]:.0f} ms"
