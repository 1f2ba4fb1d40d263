"""Secrets in the forms in which they are met: none is anybody's. Each holds `CORE`, or a part that only it has."""

CORE = "QzX7canaryW4vT1nB6yKd9LpRf2JmGc3"
HEX = "deadbeef0ca4a47f1e2d3c4b5a697887"

# What a sink must never show: by a shape, whoever sent it.
SHAPED = {
    "openai": f"sk-{CORE}",
    "openai project": f"sk-proj-{CORE}_{CORE}",
    "anthropic": f"sk-ant-api03-{CORE}-AA",
    "openrouter": f"sk-or-v1-{HEX}{HEX}",
    "deepseek": f"sk-{HEX}",
    "dashscope": f"sk-{HEX[:16]}{CORE}",
    "moonshot": f"sk-{CORE}{CORE}",
    "groq": f"gsk_{CORE}",
    "huggingface": f"hf_{CORE}",
    "xai": f"xai-{CORE}{CORE}",
    "perplexity": f"pplx-{CORE}",
    "cerebras": f"csk-{CORE}",
    "fireworks": f"fw_{CORE}",
    "together": f"tgp_v1_{CORE}",
    "gemini": f"AIza{CORE}abc",
    "gemini, new": f"AQ.{CORE}",
    "google token": f"ya29.{CORE}",
    "nvidia": f"nvapi-{CORE}",
    "aws": "AKIAQZX7CANARY4VT1NB",
    "github": f"ghp_{CORE}",
    "github, fine": f"github_pat_{CORE}",
    "gitlab": f"glpat-{CORE}",
    "slack": f"xoxb-1234567890-{CORE}",
    "stripe": f"rk_live_{CORE}",
    "virtual key": f"psk-{CORE}",
    "bearer": f"Bearer {CORE}",
    "basic": "Basic UXpYN2NhbmFyeTpXNHZUMW5CNg==",
    "jwt": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ{CORE}In0.{CORE}",
    "dsn": f"postgresql://penstock:{CORE}@db.example/penstock",
    "redis": f"rediss://:{CORE}@cache.example:6380/0",
    "url": f"https://someone:{CORE}@example.test/v1",
    "query": f"https://example.test/v1?api_key={CORE}",
    "slack hook": f"https://hooks.slack.com/services/T0/B0/{CORE}",
}

# What has no shape, and is known: the process holds it.
KNOWN = {
    "credential": "7f3e9a1c5b8d2e4f6a0b-c9d8e7f6a5b4c3d2.Kq",
    "admin key": "hush-Zq8vT1nB6yKd4wXs9LpRf2JmGc7h",
}

PROMPT = "the-heron-prompt-nobody-else-may-read"
COMPLETION = "the-otter-answer-nobody-else-may-read"


def secret_part(canary: str) -> str:
    """What of a canary must not be seen: with a URL its host may be."""
    for part in (CORE, HEX, "AKIAQZX7CANARY4VT1NB", "UXpYN2NhbmFyeTpXNHZUMW5CNg"):
        if part in canary:
            return part
    return canary


def found(sink: str | bytes, canaries: list[str]) -> list[str]:
    """The canaries of which something is in a sink."""
    seen = sink.encode() if isinstance(sink, str) else sink
    return [canary for canary in canaries if secret_part(canary).encode() in seen]
