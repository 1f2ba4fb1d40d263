"""A real Cluster for the suites of the stores. The server that is none is the one of all tests."""

import pytest

from tests.valkey import ValkeyCluster


@pytest.fixture
def valkey_cluster(shared_cluster: ValkeyCluster) -> ValkeyCluster:
    """Empty. It refuses scripts whose keys it would have to look for on several nodes."""
    shared_cluster.flush()
    return shared_cluster
