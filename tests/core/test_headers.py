"""Which headers pass, both ways: the lists of the contract, and what a hostile side could try."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from proxy.core import headers
from proxy.core.credential import Credential
from proxy.core.headers import ANTHROPIC_VERSION, to_client
from proxy.core.routing import AuthStyle, Provider, Target
from proxy.terms import Api, ProviderId

KEY = "sk-provider-0123456789"
FIXED = {"accept-encoding": "identity", "content-type": "application/json"}


def target(
    style: AuthStyle = AuthStyle.BEARER, credential: str | None = KEY, passed: frozenset[str] = frozenset()
) -> Target:
    credentials = () if credential is None else (Credential(credential),)
    provider = Provider(
        ProviderId("p"), "https://p.example", {}, None, dict.fromkeys(Api, style), credentials, pass_headers=passed
    )
    return Target(provider, "m")


def to_upstream(inbound: Mapping[str, str], target: Target, api: Api) -> dict[str, str]:
    """Where the target's first credential is shown."""
    return headers.to_upstream(inbound, target, api, next(iter(target.provider.credentials), None))


OPEN = target(credential=None)

# To the provider.

PASS = [
    "accept",
    "user-agent",
    "openai-beta",
    "anthropic-version",
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "idempotency-key",
    "http-referer",
    "x-title",
    "traceparent",
]
STAY = [
    "authorization",
    "x-api-key",
    "api-key",
    "cookie",
    "set-cookie",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authorization",
    "proxy-connection",
    "content-length",
    "content-encoding",
    "expect",
    "range",
    "if-none-match",
    "accept-encoding",
    "accept-language",
    "origin",
    "referer",
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "cf-connecting-ip",
    "openai-organization",
    "openai-project",
    "x-goog-api-key",
    "x-amz-security-token",
    "x-request-id",
    "x-penstock-provider",
    "x-penstock-timeout",
    "x-penstock-tags",
    "x-custom-host",
    "x-portkey-custom-host",
    "x-stainless-retry-count",
    "x-stainless-lang",
    "x-ratelimit-limit-requests",
    "tracestate",
    "baggage",
    "sec-fetch-mode",
    "dnt",
    "priority",
    "x-anthropic-beta",
    "anthropic",
]


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("name", PASS)
def test_what_passes_to_a_provider(name: str, spelling: type[str]) -> None:
    assert to_upstream({spelling(name): "v; q=1"}, OPEN, Api.CHAT) == {**FIXED, name: "v; q=1"}


@pytest.mark.parametrize("spelling", [str.lower, str.upper, str.title])
@pytest.mark.parametrize("name", STAY)
def test_what_stays_with_us(name: str, spelling: type[str]) -> None:
    assert to_upstream({spelling(name): "v"}, OPEN, Api.CHAT) == FIXED


def test_the_clients_own_body_headers_are_replaced() -> None:
    sent = to_upstream({"Content-Type": "text/plain", "Accept-Encoding": "zstd"}, OPEN, Api.CHAT)
    assert sent == FIXED


def test_a_provider_may_add_to_the_list() -> None:
    inbound = {"X-Trace": "1", "x-other": "2"}
    assert to_upstream(inbound, target(credential=None, passed=frozenset({"x-trace"})), Api.CHAT) == {
        **FIXED,
        "x-trace": "1",
    }


@pytest.mark.parametrize("connection", ["x-title", "keep-alive, X-Title", " x-title ,close", "X-TITLE"])
def test_what_connection_names_is_hop_by_hop(connection: str) -> None:
    inbound = {"Connection": connection, "X-Title": "v", "User-Agent": "a"}
    assert to_upstream(inbound, OPEN, Api.CHAT) == {**FIXED, "user-agent": "a"}


def test_connection_on_several_lines_counts_whole() -> None:
    inbound = CIMultiDict([("Connection", "close"), ("connection", "x-title"), ("X-Title", "v")])
    assert to_upstream(inbound, OPEN, Api.CHAT) == FIXED


def test_a_list_on_several_lines_arrives_whole() -> None:
    inbound = CIMultiDict([("anthropic-beta", "a-2025-01-01"), ("Anthropic-Beta", "b,c")])
    sent = to_upstream(inbound, OPEN, Api.MESSAGES)
    assert sent["anthropic-beta"] == "a-2025-01-01, b,c"


def test_connection_cannot_take_away_what_is_ours() -> None:
    sent = to_upstream({"Connection": "authorization, content-type, accept-encoding"}, target(), Api.CHAT)
    assert sent == {**FIXED, "Authorization": f"Bearer {KEY}"}


UNSAFE = ["a\r\nx-evil: 1", "a\nb", "a\0b", "a\x7f", "a\tb", "caf\u00e9", "\u2028", "\udcff", "\x1b[31m"]


@pytest.mark.parametrize("value", UNSAFE)
def test_unsafe_values_pass_neither_way(value: str) -> None:
    assert to_upstream({"user-agent": value, "x-title": "ok"}, OPEN, Api.CHAT) == {**FIXED, "x-title": "ok"}
    assert to_client([("x-model", value), ("x-ok", "ok"), ("x-request-id", value)]) == [("x-ok", "ok")]


STYLES: list[tuple[AuthStyle, dict[str, str]]] = [
    (AuthStyle.BEARER, {"Authorization": f"Bearer {KEY}"}),
    (AuthStyle.X_API_KEY, {"x-api-key": KEY}),
    (AuthStyle.API_KEY, {"api-key": KEY}),
    (AuthStyle.NONE, {}),
]


@pytest.mark.parametrize(("style", "shown"), STYLES)
def test_how_a_provider_is_shown_its_credential(style: AuthStyle, shown: dict[str, str]) -> None:
    assert to_upstream({}, target(style), Api.CHAT) == {**FIXED, **shown}
    assert to_upstream({}, target(style, credential=None), Api.CHAT) == FIXED


@pytest.mark.parametrize("style", AuthStyle)
def test_the_clients_credential_never_reaches_a_provider(style: AuthStyle) -> None:
    inbound = dict.fromkeys(
        ("Authorization", "X-Api-Key", "Api-Key", "Cookie", "Proxy-Authorization"), "sk-client-canary"
    )
    assert "canary" not in str(to_upstream(inbound, target(style), Api.CHAT))
    assert "canary" not in str(to_upstream(inbound, target(style, credential=None), Api.CHAT))


@pytest.mark.parametrize("api", Api)
def test_messages_get_a_version_unless_the_client_names_one(api: Api) -> None:
    is_messages = api in (Api.MESSAGES, Api.COUNT_TOKENS)
    assert to_upstream({}, OPEN, api).get("anthropic-version") == (ANTHROPIC_VERSION if is_messages else None)
    assert to_upstream({"Anthropic-Version": "2099-01-01"}, OPEN, api)["anthropic-version"] == "2099-01-01"


# To the client.

DROPPED = [
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Content-Length",
    "Content-Encoding",
    "Set-Cookie",
    "Set-Cookie2",
    "Server",
    "Date",
    "Via",
    "Alt-Svc",
    "Access-Control-Allow-Origin",
    "Access-Control-Allow-Credentials",
    "Access-Control-Expose-Headers",
    "Content-Security-Policy",
    "Content-Security-Policy-Report-Only",
    "Strict-Transport-Security",
    "Clear-Site-Data",
    "X-Penstock-Cost-Usd",
    "X-Penstock-Route",
    "X-RateLimit-Limit-Requests",
    "x-ratelimit-reset-tokens",
]
PASSED = [
    "Content-Type",
    "Cache-Control",
    "OpenAI-Processing-Ms",
    "OpenAI-Version",
    "X-Generation-Id",
    "anthropic-ratelimit-requests-limit",
    "request-id",
    "apim-request-id",
    "x-accel-buffering",
    "X-Content-Type-Options",
    "Retry-After",
    "X-Should-Retry",
    "ratelimit",
    "ETag",
]


@pytest.mark.parametrize("name", DROPPED)
def test_what_is_kept_from_the_client(name: str) -> None:
    for spelled in (name, name.lower(), name.upper()):
        assert to_client([(spelled, "v"), ("x-ok", "1")]) == [("x-ok", "1")]


@pytest.mark.parametrize("name", PASSED)
def test_what_passes_to_the_client(name: str) -> None:
    assert to_client([(name, "v"), (name, "w")]) == [(name, "v"), (name, "w")]


def test_the_upstreams_request_id_has_a_name_of_its_own() -> None:
    assert to_client([("X-Request-ID", "r")]) == [("x-penstock-upstream-request-id", "r")]


def test_an_upstream_cannot_speak_in_our_name() -> None:
    assert to_client([("x-penstock-upstream-request-id", "forged"), ("X-Penstock-Anything", "x")]) == []


@pytest.mark.parametrize("connection", ["x-secret", "close, X-Secret", " x-secret ", "keep-alive,x-secret,x-other"])
@pytest.mark.parametrize("first", [True, False])
def test_what_an_upstreams_connection_names_is_dropped(connection: str, first: bool) -> None:
    named = [("Connection", connection)]
    pairs = [("x-secret", "s"), ("x-ok", "1")]
    assert to_client(named + pairs if first else pairs + named) == [("x-ok", "1")]


def test_an_iterator_of_pairs_is_read_once() -> None:
    assert to_client(iter([("x-ok", "1"), ("connection", "x-no"), ("x-no", "2")])) == [("x-ok", "1")]


_NAMES = st.sampled_from([*PASS, *STAY, *(name.lower() for name in DROPPED + PASSED)])
_PAIRS = st.lists(
    st.tuples(_NAMES, st.text(max_size=6) | st.sampled_from(["x-title", "user-agent, accept"])), max_size=8
)


@given(pairs=_PAIRS)
def test_nothing_unlisted_or_unsafe_passes_either_way(pairs: list[tuple[str, str]]) -> None:
    named = {part.strip().lower() for name, value in pairs if name == "connection" for part in value.split(",")}
    sent = to_upstream(CIMultiDict(pairs), target(), Api.CHAT)
    assert {name for name in sent if not name.startswith("anthropic-")} <= {*PASS, *FIXED, "Authorization"}
    assert not named & (set(sent) - set(FIXED))
    told = to_client(pairs)
    assert not {name for name, _ in told} & ({name.lower() for name in DROPPED} | {"x-request-id"} | named)
    for value in [*sent.values(), *(value for _, value in told)]:
        assert value.isascii()
        assert value.isprintable()
