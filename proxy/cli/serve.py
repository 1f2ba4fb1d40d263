"""`penstock serve`: the proxy itself."""

import os
import sys
from pathlib import Path

import click

from proxy.cli.options import config_option, settings


@click.command()
@config_option
@click.option(
    "--host",
    show_default="PENSTOCK_HOST, else 127.0.0.1",
    help="Address to listen on.",
)
@click.option(
    "--port",
    show_default="PENSTOCK_PORT, else 4020",
    type=click.IntRange(0, 65535),
    help="0: any free one.",
)
@click.option(
    "--admin-port",
    show_default="PENSTOCK_ADMIN_PORT, else the same port",
    type=click.IntRange(0, 65535),
    help="Serve /admin on a port of its own, and nowhere else.",
)
@click.option(
    "--metrics-port",
    show_default="PENSTOCK_METRICS_PORT, else none",
    type=click.IntRange(0, 65535),
    help="Serve /metrics on a port of its own too, without a key.",
)
@click.option(
    "--metrics-host",
    show_default="PENSTOCK_METRICS_HOST, else 127.0.0.1",
    help="Address of that port. Whoever can reach it can read the metrics.",
)
@click.option("--demo", is_flag=True, help="Add the built-in simulator to every route, even if providers are active.")
@click.option(
    "--drain",
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="How long running answers may take to finish after SIGTERM.",
)
def command(
    *,
    config: Path,
    host: str | None,
    port: int | None,
    admin_port: int | None,
    metrics_port: int | None,
    metrics_host: str | None,
    demo: bool,
    drain: str,
) -> None:
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
    from proxy.config.pricing import with_price_list  # noqa: PLC0415
    from proxy.config.problem import ConfigError  # noqa: PLC0415
    from proxy.config.resolve import blueprint  # noqa: PLC0415
    from proxy.core import duration  # noqa: PLC0415
    from proxy.server.hardening import keep_secrets_in  # noqa: PLC0415
    from proxy.server.sealed import SealedRefused, at_start  # noqa: PLC0415
    from proxy.server.serve import PROBE_EVERY_S, CannotServe, Options, Sealed, run  # noqa: PLC0415

    drain_s = duration.parse(drain)
    if drain_s is None:
        raise click.BadParameter(f"{drain!r} is not a duration; write 60s, 500ms or 2m.", param_hint="--drain")
    environment = settings()
    keep_secrets_in(os.environ)
    try:
        plan = blueprint(config, dict(os.environ), listening=listening(os.environ))
        vault = at_start(environment, needed=plan.names_sealed)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except SealedRefused as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(1)
    known = Sealed(vault, lambda found: with_price_list(plan.table(found)))
    table = known.table(vault)
    demo = demo or not table.is_active
    is_open = table.open_access and environment.api_key is None
    options = Options(
        config,
        host=host or environment.host,
        port=environment.port if port is None else port,
        demo=demo,
        drain_s=drain_s,
        admin_port=environment.admin_port if admin_port is None else admin_port,
        admin_hosts=environment.admin_hosts,
        probe_every_s=PROBE_EVERY_S,
        metrics_port=environment.metrics_port if metrics_port is None else metrics_port,
        metrics_host=metrics_host or environment.metrics_host,
    )
    try:
        run(
            options,
            environment,
            table,
            lambda served, url: click.echo(announcement(served, url, is_open=is_open)),
            known=known,
        )
    except CannotServe as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(1)
