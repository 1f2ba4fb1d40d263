"""From references to credentials: the environment first, then what is sealed; and what is told where there is nothing."""

import pytest

from proxy.config.resolve import Blueprint, _blueprint, parse
from proxy.core.credential import NOTHING_SEALED, Credential, Vault
from proxy.core.routing import AuthStyle, Provider
from proxy.terms import Api, ProviderId

SEALED = Vault(
    {"openai": "sealed-openai", "OPENAI_API_KEY": "sealed-variable", "box": "sealed-box", "spare": "sealed-spare"}
)


def provider(
    entry: str, name: str = "openai", environ: dict[str, str] | None = None, vault: Vault = SEALED
) -> Provider:
    text = f"providers: {{{name}: {entry}}}"
    return parse(text, "routes.yaml", environ or {}, vault=vault).providers[ProviderId(name)]


def shown(found: Provider) -> list[tuple[str, str]]:
    return [(one.origin, one.value) for one in found.credentials]


@pytest.mark.parametrize(
    ("environ", "sealed", "origin"),
    [
        ({"OPENAI_API_KEY": "set"}, SEALED.values, "env:OPENAI_API_KEY"),
        ({}, SEALED.values, "sealed:openai"),
        ({"OPENAI_API_KEY": " "}, SEALED.values, "sealed:openai"),
        ({"OPENAI_API_KEY": "anything"}, {"OPENAI_API_KEY": "sealed-variable"}, "sealed:OPENAI_API_KEY"),
    ],
)
def test_without_api_key_the_environment_comes_first(
    environ: dict[str, str], sealed: dict[str, str], origin: str
) -> None:
    found = provider("{}", environ=environ, vault=Vault(sealed))
    assert [one.origin for one in found.credentials] == [origin], "one is enough, and nobody has asked for others"
    assert (found.inactive, found.key_vars) == (None, ("OPENAI_API_KEY",))
    assert found.auth[Api.CHAT] is AuthStyle.BEARER


def test_a_provider_of_ones_own_finds_what_is_sealed_under_its_id() -> None:
    assert shown(provider("{like: openai}", "box")) == [("sealed:box", "sealed-box")]
    assert shown(provider("{like: openai}", "other")) == [("sealed:OPENAI_API_KEY", "sealed-variable")]


def test_a_second_variable_counts_too() -> None:
    found = provider("{}", "gemini", vault=Vault({"GOOGLE_API_KEY": "g"}))
    assert shown(found) == [("sealed:GOOGLE_API_KEY", "g")]


def test_a_local_server_may_have_a_sealed_key_and_needs_none() -> None:
    entry = '{base_url: "http://127.0.0.1:1/v1"}'
    assert shown(provider(entry, "vllm", vault=Vault({"VLLM_API_KEY": "v"}))) == [("sealed:VLLM_API_KEY", "v")]
    bare = provider(entry, "vllm", vault=NOTHING_SEALED)
    assert (bare.credentials, bare.inactive) == ((), None)


@pytest.mark.parametrize(
    ("api_key", "environ", "found"),
    [
        ("env:A", {"A": "a", "OPENAI_API_KEY": "o"}, [("env:A", "a")]),
        ("sealed:spare", {"OPENAI_API_KEY": "o"}, [("sealed:spare", "sealed-spare")]),
        ("[env:A, sealed:spare]", {"A": "a"}, [("env:A", "a"), ("sealed:spare", "sealed-spare")]),
        ("[sealed:spare, env:A]", {"A": "a"}, [("sealed:spare", "sealed-spare"), ("env:A", "a")]),
        ("[env:A, sealed:spare]", {}, [("sealed:spare", "sealed-spare")]),
        ("[env:A, env:B]", {"A": "same", "B": "same"}, [("env:A", "same")]),
        ("[env:A, env:B]", {"A": "not sendable", "B": "b"}, [("env:B", "b")]),
    ],
)
def test_api_key_names_one_or_several(api_key: str, environ: dict[str, str], found: list[tuple[str, str]]) -> None:
    got = provider(f"{{api_key: {api_key}}}", environ=environ)
    assert (shown(got), got.inactive) == (found, None)


@pytest.mark.parametrize(
    ("api_key", "environ", "vault", "inactive"),
    [
        ("sealed:none", {}, SEALED, "sealed:none is not set"),
        ("[env:A, sealed:none]", {"OPENAI_API_KEY": "o"}, SEALED, "A and sealed:none are not set"),
        ("sealed:shut", {}, Vault({}, {"shut": "another key"}), "sealed:shut cannot be opened: another key"),
        ("sealed:bad", {}, Vault({"bad": "a b"}), "sealed:bad holds a character that no header can carry"),
        ("[env:A, sealed:none]", {"A": "a b"}, SEALED, "A holds a character that no header can carry"),
    ],
)
def test_a_provider_without_any_says_why(api_key: str, environ: dict[str, str], vault: Vault, inactive: str) -> None:
    got = provider(f"{{api_key: {api_key}}}", environ=environ, vault=vault)
    assert (got.credentials, got.inactive) == ((), inactive)


def test_what_cannot_be_opened_is_told_of_a_catalogued_provider_too() -> None:
    got = provider("{}", vault=Vault({}, {"openai": "another key"}))
    assert got.inactive == "sealed:openai cannot be opened: another key"
    assert provider("{}", vault=NOTHING_SEALED).inactive == "OPENAI_API_KEY is not set"


def blueprint(text: str) -> Blueprint:
    return _blueprint(text, "routes.yaml", {"A": "a"}, ())


def test_a_blueprint_makes_a_table_for_each_state_of_the_vault() -> None:
    plan = blueprint("providers: {openai: {api_key: [env:A, sealed:spare]}}\nroutes: {r: {tiers: [openai/m]}}")
    before, after = plan.table(), plan.table(SEALED)
    assert [one.origin for one in before.providers[ProviderId("openai")].credentials] == ["env:A"]
    assert [one.origin for one in after.providers[ProviderId("openai")].credentials] == ["env:A", "sealed:spare"]
    assert before.routes.keys() == after.routes.keys()


@pytest.mark.parametrize(("api_key", "names"), [("env:A", False), ("sealed:x", True), ("[env:A, sealed:x]", True)])
def test_a_blueprint_knows_whether_its_file_names_sealed_secrets(api_key: str, names: bool) -> None:
    assert blueprint(f"providers: {{openai: {{api_key: {api_key}}}}}").names_sealed is names
    assert blueprint(f"accounts: {{acme: {{providers: {{openai: {{api_key: {api_key}}}}}}}}}").names_sealed is names
    assert not blueprint("routes: {}").names_sealed


def test_no_credential_shows_in_a_representation() -> None:
    """S53."""
    secret = "canary-4711-secret"
    for shown_by in (
        Credential(secret, "env:A"),
        Vault({"openai": secret}),
        provider("{}", vault=Vault({"openai": secret})),
    ):
        assert secret not in repr(shown_by)
