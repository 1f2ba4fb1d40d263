"""LiteLLM configurations to routes files: golden texts with their notes, what they resolve to, and hostile ones."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config.from_litellm.deployments import ANY
from proxy.config.from_litellm.facts import REASONS, REQUEST_MEMBERS, SPOKEN, UNSPOKEN
from proxy.config.from_litellm.source import Found, Source
from proxy.config.from_litellm.tiers import whole
from proxy.config.litellm import convert, header
from proxy.config.problem import ConfigError
from proxy.config.read import read
from proxy.config.resolve import parse
from proxy.config.write import rendered
from proxy.core.routing import Plan, RoutingTable, plan
from proxy.providers.rows import CATALOGUE
from proxy.terms import Api

# Blocks of `=== name`, LiteLLM's file, `=== routes`, ours without its comment, `=== notes`, and a line for each without the
# file's name. What is `(later)` has forms that `penstock check` refuses until they are supported.
GOLDEN = (Path(__file__).parent / "litellm.golden").read_text("utf-8")
BLOCKS = re.findall(
    r"^=== ([^\n]+)\n(.*?)^=== routes\n(.*?)^=== notes\n(.*?)\n(?=^===|\Z)", GOLDEN, re.MULTILINE | re.DOTALL
)
LATER = "is not supported by this version of Penstock yet"
SECRET = "very-secret-value"


def converted(text: str) -> tuple[str, list[str]]:
    """The routes file of a LiteLLM configuration, without its comment, and the notes without the file's name."""
    made = convert(read(text, "config.yaml"), "config.yaml")
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header("config.yaml"))
    written = rendered(made.document, header("config.yaml"))
    assert written.startswith(comment + "\n")
    return written.removeprefix(comment + "\n"), [str(note).removeprefix("config.yaml:") for note in made.notes]


def environment(text: str) -> dict[str, str]:
    """An environment in which every variable that an address needs is set."""
    return dict.fromkeys(re.findall(r"\$\{([A-Z_]+)\}", text), "https://llm.example.com")


def problems(text: str, *, later: bool) -> list[str]:
    """What `penstock check` has to say. ``later``: but for forms that it does not support yet."""
    try:
        parse(text, "routes.yaml", environment(text))
    except ConfigError as error:
        return [str(problem) for problem in error.problems if not (later and LATER in problem.message)]
    return []


def table(litellm: str) -> RoutingTable:
    """What a converted file resolves to where every credential that it names is set."""
    text, _ = converted(litellm)
    keys = {name for row in CATALOGUE.values() for name in row.key_vars} | set(re.findall(r"env:([A-Z0-9_]+)", text))
    return parse(text, "routes.yaml", {**dict.fromkeys(keys, "sk-1"), **environment(text)})


def test_the_golden_file_is_read_whole() -> None:
    assert len(BLOCKS) == len(re.findall("^=== routes$", GOLDEN, re.MULTILINE)) == 30


@pytest.mark.parametrize(
    ("litellm", "routes", "notes"), [block[1:] for block in BLOCKS], ids=[name for name, *_ in BLOCKS]
)
def test_a_configuration_becomes_this_routes_file_and_these_notes(litellm: str, routes: str, notes: str) -> None:
    text, told = converted(litellm)
    assert text == routes
    assert told == notes.splitlines()


@pytest.mark.parametrize(
    ("name", "routes"), [(name, routes) for name, _, routes, _ in BLOCKS], ids=[one[0] for one in BLOCKS]
)
def test_a_converted_file_passes_the_check(name: str, routes: str) -> None:
    assert problems(routes, later=name.endswith("(later)")) == []


def test_no_secret_is_ever_copied() -> None:
    assert GOLDEN.count(SECRET) == 20
    for _, _, routes, notes in BLOCKS:
        assert SECRET not in routes
        assert SECRET not in notes
        assert "sk-1234" not in routes + notes


def test_the_first_line_names_the_schema_and_a_file_name_cannot_leave_the_comment() -> None:
    text = rendered({"routes": {}}, header("config\nroutes: {}.yaml"))
    assert text.startswith("# yaml-language-server: $schema=./routes.schema.json\n")
    assert r"from config\nroutes: {}.yaml." in text
    assert read(text, "routes.yaml").data == {"routes": {}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "config.yaml:1:1  expected a LiteLLM configuration with model_list, got nothing"),
        ("- a", "config.yaml:1:1  expected a LiteLLM configuration with model_list, got a list"),
        ("routes: {}", "config.yaml:1:1  has no model_list. It is another file, its models stand in a file that"),
        ("model_list:", "config.yaml:1:1  has no model_list. It is another file"),
        ("model_list: []", "config.yaml:1:1  model_list: nothing of it can be carried over"),
        ("model_list: {a: b}", "config.yaml:1:1  model_list: not carried over: expected a list"),
        ("model_list: [", "config.yaml:2:1  not YAML: did not find expected node content"),
        ("model_list: []\nmodel_list: []", "config.yaml:2:1  model_list: this key is already set on line 1. Keep one"),
        (
            "model_list: [{model_name: a, litellm_params: {model: openai/a, model: openai/b}}]",
            "this key is already set",
        ),
        ("model_list: *gone", "alias *gone: its anchor is not defined before it"),
        ("model_list: &a [*a]", "alias *a: its anchor contains itself"),
        ("model_list: []\nrouter_settings: {model_group_alias: {4: a}}", 'key 4 is not text. Quote it: "4"'),
        ("model_list: !!python/object/apply:os.system [id]", "tag '!!python/object/apply:os.system' is not supported"),
    ],
)
def test_what_is_no_configuration_is_refused_with_the_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(read(text, "config.yaml"), "config.yaml")
    assert told in str(caught.value)


def test_where_nothing_is_left_the_notes_say_why() -> None:
    with pytest.raises(ConfigError) as caught:
        converted("model_list: [{model_name: a, litellm_params: {model: bedrock/x}}]")
    assert [problem.message.partition(":")[0] for problem in caught.value.problems] == [
        "nothing of it can be carried over",
        "left out",
        "left out",
    ]


def test_aliases_that_would_fill_the_memory_are_refused() -> None:
    levels = "".join(f"x-{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 9)}]\n" for index in range(1, 9))
    with pytest.raises(ConfigError, match="aliases expand to more than"):
        converted(f"x-0: &a0 [1]\n{levels}model_list: *a8\n")


# What LiteLLM's own rule makes of a wildcard: the segments of the name go into the model, one after the other.


def expected(name: str, model: str, asked: str) -> str:
    match = re.fullmatch(re.escape(name).replace(r"\*", "(.*)"), asked)
    assert match is not None
    for segment in match.groups():
        model = model.replace(ANY, segment, 1)
    return model


@pytest.mark.parametrize(
    ("name", "model", "asked"),
    [
        ("*", "openrouter/*", "a/b"),
        ("*", "openai/gpt-5", "anything"),
        ("gpt-*", "openai/gpt-*", "gpt-5"),
        ("gpt-*", "openrouter/openai/gpt-*", "gpt-5"),
        ("*-latest", "mistral/*-latest", "mistral-small-latest"),
        ("a-*-z", "groq/x-a-*-z-y", "a-m-z"),
        ("openai/*", "openai/*", "openai/gpt-5"),
        ("openai/*", "openrouter/openai/*", "openai/gpt-5"),
        ("groq/openai/*", "groq/openai/*", "groq/openai/gpt-oss-20b"),
        ("mine/*", "groq/*", "mine/llama"),
        ("together_ai/*", "together_ai/*", "together_ai/a/b"),
        ("mine/gpt-*", "openai/gpt-*", "mine/gpt-5"),
    ],
)
def test_a_wildcard_leads_where_litellm_leads_it(name: str, model: str, asked: str) -> None:
    made = table(f'model_list: [{{model_name: "{name}", litellm_params: {{model: "{model}"}}}}]')
    planned = plan(made, asked, Api.CHAT)
    assert isinstance(planned, Plan)
    provider, _, sent = expected(name, model, asked).partition("/")
    assert [(target.provider.base_url, target.model) for target in planned.targets] == [
        (made.providers[SPOKEN[provider].like].base_url, sent)  # type: ignore[index] # an id of the catalogue
    ]


def test_a_wildcard_at_a_server_of_ones_own_takes_over_the_name_of_a_provider() -> None:
    made = table(
        'model_list: [{model_name: "openai/*", litellm_params: {model: "openai/*", api_base: "http://10.0.0.5:8000/v1"}}]'
    )
    planned = plan(made, "openai/llama", Api.CHAT)
    assert isinstance(planned, Plan)
    (target,) = planned.targets
    assert (target.provider.urls[Api.CHAT], target.model) == ("http://10.0.0.5:8000/v1/chat/completions", "llama")


def test_a_catch_all_hides_no_other_wildcard() -> None:
    made = table(
        """
model_list:
  - {model_name: "*", litellm_params: {model: "openai/*"}}
  - {model_name: "anthropic/*", litellm_params: {model: "anthropic/*"}}
"""
    )
    for asked, target in (("gpt-5", "openai/gpt-5"), ("anthropic/claude-x", "anthropic/claude-x")):
        planned = plan(made, asked, Api.CHAT)
        assert isinstance(planned, Plan)
        assert [one.name for one in planned.targets] == [target]


def test_one_that_would_hide_another_is_left_out() -> None:
    text, notes = converted(
        """
model_list:
  - {model_name: "*", litellm_params: {model: "openrouter/*"}}
  - {model_name: "groq/*", litellm_params: {model: "groq/*"}}
"""
    )
    assert text == "providers:\n  groq: {}\n"
    assert notes == ["3:5  model_list[0]: left out: it would hide 'groq/...'"]


def test_a_route_has_no_more_tiers_than_the_schema_allows() -> None:
    entries = "".join(f"- {{model_name: a{i}, litellm_params: {{model: openai/m{i}}}}}\n" for i in range(60))
    fallbacks = ", ".join(f"a{i}" for i in range(1, 60))
    text, notes = converted(f"model_list:\n{entries}litellm_settings: {{fallbacks: [{{a0: [{fallbacks}]}}]}}\n")
    assert len(parse(text, "routes.yaml", {}).routes["a0"].tiers) == 50  # type: ignore[index] # a route's name
    assert notes == ["2:3  model_list[0]: 'a0' keeps its first 50 tiers: a route has no more"]


def test_a_chain_of_fallbacks_is_followed_to_the_last_tier() -> None:
    entries = "".join(f"- {{model_name: a{i}, litellm_params: {{model: openai/m{i}}}}}\n" for i in range(100))
    chain = ", ".join(f"{{a{i}: [a{i + 1}]}}" for i in range(99))
    text, _ = converted(f"model_list:\n{entries}litellm_settings: {{fallbacks: [{chain}]}}\n")
    routes = parse(text, "routes.yaml", {}).routes
    for index in range(100):
        models = [target.model for target in routes[f"a{index}"].targets]  # type: ignore[index] # a route's name
        assert models == [f"m{number}" for number in range(index, min(index + 50, 100))]


@pytest.mark.parametrize(
    "text",
    [
        "{a: &a {x: 1, y: 2}, b: {<<: *a, y: 3}}",
        "{a: &a {x: 1}, c: &c {x: 2, z: 3}, b: {<<: [*a, *c], w: 4}}",
        "{a: &a {x: 1}, c: &c {<<: *a, y: 2}, b: {y: 5, <<: *c}}",
        "{b: {<<: {x: 1}, y: 2}}",
    ],
)
def test_merge_keys_mean_what_they_mean_to_litellm(text: str) -> None:
    document = read(text, "config.yaml")
    source = Source(document, "config.yaml")
    merged = {key: found.value for key, found in source.members(Found(document.data["b"], ("b",))).items()}
    assert merged == yaml.safe_load(text)["b"]


def test_the_facts_agree_with_the_catalogue() -> None:
    for prefix, spoken in SPOKEN.items():
        assert spoken.like in CATALOGUE, prefix
        assert (spoken.base_url is None) == (not spoken.id or spoken.base_var is not None), prefix
    assert not SPOKEN.keys() & UNSPOKEN.keys()
    assert not REQUEST_MEMBERS & REASONS.keys()


# Whatever stands there: nothing but a ConfigError comes out, no secret, and no file that fails for another reason than a
# form that is not supported yet.

NAMES = (
    "a",
    "b/c",
    "openai/*",
    "*",
    "gpt-*",
    "mine/*",
    "x*y*",
    "demo",
    "\x1b[31m",
    "a b",
    "0o17",
    "no",
    '"q"',
    "é☃",
    "",
)
MODELS = (
    "gpt-4o",
    "openai/gpt-4o",
    "openai/*",
    "*",
    "azure/dep",
    "bedrock/x",
    "ollama/llama3:8b",
    "hosted_vllm/m",
    "x/y",
)
ADDRESSES = (
    "os.environ/BASE",
    "http://10.0.0.5:8000/v1",
    "https://api.deepseek.com/v1",
    f"https://u:{SECRET}@h.example/v1",
    "http://[::1]:80/v1",
    "not a url",
    "${BASE}",
)
CREDENTIALS = ("os.environ/OPENAI_API_KEY", "os.environ/K2", f"sk-{SECRET}", "none", "")
NUMBERS = (0, 1, 2.5, "3", -1, 1e9, True, "os.environ/N")
names, anything = st.sampled_from(NAMES), st.sampled_from((None, 5, "text", [5], {"a": 5}))
params = st.fixed_dictionaries(
    {"model": st.sampled_from(MODELS)},
    optional={
        "api_base": st.sampled_from(ADDRESSES) | anything,
        "api_key": st.sampled_from(CREDENTIALS) | anything,
        **dict.fromkeys(("rpm", "weight", "order", "timeout", "stream_timeout"), st.sampled_from(NUMBERS) | anything),
        "temperature": st.sampled_from(NUMBERS) | anything,
        "extra_body": st.sampled_from(({"top_k": 5}, {"api_key": SECRET})) | anything,
        "extra_headers": st.just({"Authorization": SECRET}),
    },
)
entries = st.fixed_dictionaries({"model_name": names, "litellm_params": params}) | anything
fallbacks = st.lists(st.dictionaries(names, st.lists(names, max_size=3), max_size=2), max_size=3) | anything
configurations = st.fixed_dictionaries(
    {"model_list": st.lists(entries, min_size=1, max_size=6)},
    optional={
        "router_settings": st.fixed_dictionaries(
            {},
            optional={
                "fallbacks": fallbacks,
                "routing_strategy": st.sampled_from(("simple-shuffle", "latency-based-routing", "least-busy"))
                | anything,
                "model_group_alias": st.dictionaries(names, names, max_size=3) | anything,
                "timeout": st.sampled_from(NUMBERS),
            },
        )
        | anything,
        "litellm_settings": st.fixed_dictionaries({"default_fallbacks": st.lists(names, max_size=2)}) | anything,
        "general_settings": st.fixed_dictionaries({"completion_model": names, "master_key": st.just(SECRET)}),
        "environment_variables": st.just({"BASE": f"https://u:{SECRET}@h.example"}),
    },
)


@settings(max_examples=300, deadline=None)
@given(configuration=configurations)
def test_whatever_stands_there(configuration: Mapping[str, Any]) -> None:
    litellm = json.dumps(configuration).replace(r"\u001b", r"\x1b")
    made, told = attempted(litellm)
    assert SECRET not in "".join(told)
    assert all(map(str.isprintable, told))
    if made is not None:
        text = rendered(made, header("config.yaml"))
        assert SECRET not in text
        assert read(text, "routes.yaml").data == made
        assert problems(text, later=True) == []


def attempted(litellm: str) -> tuple[dict[str, Any] | None, list[str]]:
    """The routes document, None where there is none, and what was told."""
    try:
        made = convert(read(litellm, "config.yaml"), "config.yaml")
    except ConfigError as error:
        return None, [str(problem) for problem in error.problems]
    return made.document, [str(note) for note in made.notes]


def test_weights_that_are_far_apart_are_still_weights() -> None:
    assert whole([1, 1e9]) == [1, 1_000_000]
    assert whole([0.5, 1.5]) == [1, 3]
    assert whole([3e9, 1e9, 1.0]) == [1_000_000, 333_333, 1]
