"""No secret in any form leaves; ordinary words stay; hostile texts take linear time."""

import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.redact import MASK, body, cut, passwords_of, text, written_forms
from tests.canaries.forms import SHAPED, found, secret_part

BODY = "AbCdEf0123456789AbCdEf0123456789"
CANARIES = [
    f"sk-{BODY}",
    f"sk-proj-{BODY}_{BODY}",
    f"sk-ant-api03-{BODY}-{BODY}AA",
    f"sk-or-v1-{BODY.lower()}",
    f"gsk_{BODY}",
    f"hf_{BODY}",
    f"xai-{BODY}",
    f"psk-{BODY}",
    f"csk-{BODY}",
    f"fw_{BODY}",
    f"pplx-{BODY}",
    f"tgp_v1_{BODY}",
    f"AIza{BODY}abc",
    f"ghp_{BODY}",
    f"github_pat_{BODY}",
    f"rk_live_{BODY}",
    f"pk-{BODY}",
    f"sk-{'*' * 20}{BODY[-4:]}",
    f"sk-proj-{'*' * 100}{BODY[-4:]}",
]
AROUND = [
    "{}",
    "key {}.",
    "'{}'",
    '"{}"',
    "key={}&x",
    "Bearer {}",
    "(api_key:{})",
    "\n{}\n",
    "Incorrect API key provided: {}.",
]


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("canary", CANARIES)
def test_what_looks_like_a_key_is_masked(canary: str, around: str) -> None:
    masked = text(around.format(canary))
    assert MASK in masked
    assert BODY[:8] not in masked
    assert BODY[-4:] not in masked
    assert masked.startswith(around.partition("{}")[0][:3])


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_bearer_token_of_any_form_is_masked(scheme: str) -> None:
    assert text(f"Authorization: {scheme} eyJhbGciOi.J9.abc/+=~x rest") == f"Authorization: {scheme} {MASK} rest"


CREDENTIALS = ["0123456789abcdef", "a/b+c=d.e", "pass word", "[a-z]+(x", "ключ-ключ", "secret"]


@pytest.mark.parametrize("credential", CREDENTIALS)
def test_a_known_credential_is_masked_whatever_its_form(credential: str) -> None:
    said = f"x{credential}y {credential}{credential}"
    assert credential not in text(said, [credential])
    assert credential.encode() not in body(said.encode(), [credential])
    assert text(said, [credential]) == f"x{MASK}y {MASK}{MASK}"


PLAIN = [
    "The model `gpt-4o` does not exist.",
    "skip the task, ask later: risk-free",
    "openrouter/meta-llama/llama-3.3-70b-instruct:free",
    "Rate limit reached for gpt-4o in organization org-abc on tokens per min (TPM): Limit 30000",
    "hf is not set; sk- is a prefix",
    "",
]


@pytest.mark.parametrize("plain", PLAIN)
def test_ordinary_words_stay(plain: str) -> None:
    assert text(plain, ["", "a", "model"]) == plain
    assert body(plain.encode(), ["", "a", "model"]) == plain.encode()


def test_a_body_keeps_its_bytes() -> None:
    raw = b'{"a":"\xff\\u00e9 sk-0123456789abcdef"}\r\n'
    assert body(raw) == raw
    assert body(raw, ["0123456789abcdef"]) == raw.replace(b"0123456789abcdef", MASK.encode())


def test_secrets_are_known_as_they_are_written_too() -> None:
    forms = written_forms(["ollama", 'quo"ted\\key', "abcdefgh", "abcdefghij"])
    written = ('quo\\"ted\\\\key', 'quo"ted\\\\key', 'quo"ted\\key')
    assert forms == (*written, "abcdefghij", "abcdefgh"), "the longest first, none too short"
    assert body(b"abcdefghij abcdefgh", forms) == f"{MASK} {MASK}".encode()


@given(
    before=st.text(max_size=30), after=st.text(max_size=30), credential=st.text("abc019-_/.", min_size=6, max_size=40)
)
def test_no_credential_survives_anywhere(before: str, after: str, credential: str) -> None:
    if credential in MASK:
        return
    assert credential not in text(f"{before}{credential}{after}", [credential]).replace(MASK, "\0")
    assert credential.encode() not in body(f"{before}{credential}{after}".encode(), [credential]).replace(
        MASK.encode(), b"\0"
    )


MIB = 2**20
ADVERSARIAL = {
    "prefixes": "sk-" * (MIB // 3),
    "prefixes apart": "sk- " * (MIB // 4),
    "just too short": "sk-aaaaaaaaaaa " * (MIB // 15),
    "one long key": "sk-" + "a" * MIB,
    "stars": "sk-" + "*" * MIB,
    "bearers": "Bearer " * (MIB // 7),
    "bearer, long": "Bearer " + "a" * MIB,
    "bearer, too short": "Bearer aaaaaaa;" * (MIB // 15),
    "letters": "a" * MIB,
    "boundaries": "a-" * (MIB // 2),
    "spaces": " " * MIB,
    "github": "github_pat" * (MIB // 10),
}


@pytest.mark.parametrize("hostile", ADVERSARIAL.values(), ids=ADVERSARIAL)
def test_hostile_texts_take_linear_time(hostile: str) -> None:
    fastest = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        text(hostile, ["0123456789abcdef"])
        fastest = min(fastest, time.perf_counter() - began)
    assert fastest < 0.15  # 0.04 s as measured; the rest is for a busy machine


@pytest.mark.parametrize("around", ["{}", "'{}'", "it said {} and went", '{{"why":"{}"}}'])
@pytest.mark.parametrize("canary", SHAPED.values(), ids=SHAPED)
def test_s53_every_form_is_masked(canary: str, around: str) -> None:
    masked = text(around.format(canary))
    assert MASK in masked
    assert not found(masked, [canary])
    assert body(around.format(canary).encode(), shapes=True) == masked.encode()


@pytest.mark.parametrize("canary", SHAPED.values(), ids=SHAPED)
def test_s53_what_is_cut_is_masked_first(canary: str) -> None:
    for chars_max in (8, 20, 40, 80):
        for said in (
            canary,
            quote(canary, safe=""),
            f"/v1/{quote(canary, safe='')}?x",
            "x" * (chars_max - 8) + " " + canary,
        ):
            assert secret_part(canary)[:6] not in cut(said, chars_max)
    assert cut("plain/%20words", 80) == "plain/%20words"
    assert cut("a" * 100, 40) == "a" * 40


def test_s53_a_password_in_an_address_is_known_in_both_its_forms() -> None:
    assert passwords_of("redis://u:p%40ss-word@h:1/0") == ("p%40ss-word", "p@ss-word")
    assert passwords_of("postgresql://u@h/db") == passwords_of("http://[") == passwords_of("x") == ()


@pytest.mark.parametrize(
    "plain",
    [
        "Basic authentication is required, Bearer or Basic alike",
        "https://api.openai.com/v1/chat/completions?model=gpt-4o&n=2",
        "http://127.0.0.1:4020/v1: see user@example.com",
        "team=search, run=7, max_tokens=4096",
        "routes.yaml:1:22  routes.r.tiers[0]: expected a target",
        "req_0123456789abcdef01234567 sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ],
)
def test_what_resembles_a_secret_stays(plain: str) -> None:
    assert text(plain) == plain == cut(plain, 200)
