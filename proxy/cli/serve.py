"""`penstock serve`: the proxy itself."""

import json
import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from proxy.cli.options import config_option, json_option, settings

if TYPE_CHECKING:
    from proxy.core.routing import RoutingTable
    from proxy.server.serve import Options
    from proxy.server.settings import Settings


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
@click.option(
    "--workers",
    show_default="PENSTOCK_WORKERS, else this process alone",
    type=click.IntRange(1, 64),
    help="Keep so many worker processes on the port; more than one needs REDIS_URL.",
)
@click.option("--demo", is_flag=True, help="Add the built-in simulator to every route, even if providers are active.")
@click.option(
    "--drain",
    default="60s",
    show_default=True,
    metavar="DURATION",
    help="How long running answers may take to finish after SIGTERM.",
)
@click.option(
    "--grace",
    default="3s",
    show_default=True,
    metavar="DURATION",
    help="How long of that new requests are still served, for load balancers to notice.",
)
@json_option
@click.option("--worker", hidden=True, help="What a worker has of its supervisor.")
def command(
    *,
    config: Path,
    host: str | None,
    port: int | None,
    admin_port: int | None,
    metrics_port: int | None,
    metrics_host: str | None,
    workers: int | None,
    demo: bool,
    drain: str,
    grace: str,
    as_json: bool,
    worker: str | None,
) -> None:
    """Serve the routes on one base URL.

    With no provider key in the environment and no local server running, it starts in demo mode: a built-in simulator
    answers. A change to the routes file is served within two seconds, if nothing is wrong with it.

    \b
    Example:
      penstock serve --port 4020 --config config/routes.yaml
      curl -s http://127.0.0.1:4020/v1/models
    """
    from proxy.server.cannot_serve import CannotServe  # noqa: PLC0415 - --help imports nothing heavy

    environment = settings()
    host = host or environment.host
    port = environment.port if port is None else port
    admin_port = environment.admin_port if admin_port is None else admin_port
    metrics_port = environment.metrics_port if metrics_port is None else metrics_port
    metrics_host = metrics_host or environment.metrics_host
    workers = workers or environment.workers
    drain_s, grace_s = _duration(drain, "--drain"), _duration(grace, "--grace")
    try:
        if workers is not None and worker is None:
            flags = [*(["--demo"] if demo else []), *(["--json"] if as_json else [])]
            arguments = ["--config", str(config), "--workers", str(workers), "--drain", drain, "--grace", grace, *flags]
            from proxy.server.supervise import supervise  # noqa: PLC0415

            address, metrics = (host, port, admin_port), None if metrics_port is None else (metrics_host, metrics_port)
            sys.exit(supervise(environment, arguments, workers, address, drain_s=drain_s, metrics=metrics))
        from proxy.server.serve import PROBE_EVERY_S, Options  # noqa: PLC0415

        options = Options(
            config,
            host=host,
            port=port,
            demo=demo,
            drain_s=drain_s,
            grace_s=grace_s,
            admin_port=admin_port,
            admin_hosts=environment.admin_hosts,
            probe_every_s=PROBE_EVERY_S,
            workers=workers or 1,
            metrics_port=metrics_port if worker is None else None,  # the supervisor's
            metrics_host=metrics_host,
        )
        _serve(options, environment, worker, as_json=as_json)
    except CannotServe as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(1)


def _duration(text: str, option: str) -> float:
    from proxy.core import duration  # noqa: PLC0415

    seconds = duration.parse(text)
    if seconds is None:
        raise click.BadParameter(f"{text!r} is not a duration; write 60s, 500ms or 2m.", param_hint=option)
    return seconds


def _serve(options: "Options", environment: "Settings", worker: str | None, *, as_json: bool) -> None:
    """In this process. Raises `CannotServe`; ends the command where the file cannot be used."""
    from proxy.cli.announce import announcement, document  # noqa: PLC0415
    from proxy.config.listening import listening  # noqa: PLC0415
    from proxy.config.pricing import with_price_list  # noqa: PLC0415
    from proxy.config.problem import ConfigError  # noqa: PLC0415
    from proxy.config.resolve import blueprint  # noqa: PLC0415
    from proxy.server.hardening import keep_secrets_in  # noqa: PLC0415
    from proxy.server.sealed import SealedRefused, at_start  # noqa: PLC0415
    from proxy.server.serve import Inherited, run  # noqa: PLC0415
    from proxy.server.table_source import TableSource  # noqa: PLC0415

    keep_secrets_in(os.environ)

    def announce(served: "RoutingTable", url: str) -> None:
        is_open = served.open_access and environment.api_key is None
        make_key = None if is_open else _make_key(url, options)
        click.echo(json.dumps(document(served, url)) if as_json else announcement(served, url, make_key))

    try:
        tables = TableSource(
            lambda: blueprint(options.config, dict(os.environ), listening=listening(os.environ)),
            with_price_list,
            lambda plan: at_start(environment, needed=plan.names_sealed),
        )
        table = tables.table()
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
    except SealedRefused as error:
        click.echo(f"penstock: {error}", err=True)
        sys.exit(1)
    options.demo = options.demo or not table.is_active
    inherited = None if worker is None else Inherited(**json.loads(worker))
    told = announce if inherited is None or inherited.announces else None
    run(options, environment, table, told, tables=tables, inherited=inherited)


def _make_key(url: str, options: "Options") -> str:
    """The command that makes a virtual key for this server, as it can be typed where this one was started."""
    from proxy.cli.admin_client import address  # noqa: PLC0415 - as above

    program = sys.argv[0] if Path(sys.argv[0]).name == "penstock" and shutil.which("penstock") is None else "penstock"
    where = url.removesuffix("/v1") if options.admin_port is None else f"http://127.0.0.1:{options.admin_port}"
    named = "" if where == str(address(None, settings())) else f" --url {where}"
    return f"{shlex.quote(program)} keys create first{named}"
