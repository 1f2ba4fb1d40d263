"""Measure Penstock beside a bare relay, and beside nginx and LiteLLM where they are installed, in one run."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .gateways import KINDS, PENSTOCK, RELAY, BenchError, GatewayKind, found
from .measure import QUICK, Plan, measure
from .report import FIGURES, Verdict, as_json, rows_of, table


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="relay and Penstock only, within half a minute")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed or was not measured")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures, round by round, to FILE")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="GATEWAY",
        choices=[kind.name for kind in KINDS[1:]],
        help="leave a gateway out: %(choices)s",
    )
    return parser.parse_args(words)


def chosen(*, quick: bool, without: Sequence[str]) -> tuple[list[GatewayKind], list[str]]:
    """The gateways to measure, and the names of those that are not installed."""
    wanted = [kind for kind in ((RELAY, PENSTOCK) if quick else KINDS) if kind.name not in without]
    return [kind for kind in wanted if found(kind)], [kind.name for kind in wanted if not found(kind)]


def main(words: Sequence[str] | None = None) -> int:
    asked = arguments(words)
    kinds, absent = chosen(quick=asked.quick, without=asked.without)
    names = [kind.name for kind in kinds]
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        try:
            samples = measure(kinds, QUICK if asked.quick else Plan(), Path(directory), _say)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            print("bench: to measure the others, leave that gateway out: --without NAME", file=sys.stderr)
            return 1
    rows = rows_of(samples)
    print(table(rows, names))
    if absent:
        print(f"\nnot installed, so not measured: {', '.join(absent)}")
    print(f"\n{len(FIGURES)} figures in {time.monotonic() - started:.0f} s; what they mean: tests/bench/README.md")
    if asked.json:
        asked.json.write_text(json.dumps(as_json(samples, names, absent), indent=2) + "\n")
    failed = [row.figure.title for row in rows if row.verdict() in (Verdict.MISSED, Verdict.NOT_MEASURED)]
    if asked.check and failed:
        print(f"bench: targets missed or not measured: {'; '.join(failed)}", file=sys.stderr)
        return 1
    return 0


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
