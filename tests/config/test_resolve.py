"""From file and environment to a table: who is active, at which address, and how names resolve."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.config.problem import ConfigError
from proxy.config.resolve import load, parse, with_demo
from proxy.core.alert_channel import SlackWebhook
from proxy.core.routing import AuthStyle, Plan, Provider, RoutingTable, Target, Timeouts, plan
from proxy.terms import Api, ProviderId, RouteName

SHIPPED = Path(__file__).parents[2] / "config/routes.yaml"
KEY = "sk-test"


def provider(text: str, name: str, environ: Mapping[str, str], listening: tuple[str, ...] = ()) -> Provider:
    found = tuple(ProviderId(one) for one in listening)
    return parse(text, "f", environ, listening=found).providers[ProviderId(name)]


OLLAMA = 'providers: {ollama: {base_url: "${OLLAMA_URL:-http://localhost:11434}/v1"}}'
BOX = "providers: {box: {like: vllm, base_url: http://10.0.0.5:8000/v1, allow_private: true}}"
BOX_WITH_KEY = BOX.replace("allow_private", "api_key: env:BOX_KEY, allow_private")

IN_CLEAR = "http to 'r.example.com' would send the credential in clear. Use https, or add allow_private: true"

# The file, the provider, the environment, who listens; then the reason to be inactive.
STATES: list[tuple[str, str, dict[str, str], tuple[str, ...], str | None]] = [
    ("", "openrouter", {}, (), "OPENROUTER_API_KEY is not set"),
    ("", "openrouter", {"OPENROUTER_API_KEY": KEY}, (), None),
    ("", "openrouter", {"OR_API_KEY": KEY}, (), None),
    ("", "openrouter", {"OPENROUTER_API_KEY": "  "}, (), "OPENROUTER_API_KEY is not set"),
    ("", "openai", {"OPENAI_API_KEY": "a\nb"}, (), "OPENAI_API_KEY holds a character that no header can carry"),
    ("", "gemini", {"GOOGLE_API_KEY": KEY}, (), None),
    ("", "azure", {}, (), "AZURE_OPENAI_ENDPOINT and AZURE_OPENAI_API_KEY are not set"),
    ("", "azure", {"AZURE_OPENAI_API_KEY": KEY}, (), "AZURE_OPENAI_ENDPOINT is not set"),
    ("", "azure", {"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com/"}, (), "AZURE_OPENAI_API_KEY is not set"),
    ("", "azure", {"AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com/", "AZURE_OPENAI_API_KEY": KEY}, (), None),
    (
        "",
        "azure",
        {"AZURE_OPENAI_ENDPOINT": "http://r.example.com", "AZURE_OPENAI_API_KEY": KEY},
        (),
        f"its address from the environment cannot be used: {IN_CLEAR}",
    ),
    ("", "github-models", {"GITHUB_TOKEN": KEY}, (), "retired 2026-07-30: use openai or azure"),
    ("", "ollama", {}, (), "nothing answers at http://localhost:11434/v1"),
    ("", "ollama", {}, ("ollama",), None),
    ("", "ollama", {"OLLAMA_URL": "http://localhost:11434"}, (), None),
    ("", "ollama", {"OLLAMA_URL": "http://ollama:11434"}, (), None),
    ("", "vllm", {}, ("ollama",), "nothing answers at http://localhost:8000/v1"),
    (OLLAMA, "ollama", {}, (), "nothing answers at http://localhost:11434/v1"),
    (OLLAMA, "ollama", {}, ("ollama",), None),
    (OLLAMA, "ollama", {"OLLAMA_URL": "http://127.0.0.1:9"}, (), None),
    ("providers: {ollama: {base_url: http://localhost:9/v1}}", "ollama", {}, (), None),
    ("providers: {ollama: {enabled: false}}", "ollama", {}, ("ollama",), "switched off (enabled: false)"),
    ("providers: {mine: {like: ollama}}", "mine", {}, (), "nothing answers at http://localhost:11434/v1"),
    ("providers: {mine: {like: ollama}}", "mine", {}, ("ollama",), None),
    (BOX, "box", {}, (), None),
    (BOX_WITH_KEY, "box", {}, (), "BOX_KEY is not set"),
    (BOX_WITH_KEY, "box", {"VLLM_API_KEY": KEY}, (), "BOX_KEY is not set"),
    (BOX_WITH_KEY, "box", {"BOX_KEY": KEY}, (), None),
    ("providers: {acme: {like: openai, api_key: env:ACME}}", "acme", {"OPENAI_API_KEY": KEY}, (), "ACME is not set"),
    ("providers: {acme: {like: openai}}", "acme", {"OPENAI_API_KEY": KEY}, (), None),
]


@pytest.mark.parametrize(("text", "name", "environ", "listening", "inactive"), STATES)
def test_active_or_the_reason_why_not(
    text: str, name: str, environ: dict[str, str], listening: tuple[str, ...], inactive: str | None
) -> None:
    assert provider(text, name, environ, listening).inactive == inactive


ADDRESSES: list[tuple[str, str, dict[str, str], Api, str | None]] = [
    ("", "openai", {}, Api.CHAT, "https://api.openai.com/v1/chat/completions"),
    (
        "",
        "openai",
        {"OPENAI_BASE_URL": "http://127.0.0.1:4020/v1"},
        Api.CHAT,
        "https://api.openai.com/v1/chat/completions",
    ),
    ("", "anthropic", {}, Api.MESSAGES, "https://api.anthropic.com/v1/messages"),
    ("", "anthropic", {}, Api.COUNT_TOKENS, "https://api.anthropic.com/v1/messages/count_tokens"),
    ("", "deepseek", {}, Api.MESSAGES, "https://api.deepseek.com/anthropic/v1/messages"),
    ("", "zhipu", {}, Api.MESSAGES, "https://api.z.ai/api/anthropic/v1/messages"),
    ("", "zhipu", {"ZAI_BASE_URL": "https://open.bigmodel.cn/api/paas/v4"}, Api.MESSAGES, None),
    (
        "",
        "groq",
        {"GROQ_BASE_URL": "https://groq.example/"},
        Api.CHAT,
        "https://groq.example/openai/v1/chat/completions",
    ),
    ("", "azure", {"AZURE_OPENAI_ENDPOINT": "https://r.x/"}, Api.RESPONSES, "https://r.x/openai/v1/responses"),
    ("", "perplexity", {}, Api.CHAT, None),
    ("", "perplexity", {}, Api.RESPONSES, "https://api.perplexity.ai/v1/responses"),
    (
        "providers: {zhipu: {base_url: https://glm.example/v4/}}",
        "zhipu",
        {},
        Api.CHAT,
        "https://glm.example/v4/chat/completions",
    ),
    ("providers: {zhipu: {base_url: https://glm.example/v4/}}", "zhipu", {}, Api.MESSAGES, None),
    (BOX, "box", {}, Api.RESPONSES, "http://10.0.0.5:8000/v1/responses"),
]


@pytest.mark.parametrize(("text", "name", "environ", "api", "url"), ADDRESSES)
def test_addresses(text: str, name: str, environ: dict[str, str], api: Api, url: str | None) -> None:
    assert provider(text, name, environ).urls.get(api) == url


def test_a_credential_goes_as_its_provider_wants_it() -> None:
    environ = {"ANTHROPIC_API_KEY": KEY, "AZURE_OPENAI_API_KEY": KEY, "OPENAI_API_KEY": f" {KEY}\n"}
    anthropic = provider("", "anthropic", environ)
    assert anthropic.auth[Api.CHAT] is AuthStyle.BEARER
    assert anthropic.auth[Api.MESSAGES] is anthropic.auth[Api.COUNT_TOKENS] is AuthStyle.X_API_KEY
    assert provider("", "azure", environ).auth[Api.CHAT] is AuthStyle.API_KEY
    assert provider("", "openai", environ).secrets == (KEY,)
    assert provider("", "vllm", {}).auth[Api.CHAT] is AuthStyle.NONE
    assert provider("", "vllm", {"VLLM_API_KEY": KEY}).auth[Api.CHAT] is AuthStyle.BEARER
    assert provider(BOX_WITH_KEY, "box", {"BOX_KEY": "a", "VLLM_API_KEY": "b"}).secrets == ("a",)


def test_no_credential_shows_in_a_representation() -> None:
    table = parse("routes: {x: {tiers: [openai/a]}}", "f", {"OPENAI_API_KEY": "sk-very-secret"})
    assert "very-secret" not in repr(table)
    assert "very-secret" not in repr(plan(table, "x", Api.CHAT))


def test_private_addresses_are_allowed_where_someone_said_so() -> None:
    assert provider(BOX, "box", {}).allow_private
    assert provider("", "ollama", {"OLLAMA_URL": "http://ollama:11434"}).allow_private
    assert not provider("", "ollama", {}).allow_private
    assert not provider("", "openai", {}).allow_private
    with pytest.raises(ConfigError, match="allow_private"):
        parse(OLLAMA, "f", {"OLLAMA_URL": "http://ollama:11434"})


def test_headers_to_pass_are_lower_case() -> None:
    assert provider("providers: {openai: {pass_headers: [X-Trace-Id]}}", "openai", {}).pass_headers == {"x-trace-id"}


TIMEOUTS = """
defaults: {timeouts: {connect: 500ms, idle: 2m}}
routes:
  a: {tiers: [openai/x]}
  b: {tiers: [{target: openai/x}], timeouts: {idle: 1.5s, total: 1h}, about: text, enabled: false}
"""


def test_timeouts_are_inherited_one_by_one() -> None:
    table = parse(TIMEOUTS, "f", {})
    assert table.timeouts == Timeouts(connect_s=0.5, idle_s=120.0)
    assert table.routes[RouteName("a")].timeouts == table.timeouts
    b = table.routes[RouteName("b")]
    assert b.timeouts == Timeouts(connect_s=0.5, idle_s=1.5, total_s=3600.0)
    assert [target.name for target in b.targets] == ["openai/x"]
    assert (b.about, b.enabled) == ("text", False)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_an_empty_file_is_the_catalogue(text: str) -> None:
    table = parse(text, "f", {})
    assert len(table.providers) == 22
    assert not table.routes
    assert table.timeouts == Timeouts()
    assert table.default_route is None


def test_load_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_bytes(b"\xef\xbb\xbfroutes: {x: {tiers: [openai/a]}}\r\n")
    assert list(load(path, {}).routes) == ["x"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "routes.yaml  cannot be read: No such file or directory"),
        (b"a: 1\n\xff\n", "routes.yaml:2:1  not UTF-8: save the file in that encoding"),
        (b"routs: {}\n", "routes.yaml:1:1  routs: unknown key 'routs'. Did you mean 'routes'?"),
    ],
)
def test_what_cannot_be_loaded_is_a_config_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("routes.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(Path("routes.yaml"), {})
    assert str(caught.value) == told


def test_demo_is_the_last_tier_of_every_route_and_a_route() -> None:
    table = with_demo(parse("routes: {x: {tiers: [openai/a, groq/b]}}", "f", {}), "http://127.0.0.1:9/v1/")
    assert [target.name for target in table.routes[RouteName("x")].targets] == ["openai/a", "groq/b", "demo/a"]
    assert [target.name for target in table.routes[RouteName("demo")].targets] == ["demo/penstock-demo"]
    assert table.demo is table.providers[ProviderId("demo")]
    assert table.demo is not None
    assert table.demo.urls[Api.CHAT] == "http://127.0.0.1:9/v1/chat/completions"
    assert set(table.demo.urls) == set(Api) - {Api.PASSTHROUGH}
    assert set(table.demo.auth) == set(Api)
    assert set(table.demo.auth.values()) == {AuthStyle.NONE}


# PRODUCT's table of aliases: the shape of each route as shipped, provider by provider.
ALIASES = {
    "qualification": "openrouter openrouter huggingface ollama",
    "content_generation": "openrouter openrouter huggingface ollama",
    "verification": "openrouter openrouter huggingface ollama",
    "analysis": "openrouter openrouter huggingface ollama",
    "simple": "openrouter huggingface ollama huggingface",
    "draft": "anthropic openai openrouter",
    "summary": "anthropic openai openrouter",
    "complex": "anthropic openai openrouter",
    "vision": "openai anthropic openrouter",
    "general": "openai anthropic openrouter",
    "voice": "openai anthropic openrouter",
    "classification": "dashscope zhipu",
    "code_generation": "deepseek anthropic",
    "conversation": "groq openai",
    "summarization": "gemini mistral",
    "deep_analysis": "anthropic openai",
    "long_context": "moonshot anthropic",
    "web_research": "perplexity openrouter openrouter",
    "expert": "anthropic openai",
}
RETIRED = (
    "gemini-2.0", "claude-sonnet-4", "claude-3", "qwen-turbo", "glm-4-air", "deepseek-chat", "deepseek-reasoner",
    "llama-3.3-70b-versatile", "llama-3.1-8b-instant", "mixtral-8x7b-32768", "moonshot-v1", "kimi-latest", "grok-3",
)  # fmt: skip


@pytest.fixture
def shipped() -> RoutingTable:
    return load(SHIPPED, {})


def test_the_shipped_file_has_every_alias_with_its_tiers(shipped: RoutingTable) -> None:
    tiers = {name: " ".join(target.provider.id for target in route.targets) for name, route in shipped.routes.items()}
    assert tiers == ALIASES
    assert all(route.about and route.enabled for route in shipped.routes.values())
    assert shipped.default_route == "general"


def test_the_shipped_file_names_no_retired_model_or_provider(shipped: RoutingTable) -> None:
    for route in shipped.routes.values():
        for target in route.targets:
            assert not any(retired in target.model for retired in RETIRED), target.name
            assert "retired" not in str(target.provider.inactive)


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("gpt-4o-mini", "openai/gpt-4o-mini"),
        ("gpt-4o", "openai/gpt-4o"),
        ("o3-mini", "openai/o3-mini"),
        ("claude-sonnet-5-5", "anthropic/claude-sonnet-5-5"),
        ("gemini-3.8-flash", "gemini/gemini-3.8-flash"),
        ("text-embedding-3-small", "openai/text-embedding-3-small"),
        (None, "openai/gpt-4o-mini"),
    ],
)
def test_names_that_tools_send_work_with_the_keys_alone(asked: str | None, target: str) -> None:
    table = load(SHIPPED, {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY, "GEMINI_API_KEY": KEY})
    planned = plan(table, asked, Api.CHAT)
    assert isinstance(planned, Plan)
    assert planned.targets[0].name == target


def test_ollama_in_a_container_needs_its_variable_only() -> None:
    table = load(SHIPPED, {"OLLAMA_URL": "http://ollama:11434"})
    assert table.providers[ProviderId("ollama")].inactive is None
    assert isinstance(plan(table, "simple", Api.CHAT), Plan)


def test_what_a_table_says_of_money_beside_prices() -> None:
    table = parse(
        """
providers: {box: {like: vllm, base_url: "http://127.0.0.1:8000/v1"}}
budgets: {daily: 100}
accounts: {acme: {budgets: {monthly: 5}}, globex: {}}
alerts: [{to: slack, url: env:SLACK}]
baseline: box/llama/70b
ledger: {keep_days: 400}
""",
        "routes.yaml",
        {"SLACK": "https://hooks.slack.example/canary"},
    )
    assert [payer.subject for payer in table.budgets.payers()] == ["proxy", "account:acme"]
    assert list(table.budgets.accounts) == ["acme"]
    assert table.alerts == (SlackWebhook("https://hooks.slack.example/canary"),)
    assert table.baseline == Target(table.providers[ProviderId("box")], "llama/70b")
    assert table.ledger_keep_days == 400
    assert "canary" not in repr(table)


def test_a_file_that_says_nothing_of_money() -> None:
    table = parse("{}", "routes.yaml", {})
    assert table.budgets.payers() == ()
    assert (table.alerts, table.baseline, table.ledger_keep_days) == ((), None, None)
