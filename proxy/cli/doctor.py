"""`penstock doctor`: what is wrong around the proxy, before it is started or while it runs."""

import asyncio
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from proxy.cli.options import EXIT_PROBLEMS, config_option, json_option, settings
from proxy.cli.table import show

if TYPE_CHECKING:
    from proxy.core.checkup import Finding

_EPILOG: Final = """\b
Example:
  penstock doctor --config config/routes.yaml
  penstock doctor --live --json
"""


@click.command(epilog=_EPILOG)
@click.option("--live", "asks_providers", is_flag=True, help="Ask each active provider for its models; costs nothing.")
@config_option
@json_option
def command(asks_providers: bool, config: Path, as_json: bool) -> None:
    """Look at the routes file, keys, Redis, database, clocks, port, data directory and packages; say what to do.

    Nothing is changed, and a server may be running. Each finding is ok, a warning or a problem. Exit code 1 with a
    problem.
    """
    from proxy.core.checkup import Level, worst  # noqa: PLC0415 - not for --help

    findings = asyncio.run(_examined(config, asks_providers=asks_providers))
    bad = worst(findings) is Level.PROBLEM
    if as_json:
        told = [
            {"check": one.check, "level": one.level.value, "message": one.told, "do": one.do or None}
            for one in findings
        ]
        click.echo(json.dumps({"healthy": not bad, "findings": told}, indent=2))
    else:
        _show(findings)
    if bad:
        sys.exit(EXIT_PROBLEMS)


async def _examined(config: Path, *, asks_providers: bool) -> "list[Finding]":
    from proxy.cli import doctor_facts as facts  # noqa: PLC0415 - as above
    from proxy.config.listening import listening  # noqa: PLC0415
    from proxy.config.problem import ConfigError  # noqa: PLC0415
    from proxy.config.resolve import load  # noqa: PLC0415
    from proxy.core import checkup  # noqa: PLC0415

    environment = settings()
    findings: list[Finding] = []
    try:
        table = load(config, os.environ, listening=listening(os.environ))
    except ConfigError as error:
        do = "Put it right; `penstock check` shows the same."
        findings += [checkup.problem("config", str(one), do) for one in error.problems]
    else:
        findings.append(checkup.ok("config", f"{config} is valid: {len(table.routes)} routes"))
        findings += [*facts.table(table), *facts.credentials(table)]
        if asks_providers:
            findings += await facts.live(table)
    findings += facts.environment(os.environ)
    findings += [*facts.data(environment.data), *await facts.redis(environment.redis_url)]
    findings += await facts.database(environment)
    findings += [*facts.descriptors(), facts.port(environment), facts.package()]
    return findings


def _show(findings: "Iterable[Finding]") -> None:
    from proxy.cli.admin_client import printable  # noqa: PLC0415 - not for --help
    from proxy.core.checkup import Level  # noqa: PLC0415

    order = [Level.PROBLEM, Level.WARNING, Level.OK]
    ranked = sorted(findings, key=lambda one: order.index(one.level))
    show(
        ("LEVEL", "CHECK", "FOUND", "WHAT TO DO"),
        [(one.level.value, one.check, printable(one.told), printable(one.do)) for one in ranked],
    )
    counts = {level: sum(one.level is level for one in ranked) for level in order}
    click.echo(", ".join(f"{count} {level.value}" for level, count in counts.items()))
