"""`penstock batch`: a file of requests to a file of answers, in OpenAI's batch form."""

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from proxy.cli.options import (
    EXIT_INTERRUPTED,
    EXIT_PROBLEMS,
    client_url_option,
    concurrency_option,
    fail,
    json_option,
    key_option,
    settings,
)
from proxy.cli.table import show

if TYPE_CHECKING:
    from proxy.cli.batch_run import Score

_EPILOG: Final = """\b
Example:
  penstock batch questions.jsonl answers.jsonl --concurrency 5
"""


@click.command(epilog=_EPILOG)
@click.argument("source", metavar="IN.jsonl", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", metavar="OUT.jsonl", type=click.Path(dir_okay=False, path_type=Path))
@concurrency_option(5, most=256)
@key_option
@json_option
@client_url_option
def command(*, source: Path, out: Path, concurrency: int, key: str | None, as_json: bool, url: str | None) -> None:
    """Send the requests of IN.jsonl to the server, and append their answers to OUT.jsonl, in the order in which they come.

    A line of IN.jsonl is {"custom_id": "1", "method": "POST", "url": "/v1/responses", "body": {...}}, of any API that
    takes JSON. Nothing is sent if a line is none, or a custom_id comes twice.

    Run it again after it ended, however it did: rows that have a good answer are not asked again, rows that failed are.
    What fails for a limit or an outage is repeated in the same run too, after the pause that the server names.

    Exit code 0 if every row has a good answer now, 1 if one has not.
    """
    from proxy.cli import batch_file, batch_run  # noqa: PLC0415 - not for --help
    from proxy.cli.admin_client import NoAnswer, address, warn_of_clear  # noqa: PLC0415
    from proxy.cli.progress import progress  # noqa: PLC0415
    from proxy.cli.request_file import BadFile  # noqa: PLC0415

    score = batch_run.Score()
    try:
        where = address(url, settings(), admin=False)
        batch_file.refuse_same(source, out)
        wanted = batch_file.identifiers(source)
        if key:
            warn_of_clear("the key", where)
        answers = batch_file.OutFile(out)
        try:
            done = wanted & answers.done
            batch = batch_run.Batch(where, key or None, concurrency)
            todo = itertools.filterfalse(lambda one: one.custom_id in done, batch_file.requests(source))
            with progress(len(wanted) - len(done), "asking", lambda: _note(score)) as advance:
                batch.run(todo, answers, score, lambda: advance(1))
        finally:
            answers.close()
    except (NoAnswer, BadFile) as problem:
        fail(problem)
    except OSError as error:
        fail(f"{error.filename or out}: {error.strerror}. Run it again when there is room.")
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    _tell(len(wanted), len(done), score, as_json=as_json)
    if score.failed:
        sys.exit(EXIT_PROBLEMS)


def _note(score: "Score") -> str:
    failed = f", {score.failed} failed" if score.failed else ""
    return f"{score.cost_usd:.4f} USD{failed}"


def _tell(rows: int, done: int, score: "Score", *, as_json: bool) -> None:
    if as_json:
        told = {
            "rows": rows,
            "done_before": done,
            "succeeded": score.succeeded,
            "failed": score.failed,
            "repeats": score.repeats,
            "cost_usd": str(score.cost_usd),
            "first_failure": score.first_failure,
        }
        click.echo(json.dumps(told, indent=2))
        return
    cells = (rows, done, score.succeeded, score.failed, score.repeats, f"{score.cost_usd:.6f}")
    show(("ROWS", "DONE BEFORE", "SUCCEEDED", "FAILED", "REPEATS", "COST USD"), [tuple(map(str, cells))])
    if score.first_failure is not None:
        click.echo(f"the first that failed: {score.first_failure}", err=True)
