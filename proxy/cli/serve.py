"""`penstock serve`: the proxy itself."""

import os
import sys
from pathlib import Path

import click

from proxy.cli.options import config_option


@click.command()
@config_option
@click.option("--host", default="127.0.0.1", show_default=True, envvar="PENSTOCK_HOST", help="Address to listen on.")
@click.option(
    "--port",
    default=4020,
    show_default=True,
    envvar="PENSTOCK_PORT",
    type=click.IntRange(0, 65535),
    help="0: any free one.",
)
@click.option("--demo", is_flag=True, help="Add the built-in simulator to every route, even if providers are active.")
@click.option(
    "--drain",
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="How long running answers may take to finish after SIGTERM.",
)
def command(config: Path, host: str, port: int, demo: bool, drain: str) -> None:
    """Serve the routes on one base URL.

    With no provider key in the environment and no local server running, it starts in demo mode: a built-in simulator
    answers.

    \b
    Example:
      penstock serve --port 4020 --config config/routes.yaml
      curl -s http://127.0.0.1:4020/v1/models
    """
    from proxy.cli.announce import announcement  # noqa: PLC0415 - --help imports nothing heavy
    from proxy.config.listening import listening  # noqa: PLC0415
    from proxy.config.problem import ConfigError  # noqa: PLC0415
    from proxy.config.resolve import load  # noqa: PLC0415
    from proxy.core import duration  # noqa: PLC0415
    from proxy.server.serve import CannotServe, Options, run  # noqa: PLC0415

    drain_s = duration.parse(drain)
    if drain_s is None:
        raise click.BadParameter(f"{drain!r} is not a duration; write 60s, 500ms or 2m.", param_hint="--drain")
    try:
        table = load(config, os.environ, listening=listening(os.environ))
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    demo = demo or all(provider.inactive is not None for provider in table.providers.values())
    options = Options(config, host, port, demo=demo, drain_s=drain_s)
    try:
        run(options, table, lambda served, url: click.echo(announcement(served, url)))
    except CannotServe as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(1)
