"""The commands as a person or a script runs them."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from proxy import __version__
from proxy.cli import options, prices, table
from proxy.cli.main import COMMANDS, main
from proxy.config.resolve import parse
from proxy.core.tariff import DAY_S, Period, Price, Tariff, Tier, rates
from proxy.providers.rows import CATALOGUE
from proxy.terms import PriceSource, ProviderId, RouteName

ROUTES = """
routes:
  voice: {about: Lowest latency, tiers: [openai/small, groq/fast], timeouts: {total: 60s}}
models: {"gpt-*": openai/*}
"""
BROKEN = "routes:\n  voice: {tiers: [opnai/small]}\nbudgets: {daily: 5, monthly: 1}\nlimits: {}\n"


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    """In an empty directory, with no provider's variable set and no local server to be found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("proxy.config.listening.accepting", lambda _ports: frozenset())
    for row in CATALOGUE.values():
        for name in row.key_vars:
            monkeypatch.delenv(name, raising=False)
    for name in ("PENSTOCK_CONFIG", "OLLAMA_URL", "VLLM_URL", "LLAMA_CPP_URL", "LMSTUDIO_URL"):
        monkeypatch.delenv(name, raising=False)
    Path("routes.yaml").write_text(ROUTES)
    Path("broken.yaml").write_text(BROKEN)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    return CliRunner()


def run(runner: CliRunner, *args: str) -> Result:
    result = runner.invoke(main, list(args))
    assert "very-secret" not in result.output
    return result


def test_check_says_that_all_is_well(runner: CliRunner) -> None:
    result = run(runner, "check", "--config", "routes.yaml")
    assert result.exit_code == 0
    assert result.stdout == "routes.yaml: 1 routes, 22 providers (1 active), 0 problems\n"


def test_check_says_what_is_wrong_one_problem_a_line(runner: CliRunner) -> None:
    result = run(runner, "check", "--config", "broken.yaml")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        "broken.yaml:2:19  routes.voice.tiers[0]: provider 'opnai' is not in the catalogue. Did you mean 'openai'?\n"
        "broken.yaml:3:18  budgets.daily: 5.00 a day is more than 1.00 a month, so it can never be reached\n"
        "broken.yaml:4:9  limits: names no limit. Give it rps, tpm or concurrency, or remove the key\n"
    )


def test_check_in_json(runner: CliRunner) -> None:
    result = run(runner, "check", "--config", "broken.yaml", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["file"] == "broken.yaml"
    assert [(one["line"], one["column"], one["path"]) for one in told["problems"]] == [
        (2, 19, "routes.voice.tiers[0]"),
        (3, 18, "budgets.daily"),
        (4, 9, "limits"),
    ]
    fine = json.loads(run(runner, "check", "--config", "routes.yaml", "--json").stdout)
    assert fine == {"file": "routes.yaml", "routes": 1, "providers": 22, "active": 1, "problems": []}


@pytest.mark.parametrize("command", [["check"], ["explain", "voice"], ["providers"]])
def test_a_file_that_is_not_there_is_exit_code_2(runner: CliRunner, command: list[str]) -> None:
    result = run(runner, *command, "--config", "nowhere.yaml")
    assert result.exit_code == 2
    assert result.stderr == "nowhere.yaml: no such file (--config names it). Name another with --config PATH\n"
    Path("folder").mkdir()
    result = run(runner, *command, "--config", "folder")
    assert result.exit_code == 2
    assert result.stderr == "folder: a directory, not a file (--config names it). Name another with --config PATH\n"


@pytest.mark.parametrize("command", [["explain", "voice"], ["providers"]])
def test_a_broken_file_is_exit_code_1(runner: CliRunner, command: list[str]) -> None:
    result = run(runner, *command, "--config", "broken.yaml")
    assert result.exit_code == 1
    assert "Did you mean 'openai'?" in result.stderr


def test_the_configuration_is_found_in_this_order(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = options.config_path(None)
    assert shipped in options.shipped_paths()
    Path("config").mkdir()
    Path("config/routes.yaml").write_text(ROUTES)
    assert options.config_path(None) == Path("config/routes.yaml")
    monkeypatch.setenv("PENSTOCK_CONFIG", "routes.yaml")
    assert options.config_path(None) == Path("routes.yaml")
    assert options.config_path(Path("broken.yaml")) == Path("broken.yaml")
    monkeypatch.setenv("PENSTOCK_CONFIG", "nowhere.yaml")
    assert "(PENSTOCK_CONFIG names it)" in run(runner, "check").stderr


def test_explain_a_route(runner: CliRunner) -> None:
    result = run(runner, "explain", "voice", "--config", "routes.yaml")
    assert result.exit_code == 0
    assert result.stdout == (
        "voice: route voice (Lowest latency), by the chat API\n"
        "timeouts: connect 5s, first_event 300s, idle 60s, silent 300s, total 60s\n"
        "cache: off\n"
        "paid by: nobody, since no budget is set\n"
        "prices: USD for a million tokens; output cap: for a prompt of 1000 tokens that sets none\n"
        "\n"
        "   TARGET        MODEL SENT  INPUT  OUTPUT  FROM     COST TIER  OUTPUT CAP  SKIPPED\n"
        "1  openai/small  small                      unknown\n"
        "-  groq/fast                                unknown                         GROQ_API_KEY is not set\n"
    )


MONEY = """
cost_tiers: {low: 0.001, high: 0.05}
budgets: {daily: 100, monthly: 1000}
accounts: {acme: {budgets: {daily: 5, timezone: Europe/Paris}}, default: {budgets: {daily: 10}}}
providers:
  openai: {price: {cheap: {input: 0.1, output: 0.5}, dear: {input: 2, output: 10}}}
routes:
  code:
    cost_tier: low
    tiers:
      - openai/cheap
      - openai/dear
      - {target: openai/capped, price: {input: 1, output: 10}, cost_tier: high, max_output_tokens: 50}
      - openai/new
  odd: {tiers: [openai/new], cost_tier: low, unpriced: reject}
"""


def test_explain_what_a_route_may_cost(runner: CliRunner) -> None:
    Path("money.yaml").write_text(MONEY)
    lines = run(runner, "explain", "code", "--config", "money.yaml").stdout.splitlines()
    proxy = "the whole proxy (100.00 USD a day, 1000.00 USD a month, UTC)"
    assert lines[3] == f"paid by: account default (10.00 USD a day, UTC) and {proxy}"
    allowed = "and cost tier low allows 0.001 USD"
    assert [" ".join(line.split()) for line in lines[7:]] == [
        "1 openai/cheap cheap 0.1 0.5 configured low 0.001 1800",
        f"- openai/dear 2 10 configured low 0.001 256 tokens of answer may cost 0.00456 USD with this prompt, {allowed}",
        "2 openai/capped capped 1 10 configured high 0.05 50",
        "3 openai/new new unknown low 0.001 4096",
    ]


def test_explain_money_in_json(runner: CliRunner) -> None:
    Path("money.yaml").write_text(MONEY)
    told = json.loads(run(runner, "explain", "code", "--config", "money.yaml", "--json").stdout)
    assert told["prompt_tokens"] == 1000
    assert told["targets"][0] == {
        "target": "openai/cheap",
        "model": "cheap",
        "skipped": None,
        "price": {"source": "configured", "usd_per_million_input": "0.1", "usd_per_million_output": "0.5"},
        "cost_tier": "low",
        "ceiling_usd": "0.001",
        "output_cap": 1800,
        "hold_usd": "0.001",
        "too_dear": None,
    }
    proxy = {"subject": "proxy", "daily_usd": "100.00", "monthly_usd": "1000.00", "timezone": "UTC"}
    assert told["payers"] == {
        "default": [{"subject": "account:default", "daily_usd": "10.00", "timezone": "UTC"}, proxy]
    }
    (odd,) = json.loads(run(runner, "explain", "odd", "--config", "money.yaml", "--json").stdout)["targets"]
    assert odd["too_dear"].endswith("and the route says unpriced: reject")
    assert (odd["output_cap"], odd["hold_usd"]) == (None, None)


def test_explain_goes_by_the_price_list(runner: CliRunner) -> None:
    (one,) = json.loads(run(runner, "explain", "openai/gpt-4o-mini", "--config", "routes.yaml", "--json").stdout)[
        "targets"
    ]
    assert one["price"]["source"] == "listed"
    assert one["cost_tier"] is None


@pytest.mark.parametrize(
    ("cache", "told", "as_json"),
    [
        (
            "{ttl: 1h}",
            "answers are kept for 1h, but none that calls tools; replay immediate",
            (3600, False, "immediate"),
        ),
        (
            "{ttl: 36h, tool_calls: true, replay: paced}",
            "answers are kept for 36h, answers that call tools too; replay paced",
            (129_600, True, "paced"),
        ),
        (
            "{ttl: 1.5s}",
            "answers are kept for 1.5s, but none that calls tools; replay immediate",
            (1.5, False, "immediate"),
        ),
        (
            "{ttl: 14d}",
            "answers are kept for 14d, but none that calls tools; replay immediate",
            (1_209_600, False, "immediate"),
        ),
    ],
)
def test_explain_what_a_route_keeps(runner: CliRunner, cache: str, told: str, as_json: tuple[object, ...]) -> None:
    Path("kept.yaml").write_text(f"routes: {{kept: {{tiers: [openai/small], cache: {cache}}}}}")
    assert f"\ncache: {told}\n" in run(runner, "explain", "kept", "--config", "kept.yaml").stdout
    found = json.loads(run(runner, "explain", "kept", "--config", "kept.yaml", "--json").stdout)["cache"]
    assert (found["ttl_s"], found["tool_calls"], found["replay"]) == as_json


def test_explain_any_name(runner: CliRunner) -> None:
    result = run(runner, "explain", "gpt-4o", "--api", "responses", "--config", "routes.yaml")
    assert result.stdout.startswith("gpt-4o: a target named directly, by the responses API\n")
    assert "1  openai/gpt-4o  gpt-4o" in result.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["vioce"], "Did you mean 'voice'?"),
        (["groq/x"], "GROQ_API_KEY is not set"),
        (["voice", "--api", "messages"], "no target of route 'voice' speaks the messages API"),
    ],
)
def test_explain_what_cannot_be_served(runner: CliRunner, args: list[str], told: str) -> None:
    result = run(runner, "explain", *args, "--config", "routes.yaml")
    assert result.exit_code == 1
    assert told in result.stderr
    as_json = run(runner, "explain", *args, "--config", "routes.yaml", "--json")
    assert as_json.exit_code == 1
    assert told in json.loads(as_json.stdout)["error"]


def test_explain_in_json(runner: CliRunner) -> None:
    told = json.loads(run(runner, "explain", "voice", "--config", "routes.yaml", "--json").stdout)
    assert told["route"] == "voice"
    assert [(one["target"], one["model"], one["skipped"]) for one in told["targets"]] == [
        ("openai/small", "small", None),
        ("groq/fast", "fast", "GROQ_API_KEY is not set"),
    ]
    assert told["timeouts"]["total_s"] == 60.0
    assert told["cache"] is None
    assert told["error"] is None


def test_providers_shows_the_active_ones_first(runner: CliRunner) -> None:
    lines = run(runner, "providers", "--config", "routes.yaml").stdout.splitlines()
    assert lines[0].split() == ["PROVIDER", "STATE", "APIS", "BASE", "URL"]
    assert lines[1].split()[:2] == ["openai", "active"]
    assert len(lines) == 1 + len(CATALOGUE)
    openrouter = next(line for line in lines if line.startswith("openrouter"))
    assert "inactive: OPENROUTER_API_KEY is not set" in openrouter
    assert openrouter.endswith("https://openrouter.ai/api/v1")


def test_providers_in_json(runner: CliRunner) -> None:
    told = json.loads(run(runner, "providers", "--config", "routes.yaml", "--json").stdout)
    assert len(told) == len(CATALOGUE)
    assert told[0] == {
        "id": "openai",
        "active": True,
        "inactive": None,
        "apis": [
            *("chat", "responses", "embeddings", "completions", "moderations"),
            *("images", "image_edits", "speech", "transcriptions", "translations"),
        ],
        "base_url": "https://api.openai.com/v1",
        "local": False,
    }


def test_providers_shows_one(runner: CliRunner) -> None:
    told = run(runner, "providers", "xai", "--config", "routes.yaml").stdout
    assert told == (
        "xai: xAI (Grok), inactive: XAI_API_KEY is not set\n"
        "base URL: https://api.x.ai/v1\n"
        "key: XAI_API_KEY\n"
        "models: https://api.x.ai/v1/models\n"
        "\n"
        "API        URL\n"
        "chat       https://api.x.ai/v1/chat/completions\n"
        "responses  https://api.x.ai/v1/responses\n"
        "images     https://api.x.ai/v1/images/generations\n"
        "messages: retired 2026-02-20: use chat or responses\n"
        "\n"
        "Notes:\n"
        "- completion_tokens leaves reasoning tokens out; total_tokens has them\n"
        "- its /images/edits takes JSON with image.url, not OpenAI's form, so it is not listed\n"
        "\n"
        "Sources:\n"
        "- docs.x.ai/developers/cost-tracking\n"
        "- docs.x.ai/developers/model-capabilities/images\n"
    )


def test_providers_shows_one_of_the_files_own(runner: CliRunner) -> None:
    Path("own.yaml").write_text(
        "providers:\n  acme: {like: fireworks, api_key: env:ACME_KEY, base_url: https://acme.example/v1}\n"
        "routes: {general: {tiers: [acme/m]}}\n"
    )
    told = run(runner, "providers", "acme", "--config", "own.yaml").stdout
    assert told.startswith("acme: Fireworks AI, inactive: ACME_KEY is not set\nbase URL: https://acme.example/v1\n")
    assert "key: ACME_KEY\n" in told
    assert "rerank       https://acme.example/v1/rerank\n" in told
    assert "audio-prod" not in told.partition("Notes:")[0]  # a whole URL is the catalogue's own host's alone


def test_providers_shows_which_variable_is_set_and_never_its_value(runner: CliRunner) -> None:
    told = run(runner, "providers", "openai", "--config", "routes.yaml").stdout
    assert told.startswith("openai: OpenAI, active\n")
    assert "key: OPENAI_API_KEY (set)\n" in told
    assert "key: none is needed\n" in run(runner, "providers", "ollama", "--config", "routes.yaml").stdout
    assert "models: it does not list them\n" in run(runner, "providers", "zhipu", "--config", "routes.yaml").stdout


@pytest.mark.parametrize("name", CATALOGUE)
def test_providers_shows_any_one_in_json(runner: CliRunner, name: str) -> None:
    told = json.loads(run(runner, "providers", name, "--config", "routes.yaml", "--json").stdout)
    row = CATALOGUE[ProviderId(name)]
    assert (told["id"], told["like"], told["title"]) == (name, name, row.title)
    assert told["key_vars"] == list(row.key_vars)
    assert set(told["urls"]) == {api.value for api in row.paths}
    assert set(told["retired_apis"]) == {api.value for api in row.retired_apis}
    assert (told["notes"], told["sources"]) == (list(row.notes), list(row.sources))
    assert all(url.startswith("http") or "AZURE" in url for url in told["urls"].values())


def test_providers_knows_no_such_name(runner: CliRunner) -> None:
    result = run(runner, "providers", "opnai", "--config", "routes.yaml")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "There is no provider 'opnai'. Did you mean 'openai'?" in result.stderr


PRICED = """
providers:
  acme: {like: openai, api_key: env:ACME_KEY, price: {"own-*": {input: 1, output: "2.50", cached: 0.1, request: 0.005}}}
routes:
  voice:
    tiers:
      - {target: openai/gpt-4o, price: {input: 9, output: 9, above: [{input_tokens: 1000, input: 10, output: 11}]}}
      - acme/own-model
      - openai/gpt-4o-mini
  other: {tiers: [openai/gpt-4o, dashscope/qwen-flash, ollama/llama3.2:3b, deepseek/deepseek-flash, groq/whisper-large-v3]}
models: {mini: openai/gpt-4o-mini}
"""


def test_what_targets_charge(runner: CliRunner) -> None:
    Path("priced.yaml").write_text(PRICED)
    caption, blank, *lines = run(runner, "providers", "--prices", "--config", "priced.yaml").stdout.splitlines()
    assert re.fullmatch(r"USD for a million tokens, on [-0-9]{10} [:0-9]{5} UTC; list: genai-prices [.0-9]+", caption)
    assert blank == ""
    rows = {line.split("  ")[0]: " ".join(line.split("  ", 1)[1].split()) for line in lines}
    assert rows["TARGET"] == "INPUT OUTPUT CACHED BESIDES FROM SINCE"
    assert rows["openai/gpt-4o"].startswith("2.5 10 1.25 ")
    assert " listed" in rows["openai/gpt-4o"]
    assert rows["openai/gpt-4o (in voice)"] == "9 9 above 1000 tokens 10 / 11 configured"
    assert rows["acme/own-model"] == "1 2.5 0.1 0.005 a request configured"
    assert rows["openai/gpt-4o-mini"].startswith("0.15 0.6 ")
    assert rows["ollama/llama3.2:3b"] == "0 0 local"
    unknown = "unknown: no price is configured, and the price list has none of dashscope-intl.aliyuncs.com"
    assert rows["dashscope/qwen-flash"] == unknown
    assert re.search("(01:00 to 04|06:00 to 10):00 UTC", rows["deepseek/deepseek-flash"])  # whichever is not now
    assert rows["groq/whisper-large-v3"] == "0 0 0.00185 a minute of audio listed"
    assert len(rows) == 9


def test_what_hours_and_days_charge() -> None:
    """At any time, what may hold within a day is told; what held long ago is not."""

    def period(rate: int, since_s: int | None = None, daily: tuple[int, int] | None = None) -> Period:
        return Period((Tier(0, rates(input=rate * 10**6)),), since_s, daily)

    old, usual, peak, coming = period(1), period(2, DAY_S), period(3, None, (3600, 7200)), period(4, 9 * DAY_S)
    table_of = parse("routes: {a: {tiers: [openai/x]}}", "routes.yaml", {})
    price = Price(Tariff((old, usual, peak, coming)), PriceSource.LISTED)
    shown = prices.Shown(table_of.routes[RouteName("a")].targets[0], None, price)
    assert prices.row(shown, 3 * DAY_S)[1:] == ("2", "0", "", "01:00 to 02:00 UTC 3 / 0", "listed", "1970-01-02")
    assert prices.row(shown, 3 * DAY_S + 3600)[1:] == ("3", "0", "", "at other hours 2 / 0", "listed", "")
    assert prices.row(shown, 8 * DAY_S + 7200)[4] == "from 1970-01-10 4 / 0"


def test_what_targets_charge_in_json(runner: CliRunner) -> None:
    Path("priced.yaml").write_text(PRICED)
    told = json.loads(run(runner, "providers", "--prices", "--json", "--config", "priced.yaml").stdout)
    assert told["list"].startswith("genai-prices ")
    assert datetime.fromisoformat(told["at"]).tzinfo is UTC
    by_name = {(one["target"], one["route"]): one for one in told["targets"]}
    assert len(by_name) == len(told["targets"]) == 8
    own = by_name["openai/gpt-4o", "voice"]
    assert own["source"] == "configured"
    assert own["price"]["usd_per_million_tokens"]["cached"] == "9"
    assert [(one["input_tokens"], one["usd_per_million_tokens"]["output"]) for one in own["price"]["above"]] == [
        (1000, "11")
    ]
    assert by_name["acme/own-model", None]["price"]["usd_each"]["request"] == "0.005"
    unknown = by_name["dashscope/qwen-flash", None]
    assert (unknown["source"], unknown["price"], unknown["since"]) == ("unknown", None, None)
    assert unknown["unknown"].endswith("dashscope-intl.aliyuncs.com")
    deepseek = by_name["deepseek/deepseek-flash", None]
    assert {one["daily"] for one in deepseek["other_times"]} & {"01:00 to 04:00", "06:00 to 10:00"}


def test_without_a_paid_target_the_price_list_is_not_named(runner: CliRunner) -> None:
    Path("local.yaml").write_text("routes: {a: {tiers: [ollama/x]}}")
    assert "list:" not in run(runner, "providers", "--prices", "--config", "local.yaml").stdout
    told = json.loads(run(runner, "providers", "--prices", "--json", "--config", "local.yaml").stdout)
    assert told["list"] is None


def test_a_table_on_a_terminal_is_drawn_and_brackets_are_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table.show(("A", "B"), [("[bold]x", "y")])
    assert "[bold]x" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("typed", "told"),
    [("chek", "No such command 'chek'. Did you mean 'check'?"), ("zzz", "There are: serve, check, explain")],
)
def test_an_unknown_command_is_told_the_nearest(runner: CliRunner, typed: str, told: str) -> None:
    result = run(runner, typed)
    assert result.exit_code == 2
    assert told in result.stderr


def test_version(runner: CliRunner) -> None:
    assert run(runner, "--version").stdout == f"penstock, version {__version__}\n"


HEAVY = ("genai_prices", "pydantic", "aiohttp", "yaml", "rich", "uvloop", "orjson")


@pytest.mark.parametrize("args", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(args: list[str]) -> None:
    program = (
        "import sys\n"
        "from proxy.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        f"print('HEAVY', [name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("HEAVY []\n"), done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(runner: CliRunner, name: str) -> None:
    result = run(runner, name, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert isinstance(main.get_command(click.Context(main), name), click.Command)


def test_explain_what_an_account_would_get(runner: CliRunner) -> None:
    text = """
providers: {own: {like: vllm, base_url: "http://127.0.0.1:1/v1"}}
routes: {voice: {tiers: [own/all]}}
accounts: {acme: {routes: {voice: {tiers: [own/acme]}}}}
"""
    Path("accounts.yaml").write_text(text)
    for account, target in (("acme", "own/acme"), ("default", "own/all"), ("globex", "own/all")):
        result = run(runner, "explain", "voice", "--account", account, "--config", "accounts.yaml", "--json")
        assert [one["target"] for one in json.loads(result.stdout)["targets"]] == [target]


SEVERAL = """
limits: {rps: 10, burst: 50, concurrency: 32}
budgets: {daily: 100}
providers: {all: {like: vllm, base_url: "http://127.0.0.1:1/v1", limits: {concurrency: 9}}}
routes: {voice: {tiers: [all/m]}}
accounts:
  acme:
    limits: {rps: 5}
    budgets: {daily: 7}
    providers: {gpu: {like: vllm, base_url: "http://127.0.0.1:2/v1", limits: {concurrency: 2}}}
    routes: {voice: {tiers: [gpu/m, all/m]}}
  globex:
    limits: {rps: 3}
    budgets: {daily: 8}
    providers: {gpu: {like: vllm, base_url: "http://127.0.0.1:3/v1", limits: {concurrency: 4}}}
    routes: {voice: {tiers: [gpu/m]}}
"""


@pytest.mark.parametrize(
    ("account", "told"),
    [
        (
            "acme",
            [
                "paid by: account acme (7.00 USD a day, UTC) and the whole proxy (100.00 USD a day, UTC)",
                "limited: each virtual key (5 requests a second, 5 at once, 32 under way)",
                "limited: account acme (5 requests a second, 5 at once)",
                "limited: provider acme:gpu (2 under way)",
                "limited: provider all (9 under way)",
            ],
        ),
        (
            "default",
            [
                "paid by: the whole proxy (100.00 USD a day, UTC)",
                "limited: account default (10 requests a second, 50 at once, 32 under way)",
                "limited: provider all (9 under way)",
            ],
        ),
    ],
)
def test_explain_tells_an_account_nothing_of_the_others(runner: CliRunner, account: str, told: list[str]) -> None:
    Path("several.yaml").write_text(SEVERAL)
    arguments = ("explain", "voice", "--account", account, "--config", "several.yaml")
    lines = run(runner, *arguments).stdout.splitlines()
    assert [line for line in lines if line.startswith(("paid by", "limited"))] == told
    as_json = json.loads(run(runner, *arguments, "--json").stdout)
    assert as_json["account"] == account
    assert list(as_json["payers"]) == [account]
    assert "globex" not in json.dumps(as_json)
