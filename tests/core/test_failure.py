"""The table of failures: complete, in the words of the contract, and the only place that knows statuses."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxy
from proxy.core.failure import TABLE, Again, Blame, Charge, Failure, FailureKind, Rejected, Tally

# The error table of the contract: code -> the statuses that it may have.
CONTRACT: dict[str, set[int]] = {
    "invalid_request": {400},
    "unsupported_api": {400},
    "context_length_exceeded": {400},
    "invalid_api_key": {401},
    "route_not_allowed": {403},
    "budget_exceeded": {402},
    "cost_tier_exceeded": {402},
    "model_unpriced": {402},
    "model_not_found": {404},
    "body_too_large": {413},
    "unsupported_encoding": {415},
    "request_timeout": {408},
    "rate_limit_exceeded": {429},
    "internal_error": {500},
    "upstream_unreachable": {502},
    "upstream_protocol": {502},
    "upstream_auth": {502},
    "upstream_incomplete": {502},
    "upstream_timeout": {504},
    "no_target_available": {503},
    "provider_inactive": {503},
    "upstream_overloaded": {503},
    "shutting_down": {503},
    "overloaded": {503},
    "budget_unavailable": {503},
}
# Codes that the contract's table does not list, each with its reason.
BEYOND: dict[str, tuple[int | None, str]] = {
    "not_found": (404, "a path that is not served"),
    "method_not_allowed": (405, "a path that is served, by another method"),
    "key_not_found": (404, "a virtual key that is not there, or another account's"),
    "origin_not_allowed": (403, "a web page of an origin that is not listed"),
    "role_not_allowed": (403, "what takes a higher role; the contract's 403 is of routes"),
    "not_cached": (504, "only-if-cached, and nothing is kept: RFC 9111, section 5.2.1.7"),
    "host_not_allowed": (421, "the admin API by a name that is not this server's"),
    "admin_unavailable": (503, "the admin API where no admin key could be had"),
    "store_unavailable": (503, "the admin API where the ledger cannot be read; requests go on without"),
    "upgrade_not_supported": (426, "the contract gives the status without a code"),
    "client_cancelled": (499, "log and ledger only"),
    "client_stalled": (499, "log and ledger only"),
    "content_refused": (None, "the provider's own status and body, as they came"),
    "hedge_lost": (502, "in the log alone: another target was quicker"),
    "upstream_error": (502, "a provider's 5xx, where every target failed"),
    "upstream_model_not_found": (502, "every target said that it lacks its model"),
    "upstream_not_found": (502, "a 404 that blames no model"),
    "upstream_quota_exhausted": (503, "the operator's account at the provider is empty"),
}


def test_every_kind_has_a_row() -> None:
    assert set(TABLE) == set(FailureKind)
    assert len({kind.value for kind in FailureKind}) == len(FailureKind)


@pytest.mark.parametrize("kind", FailureKind, ids=lambda kind: kind.value)
def test_rows_use_the_contracts_words(kind: FailureKind) -> None:
    row = TABLE[kind]
    if row.code in CONTRACT:
        assert row.status is None or row.status in CONTRACT[row.code]
    else:
        assert row.code in BEYOND, f"{row.code} is neither in the contract nor explained"
        assert row.status == BEYOND[row.code][0]


def test_no_explanation_is_left_over() -> None:
    assert {row.code for row in TABLE.values()} >= set(BEYOND)


@pytest.mark.parametrize("kind", FailureKind, ids=lambda kind: kind.value)
def test_rows_agree_with_themselves(kind: FailureKind) -> None:
    row = TABLE[kind]
    if row.blame is Blame.CLIENT:
        assert row.tally is Tally.IGNORE, "a client's fault never counts against a target"
        assert not row.next_target
        assert row.again is Again.NEVER
        assert row.status is None or 400 <= row.status < 500 or kind is FailureKind.NOT_CACHED  # RFC 9111 wants 504
    else:
        assert row.status is None or row.status >= 500 or row.status == 429
    if row.blame is Blame.PROXY:
        assert row.charge is Charge.NONE
        assert not row.next_target
    assert row.status != 401 or row.blame is Blame.CLIENT, "an upstream's 401 is never the client's"
    assert (row.again is Again.OTHER_CREDENTIAL) == (row.tally is Tally.QUARANTINE_CREDENTIAL)
    if row.tally is Tally.QUARANTINE_TARGET:
        assert row.again is Again.NEVER


@pytest.mark.parametrize(
    ("kind", "upstream_status", "named", "status", "as_it_came"),
    [
        (FailureKind.INVALID_REQUEST, 422, False, 422, True),
        (FailureKind.CONTENT_REFUSED, 403, False, 403, True),
        (FailureKind.UNSUPPORTED_PARAM, 400, False, 400, True),
        (FailureKind.INVALID_REQUEST, None, False, 502, False),
        (FailureKind.CONTEXT_EXCEEDED, 413, False, 413, True),
        (FailureKind.CREDENTIAL_REJECTED, 401, False, 502, False),
        (FailureKind.CREDENTIAL_REJECTED, 403, False, 502, False),
        (FailureKind.QUOTA_EXHAUSTED, 402, False, 503, False),
        (FailureKind.MODEL_NOT_FOUND, 404, False, 502, False),
        (FailureKind.MODEL_NOT_FOUND, 404, True, 404, True),
        (FailureKind.NOT_FOUND, 404, True, 404, True),
        (FailureKind.SERVER_ERROR, 500, False, 502, False),
        (FailureKind.THROTTLED, 429, False, 429, False),
        (FailureKind.OVERLOADED, 529, False, 503, False),
        (FailureKind.CONNECT_FAILED, None, False, 502, False),
        (FailureKind.BAD_REQUEST, None, False, 400, False),
    ],
)
def test_the_status_that_the_client_is_told(
    kind: FailureKind, upstream_status: int | None, named: bool, status: int, as_it_came: bool
) -> None:
    failure = Failure(kind, "m", upstream_status=upstream_status, named_directly=named)
    assert failure.status == status
    assert failure.as_it_came is as_it_came
    assert failure.row is TABLE[kind]


def test_rejected_carries_its_failure() -> None:
    failure = Failure(FailureKind.NO_TARGET, "nothing is left")
    assert Rejected(failure).failure is failure
    assert str(Rejected(failure)) == "nothing is left"


# Statuses are compared in the core alone.

ALLOWED: dict[str, str] = {}  # "phases/x.py:function": why it may


def compared_statuses(path: Path) -> Iterator[str]:
    """Where a module compares with an integer from 400 to 599, be it by an operator, `in`, a `case` or a table's key."""
    tree = ast.parse(path.read_text("utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.MatchValue):
            numbers = [part.value for part in ast.walk(node) if isinstance(part, ast.Constant)]
        elif isinstance(node, ast.Dict):
            numbers = [key.value for key in node.keys if isinstance(key, ast.Constant)]
        else:
            continue
        if any(type(number) is int and 400 <= number <= 599 for number in numbers):
            inside = [each.name for each in functions if each.lineno <= node.lineno <= (each.end_lineno or 0)]
            yield f"{path.parent.name}/{path.name}:{inside[-1] if inside else 'module'}"


def test_no_phase_and_no_adapter_compares_statuses() -> None:
    root = Path(proxy.__file__).parent
    paths = [path for folder in ("phases", "upstream", "providers") for path in (root / folder).rglob("*.py")]
    assert len(paths) > 10
    found = {place for path in paths for place in compared_statuses(path)}
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "line",
    [
        "status == 429",
        "status >= 500",
        "400 <= status < 600",
        "status in (408, 425)",
        "status in {408}",
        "{404: 1}[status]",
    ],
)
def test_the_lint_sees(line: str, tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text(f"def f(status):\n    return {line}\n", "utf-8")
    assert list(compared_statuses(path)) == [f"{tmp_path.name}/x.py:f"]


def test_the_lint_sees_a_case(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("match status:\n    case 401 | 403:\n        pass\n", "utf-8")
    assert set(compared_statuses(path)) == {f"{tmp_path.name}/x.py:module"}
