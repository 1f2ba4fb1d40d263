"""Options that commands share, and the configuration that they name."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from proxy.server.settings import BadSettings, Settings

if TYPE_CHECKING:
    from proxy.config.problem import ConfigError
    from proxy.core.credential import Vault
    from proxy.core.routing import RoutingTable

EXIT_PROBLEMS: Final = 1
EXIT_USAGE: Final = 2  # click's own, for a wrong option
EXIT_INTERRUPTED: Final = 130  # as a shell says it

_CHECKOUT: Final = Path(__file__).parents[2]
_Command = TypeVar("_Command", bound=Callable[..., Any])


def together(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Several options as one decorator, in the order in which `--help` shows them."""

    def decorated(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def config_option(command: _Command) -> _Command:
    """`--config PATH`; the command gets the path of a file that exists."""
    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        callback=_config_of,
        metavar="PATH",
        help="The routes file. Default: PENSTOCK_CONFIG, else config/routes.yaml here, else the one that ships.",
    )(command)


def _config_of(context: click.Context, _option: click.Parameter, given: Path | None) -> Path | None:
    if not context.params.get("live"):
        return config_path(given)
    if given is not None:
        raise click.UsageError("--live asks a running server, which has its own routes file. Leave --config out.")
    return None


def url_option(command: _Command) -> _Command:
    return click.option(
        "--url",
        metavar="URL",
        help="Where the server runs. Default: PENSTOCK_URL, else here, at PENSTOCK_ADMIN_PORT or PENSTOCK_PORT.",
    )(command)


def client_url_option(command: _Command) -> _Command:
    """`--url URL`, for commands that ask as a client does: not at the admin API's port."""
    return click.option(
        "--url", metavar="URL", help="Where the server runs. Default: PENSTOCK_URL, else here, at PENSTOCK_PORT."
    )(command)


def concurrency_option(default: int, most: int) -> Callable[[_Command], _Command]:
    return click.option(
        "--concurrency",
        type=click.IntRange(1, most),
        default=default,
        show_default=True,
        help="How many requests run at once.",
    )


def live_options(command: _Command) -> _Command:
    """`--live` and `--url URL`: ask a running server instead of the routes file; without `--live` a command gets no URL."""
    live = click.option("--live", is_flag=True, is_eager=True, help="Ask the running server, with the admin key.")
    return live(url_option(command))


def fail(problem: object) -> NoReturn:
    """Say why, and end the command with exit code 1."""
    click.echo(f"penstock: {problem}", err=True)
    sys.exit(EXIT_PROBLEMS)


def settings() -> Settings:
    """What the environment says now. Errors: ends the command with exit code 2."""
    try:
        return Settings.of(os.environ)
    except BadSettings as bad:
        click.echo(str(bad), err=True)
        sys.exit(EXIT_USAGE)


def json_option(command: _Command) -> _Command:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")(command)


def key_option(command: _Command) -> _Command:
    """`--key KEY`, for commands that ask as a client does."""
    return click.option(
        "--key",
        envvar="OPENAI_API_KEY",
        show_envvar=True,
        help="The client key to ask with; better in the environment, where no process list shows it. Default: none.",
    )(command)


def config_path(given: Path | None) -> Path:
    """The routes file to use: the one given, the environment's, the working directory's, the one that ships.

    Errors: ends the command with exit code 2 where the file that was named does not exist.
    """
    named = given or settings().config
    if named is None:
        usual = (Path("config/routes.yaml"), *shipped_paths())
        return next((path for path in usual if path.is_file()), None) or _missing(usual[0], "the default")
    return named if named.is_file() else _missing(named, "--config" if given else "PENSTOCK_CONFIG")


def shipped_paths() -> tuple[Path, Path]:
    """Where the file that ships may stand: in the installed package, or in the checkout."""
    return _CHECKOUT / "proxy/config/shipped/routes.yaml", _CHECKOUT / "config/routes.yaml"


def _missing(path: Path, who: str) -> NoReturn:
    what = "a directory, not a file" if path.is_dir() else "no such file"
    click.echo(f"{path}: {what} ({who} names it). Name another with --config PATH", err=True)
    sys.exit(EXIT_USAGE)


def loaded(path: Path) -> "RoutingTable":
    """The table of a routes file for this machine as it is now. Errors: prints every problem, ends the command."""
    from proxy.config.listening import listening  # noqa: PLC0415 - not for --help
    from proxy.config.problem import ConfigError  # noqa: PLC0415
    from proxy.config.resolve import load  # noqa: PLC0415

    try:
        return load(path, os.environ, listening=listening(os.environ), vault=vault())
    except ConfigError as error:
        tell(error)
        sys.exit(EXIT_PROBLEMS)


def vault() -> "Vault":
    """What is sealed, as far as it can be opened here. Where the store or the key cannot be had, says so and goes on."""
    from proxy.core.credential import NOTHING_SEALED  # noqa: PLC0415 - not for --help
    from proxy.server.sealed import SealedRefused, as_now  # noqa: PLC0415

    try:
        return as_now(settings())
    except SealedRefused as problem:
        click.echo(f"penstock: sealed secrets are left out: {problem}", err=True)
        return NOTHING_SEALED


def tell(error: "ConfigError") -> None:
    """Every problem on a line of its own."""
    for problem in error.problems:
        click.echo(str(problem), err=True)
