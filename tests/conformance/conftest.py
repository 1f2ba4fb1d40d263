"""A real Cluster for the suites of the stores, one for all. The server that is none is the one of all tests."""

import time
from collections.abc import Iterator

import pytest

from tests.valkey import Valkey, cluster_of_one, serving


@pytest.fixture(scope="session")
def valkey_cluster() -> Iterator[Valkey]:
    """A Cluster of one node: it refuses scripts whose keys it would have to look for on several."""
    with serving(*cluster_of_one()) as server:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 5
        while "cluster_state:ok" not in server.command("CLUSTER", "INFO"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield server
