"""`penstock check`: every problem of the routes file, at once."""

import json
import os
import sys
from pathlib import Path

import click

from proxy.cli.options import EXIT_PROBLEMS, config_option, json_option, tell, vault


@click.command(epilog="Example: penstock check --config config/routes.yaml && systemctl restart penstock")
@config_option
@json_option
def command(config: Path, as_json: bool) -> None:
    """Say what is wrong with the configuration, and where. Exit code 1 if anything is, 2 if there is no file."""
    from proxy.config.listening import listening  # noqa: PLC0415 - not for --help
    from proxy.config.problem import ConfigError, dotted  # noqa: PLC0415
    from proxy.config.resolve import load  # noqa: PLC0415

    try:
        table = load(config, os.environ, listening=listening(os.environ), vault=vault())
    except ConfigError as error:
        if as_json:
            problems = [
                {"line": one.line, "column": one.column, "path": dotted(one.path), "message": one.message}
                for one in error.problems
            ]
            click.echo(json.dumps({"file": str(config), "problems": problems}, indent=2))
        else:
            tell(error)
        sys.exit(EXIT_PROBLEMS)
    active = sum(provider.inactive is None for provider in table.providers.values())
    if as_json:
        counts = {"routes": len(table.routes), "providers": len(table.providers), "active": active}
        click.echo(json.dumps({"file": str(config), **counts, "problems": []}, indent=2))
        return
    click.echo(f"{config}: {len(table.routes)} routes, {len(table.providers)} providers ({active} active), 0 problems")
