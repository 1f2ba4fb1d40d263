"""The command `penstock`: a group whose commands are imported when they are called."""

from importlib import import_module
from typing import Final

import click

from proxy import __version__
from proxy.core.nearest import did_you_mean

# Name to module and the line that --help shows, so that it imports none of them. Each module exports `command`.
COMMANDS: Final = {
    "serve": ("proxy.cli.serve", "Run the proxy."),
    "check": ("proxy.cli.check", "Say what is wrong with the configuration."),
    "explain": ("proxy.cli.explain", "Show what a request for a route or model would do."),
    "providers": ("proxy.cli.providers", "List the providers, and why each is active or not; show one."),
    "breakers": ("proxy.cli.breakers", "Show and reset the running server's circuit breakers."),
    "budgets": ("proxy.cli.budgets", "Show what the running server's budgets have left."),
    "cache": ("proxy.cli.cache", "Show, empty and warm the running server's cache."),
    "keys": ("proxy.cli.keys", "Make, list, change and revoke the running server's virtual keys."),
    "ledger": ("proxy.cli.ledger", "Show what was used and what it cost."),
    "secrets": ("proxy.cli.secrets", "Seal provider credentials, list, remove and re-seal them."),
    "audit": ("proxy.cli.audit", "Show what was done to the proxy and by whom; verify the log."),
    "simulate": ("proxy.cli.simulate", "Run the built-in scripted provider."),
    "doctor": ("proxy.cli.doctor", "Find out what is wrong around the proxy, and what to do."),
    "batch": ("proxy.cli.batch", "Send a file of requests, and keep the answers in another."),
    "bench": ("proxy.cli.bench", "Measure routes and targets: latency, tokens a second, cost."),
    "convert": ("proxy.cli.convert", "Write a routes file from another proxy's configuration."),
}


class LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - likewise
        if cmd_name not in COMMANDS:
            return None
        command = import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{COMMANDS[cmd_name][0]}.command is no click command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = did_you_mean(args[0], COMMANDS) or f" There are: {', '.join(COMMANDS)}."
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Example: penstock serve --port 4020, then export OPENAI_BASE_URL=http://127.0.0.1:4020/v1",
)
@click.version_option(__version__, prog_name="penstock")
def main() -> None:
    """Penstock: one base_url for every model. A streaming, OpenAI-compatible reverse proxy."""


if __name__ == "__main__":
    main()
