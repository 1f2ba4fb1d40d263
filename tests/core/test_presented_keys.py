"""Which keys a request presents: the three carriers are alike, and two different keys are two."""

import pytest

from proxy.core.presented_keys import presented_keys

ROWS: list[tuple[list[tuple[str, str]], tuple[str, ...]]] = [
    ([], ()),
    ([("cookie", "k"), ("proxy-authorization", "Bearer k"), ("x-api-keys", "k")], ()),
    ([("authorization", "Bearer k")], ("k",)),
    ([("Authorization", "bearer   k ")], ("k",)),
    ([("AUTHORIZATION", "BEARER k")], ("k",)),
    ([("x-api-key", "k")], ("k",)),
    ([("X-Api-Key", " k ")], ("k",)),
    ([("api-key", "k")], ("k",)),
    ([("x-api-key", "")], ()),
    ([("authorization", "Bearer ")], ()),
    ([("authorization", "Bearer")], ()),
    ([("authorization", "")], ()),
    ([("authorization", "Bearer k"), ("x-api-key", "k"), ("api-key", "k")], ("k",)),
    ([("authorization", "Bearer k"), ("x-api-key", "")], ("k",)),
    ([("authorization", "Bearer k"), ("x-api-key", "other")], ("k", "other")),
    ([("x-api-key", "k"), ("api-key", "other")], ("k", "other")),
    ([("x-api-key", "k"), ("x-api-key", "other")], ("k", "other")),
    ([("authorization", "Bearer k"), ("authorization", "Bearer other")], ("k", "other")),
    ([("authorization", "Basic dXNlcjpw"), ("x-api-key", "k")], ("Basic dXNlcjpw", "k")),
    ([("authorization", "k")], ("k",)),
    ([("x-api-key", "Bearer k")], ("Bearer k",)),
]


@pytest.mark.parametrize(("headers", "presented"), ROWS)
def test_presented_keys(headers: list[tuple[str, str]], presented: tuple[str, ...]) -> None:
    assert presented_keys(headers) == presented
