"""`penstock ledger` on a real store, while a server's own connection writes to it."""

import asyncio
import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli.main import main
from proxy.core.ledger import COLUMNS, US_PER_DAY, US_PER_S, LedgerRow
from proxy.ports import Ledger
from proxy.server.books import ledger as ledger_of
from proxy.server.settings import Settings
from tests.rows import random_rows, row

NOW_US = int(datetime.now(UTC).timestamp()) * US_PER_S
TODAY = datetime.fromtimestamp(NOW_US // US_PER_S, UTC).date()
ROWS = [
    replace(one, started_us=NOW_US - number * US_PER_DAY // 40, ended_us=NOW_US)
    for number, one in enumerate(random_rows(120, random.Random(1)))
]
# What a client may write, a terminal must not obey.
HOSTILE = row(9000, model="\x1b[31mred", account="acme", tags=(("team", "=1+1"),), started_us=NOW_US - 1)


def _with(environ: dict[str, str], work: Callable[[Ledger], Awaitable[Any]]) -> None:
    async def opened() -> None:
        ledger = ledger_of(Settings.of(environ))
        await work(ledger)
        await ledger.close()

    asyncio.run(opened())


@pytest.fixture(params=["sqlite", "postgres"])
def environ(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """Variables that name a ledger with `ROWS` in it."""
    variables = {"PENSTOCK_DATA": str(tmp_path / "data")}
    if request.param == "postgres":
        variables["DATABASE_URL"] = request.getfixturevalue("database")
    _with(variables, lambda ledger: ledger.write([*ROWS, HOSTILE]))
    return variables


@pytest.fixture(autouse=True)
def the_day_does_not_end_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.cli.ledger._today", lambda: TODAY)


def run(environ: dict[str, str], *args: str) -> Result:
    return CliRunner(env={"DATABASE_URL": None, **environ}).invoke(main, ["ledger", *args])


def test_summary_in_json_and_as_tables(environ: dict[str, str]) -> None:
    told = json.loads(run(environ, "summary", "--days", "4", "--json", "--currency", "CAD=1.38").stdout)
    assert (told["from"], told["to"]) == ((TODAY - timedelta(days=3)).isoformat(), TODAY.isoformat())
    since = (NOW_US // US_PER_DAY - 3) * US_PER_DAY
    inside = [one for one in (*ROWS, HOSTILE) if one.started_us >= since]
    assert told["total"]["calls"] == len(inside)
    assert told["total"]["cost_nanousd"] == sum(one.cost_nanousd for one in inside)
    assert told["total"]["cost"] == pytest.approx(sum(one.cost_nanousd for one in inside) / 10**9 * 1.38, abs=1e-6)
    shown = run(environ, "summary", "--days", "4", "--by", "model", "--by", "tag")
    assert shown.exit_code == 0
    assert "gpt-oss-120b" in shown.stdout
    assert "team=search" in shown.stdout
    assert "\x1b" not in shown.stdout
    one = json.loads(run(environ, "summary", "--account", "acme", "--json").stdout)
    assert one["account"] == "acme"
    assert one["by"]["account"] == []
    assert 0 < one["total"]["calls"] < told["total"]["calls"]


def test_forecast(environ: dict[str, str]) -> None:
    told = json.loads(run(environ, "forecast", "--horizon-days", "10", "--monthly-budget", "0", "--json").stdout)
    assert told["basis"] == "mean"
    assert len(told["days"]) == 10
    (budget,) = told["budgets"]
    assert (budget["period"], budget["limit_nanousd"], budget["runs_out"]) == ("monthly", 0, TODAY.isoformat())
    shown = run(environ, "forecast", "--monthly-budget", "100000")
    assert "fewer than 7" in shown.stdout
    assert "The monthly budget of 100,000.00 USD runs out: not in these days, nor this month" in shown.stdout
    one = json.loads(run(environ, "forecast", "--account", "acme", "--json", "--currency", "CAD=2").stdout)
    assert one["account"] == "acme"
    spent = [each.cost_nanousd for each in (*ROWS, HOSTILE) if _is_of_this_month(each) and each.account == "acme"]
    assert one["spent_this_month_nanousd"] == sum(spent)
    assert one["spent_this_month"] == pytest.approx(2 * sum(spent) / 10**9, abs=1e-6)


def _is_of_this_month(row: LedgerRow) -> bool:
    return datetime.fromtimestamp(row.started_us / US_PER_S, UTC).date().replace(day=1) == TODAY.replace(day=1)


def test_show(environ: dict[str, str]) -> None:
    told = json.loads(run(environ, "show", HOSTILE.id, "--json", "--currency", "CAD=2").stdout)
    assert (told["id"], told["model"], told["tags"]) == (HOSTILE.id, HOSTILE.model, {"team": "=1+1"})
    assert (told["cost_nanousd"], told["cost"]) == (HOSTILE.cost_nanousd, 2 * HOSTILE.cost_nanousd / 10**9)
    shown = run(environ, "show", HOSTILE.id)
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert lines["FIELD"] == "VALUE"
    assert lines["account"] == "acme"
    assert lines["model"] == "?[31mred"
    assert lines["tags"] == "team==1+1"
    assert lines["cost"] == "0.00021 USD"
    assert (lines["code"], lines["streamed"], lines["fell_back"]) == ("-", "yes", "no")
    missing = run(environ, "show", "req_unknown")
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "no row with the id or request id 'req_unknown'" in missing.stderr


def test_amounts_are_in_the_currency_of_the_routes_file(tmp_path: Path) -> None:
    variables = {"PENSTOCK_DATA": str(tmp_path / "data")}
    _with(variables, lambda ledger: ledger.write([row(1, started_us=NOW_US)]))
    path = tmp_path / "routes.yaml"

    def cost(text: str, *more: str) -> tuple[str, float, str]:
        path.write_text(text)
        done = run({**variables, "PENSTOCK_CONFIG": str(path)}, "summary", "--json", *more)
        told = json.loads(done.stdout)
        return told["currency"]["code"], told["total"]["cost"], done.stderr

    assert cost("currency: {code: CAD, per_usd: 1.5}") == ("CAD", 0.000315, "")
    assert cost("currency: {code: CAD, per_usd: 1.5}", "--currency", "EUR=0.5") == ("EUR", 0.000105, "")
    assert cost("routes: {}") == ("USD", 0.00021, "")
    for broken in ("currency: dollars", "currency: {code: CAD}", "currency: {code: CAD, per_usd: .nan}", "a: ]"):
        code, amount, said = cost(broken)
        assert (code, amount) == ("USD", 0.00021)
        assert said.startswith(f"penstock: {path}") or broken == "a: ]"
        assert "Traceback" not in said
    other = tmp_path / "other.yaml"
    other.write_text("currency: {code: JPY, per_usd: 150}")
    assert cost("routes: {}", "--config", str(other)) == ("JPY", 0.0315, "")
    assert run({**variables, "PENSTOCK_CONFIG": str(tmp_path / "none.yaml")}, "summary").exit_code == 2


def test_tail(environ: dict[str, str]) -> None:
    lines = run(environ, "tail", "-n", "5", "--json").stdout.splitlines()
    newest = sorted((*ROWS, HOSTILE), key=lambda one: one.started_us)[-5:]
    assert [json.loads(line)["id"] for line in lines] == [one.id for one in newest]
    failed = run(environ, "tail", "--outcome", "failed", "--json").stdout.splitlines()
    assert {json.loads(line)["outcome"] for line in failed} == {"failed"}
    shown = run(environ, "tail", "-n", "1000").stdout
    assert len(shown.splitlines()) == len(ROWS) + 2
    assert "\x1b" not in shown
    assert "?[31mred" in shown
    tagged = run(environ, "tail", "--tag", "run=7", "--json").stdout.splitlines()
    assert all(json.loads(line)["tags"]["run"] == "7" for line in tagged)


def test_export(environ: dict[str, str], tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run(environ, "export", "--format", "jsonl").stdout.splitlines()]
    assert {line["id"] for line in lines} == {one.id for one in (*ROWS, HOSTILE)}
    by_id = {line["id"]: line for line in lines}
    for one in ROWS:
        assert {**asdict(one), "tags": dict(one.tags)}.items() <= by_id[one.id].items()
    path = tmp_path / "rows.csv"
    done = run(environ, "export", "--output", str(path), "--account", "acme")
    assert done.exit_code == 0
    cells = list(csv.DictReader(io.StringIO(path.read_text())))
    assert tuple(cells[0]) == COLUMNS
    assert len(cells) == sum(one.account == "acme" for one in (*ROWS, HOSTILE))
    assert f"{len(cells)} rows" in done.stderr
    since = datetime.fromtimestamp(NOW_US / US_PER_S, UTC) - timedelta(days=1)
    recent = run(environ, "export", "--format", "jsonl", "--since", since.strftime("%Y-%m-%dT%H:%M:%S")).stdout
    expected = {one.id for one in (*ROWS, HOSTILE) if one.started_us >= NOW_US - US_PER_DAY}
    assert {json.loads(line)["id"] for line in recent.splitlines()} == expected


def test_a_cell_is_no_formula(tmp_path: Path) -> None:
    variables = {"PENSTOCK_DATA": str(tmp_path)}
    _with(variables, lambda ledger: ledger.write([row(1, model="=cmd|' /C calc'!A0", tags=(("=a", "1"),))]))
    (cells,) = csv.DictReader(io.StringIO(run(variables, "export").stdout))
    assert cells["model"].startswith("'=")
    assert not cells["tags"].startswith("=")


@pytest.mark.skipif(
    find_spec("pyarrow") is None, reason="pyarrow is not installed, so there is no Parquet to read back"
)
def test_parquet(tmp_path: Path) -> None:
    from pyarrow import parquet  # type: ignore[import-not-found,unused-ignore] # noqa: PLC0415 - it may not be there

    variables = {"PENSTOCK_DATA": str(tmp_path / "data")}
    _with(variables, lambda ledger: ledger.write(ROWS))
    path = tmp_path / "rows.parquet"
    assert run(variables, "export", "--format", "parquet", "--output", str(path)).exit_code == 0
    read = parquet.read_table(path).to_pylist()
    assert {one["id"]: one["cost_nanousd"] for one in read} == {one.id: one.cost_nanousd for one in ROWS}


def test_an_export_to_nowhere_says_so(environ: dict[str, str], tmp_path: Path) -> None:
    told = run(environ, "export", "--output", str(tmp_path / "no" / "such" / "folder"))
    assert told.exit_code == 1
    assert "No such file or directory" in told.stderr


@pytest.mark.skipif(find_spec("pyarrow") is not None, reason="pyarrow is installed, so nothing is missing")
def test_parquet_without_pyarrow_says_so(tmp_path: Path) -> None:
    done = run({"PENSTOCK_DATA": str(tmp_path)}, "export", "--format", "parquet", "--output", str(tmp_path / "x"))
    assert done.exit_code == 1
    assert "Parquet needs pyarrow: pip install pyarrow" in done.stderr
    assert "--output" in run({"PENSTOCK_DATA": str(tmp_path)}, "export", "--format", "parquet").stderr


@pytest.mark.parametrize("args", [["summary"], ["forecast"], ["tail"], ["export"], ["show", "x"]])
def test_without_a_ledger_it_says_where_it_looked(tmp_path: Path, args: list[str]) -> None:
    done = run({"PENSTOCK_DATA": str(tmp_path / "nowhere")}, *args)
    assert done.exit_code == 1
    assert "there is no ledger yet" in done.stderr
    assert "nowhere" in done.stderr
    assert not (tmp_path / "nowhere").exists()
    away = run({"DATABASE_URL": f"postgresql://me:hunter2@/books?host={tmp_path}"}, *args)
    assert away.exit_code == 1
    assert "PostgreSQL at the local socket" in away.stderr
    assert "hunter2" not in away.stderr
    other = run({"DATABASE_URL": "mysql://me:hunter2@host/books"}, *args)
    assert other.exit_code == 1
    assert "must be postgresql://" in other.stderr
    assert "hunter2" not in other.stderr


@pytest.mark.parametrize("args", [["--tag", "x"], ["--tag", " =x"], ["--since", "soon"]])
def test_a_wrong_option_is_exit_code_2(tmp_path: Path, args: list[str]) -> None:
    assert run({"PENSTOCK_DATA": str(tmp_path)}, "tail", *args).exit_code == 2
    assert run({"PENSTOCK_DATA": str(tmp_path)}, "summary", "--currency", "x").exit_code == 2


@pytest.mark.parametrize("name", ["summary", "forecast", "tail", "show", "export"])
def test_every_command_has_help_with_an_example(name: str) -> None:
    assert "Example: penstock ledger" in run({}, name, "--help").stdout


def test_following_shows_rows_as_they_are_booked(environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "proxy.cli.main", "ledger", "tail", "-n", "2", "--follow", "--json"]
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"], **environ}, start_new_session=True
    )
    assert child.stdout is not None
    try:
        first = [json.loads(child.stdout.readline())["id"] for _ in range(2)]
        assert HOSTILE.id in first
        late: list[LedgerRow] = [row(9100, started_us=1), row(9101)]  # one that began long ago is new all the same
        _with(environ, lambda ledger: ledger.write(late))
        assert [json.loads(child.stdout.readline())["id"] for _ in range(2)] == [one.id for one in late]
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
