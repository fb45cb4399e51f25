"""A real cluster of two nodes on this machine, started once."""

import os
from collections.abc import Iterator

import pytest

from relive.agent.cluster.settings import RaySettings

OBJECT_STORE_BYTES = 80 * 2**20


@pytest.fixture(scope="session")
def two_nodes() -> Iterator[object]:
    """Two raylets; this process is connected to the first, which holds the memory and one worker.
    Skipped where Ray is not installed."""
    pytest.importorskip("relive.agent.cluster.calls", exc_type=ImportError)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.cluster_utils import Cluster

    lean = {"num_cpus": 1, "object_store_memory": OBJECT_STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**lean, "include_dashboard": False})
    cluster.second = cluster.add_node(**lean)
    ray.init(cluster.address, log_to_driver=False)
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture
def settings() -> RaySettings:
    """One worker on each node."""
    return RaySettings(workers=2, patience=30)
