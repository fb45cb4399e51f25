"""Settings of the whole test suite."""

import os

import pytest

# Models here are tiny: a second thread gains nothing, and on a busy machine waiting for it costs a
# factor of ten. Set before torch is imported; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Translations of games and models go to a folder of the test run, which its processes share,
    never to the user's cache."""
    run = tmp_path_factory.getbasetemp()
    run = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run
    os.environ.setdefault("RELIVE_CACHE", str(run / "cache"))
