"""`penstock simulate`: the simulator in a process of its own."""

import asyncio
import json
import signal
from collections.abc import Callable

import click

_EPILOG = """\b
Example:
  penstock simulate --port 4021 &
  curl http://127.0.0.1:4021/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "slow:100ms", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
"""


@click.command(name="simulate", epilog=_EPILOG)
@click.option("--port", type=click.IntRange(0, 65535), default=4021, show_default=True, help="0: any free port.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--list", "list_scripts", is_flag=True, help="List the model names that choose a behaviour, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def command(port: int, host: str, list_scripts: bool, as_json: bool) -> None:
    """Run the simulator: a scripted provider to try Penstock or a client against, without a key and without cost.

    It speaks the APIs that Penstock speaks. The model's name chooses a normal answer or a fault; where a path has no
    model, ?script=NAME does. The first line printed is the base URL.
    """
    if list_scripts:
        _list(as_json)
        return
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(host, port, as_json))
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise click.ClickException(f"cannot listen on {host}:{port}: {reason}. Try another --port.") from None


def _list(as_json: bool) -> None:
    from proxy.simulator.scripts.table import SCRIPTS  # noqa: PLC0415 - --help imports nothing heavy

    if as_json:
        click.echo(json.dumps([{"model": one.usage, "about": one.about} for one in SCRIPTS.values()], indent=2))
        return
    width = max(len(one.usage) for one in SCRIPTS.values())
    for one in SCRIPTS.values():
        click.echo(f"{one.usage:<{width}}  {one.about}")


async def _serve(host: str, port: int, as_json: bool) -> None:
    from proxy.simulator.server import Simulator  # noqa: PLC0415 - --help imports nothing heavy

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    simulator = Simulator(host=host, port=port)
    base_url = await simulator.start()
    click.echo(json.dumps({"base_url": base_url}) if as_json else base_url)  # echo flushes
    await stopped.wait()
    await simulator.stop()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - --help imports nothing heavy, and it is not on every platform
    except ImportError:
        return None
    return uvloop.new_event_loop
