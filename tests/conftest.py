"""Settings of the whole test suite."""

import os
from pathlib import Path

import pytest

# Models here are tiny: a second thread gains nothing, and on a busy machine waiting for it costs a
# factor of ten. Set before torch is imported; child processes inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Translations of games go to a folder of the test run, never to the user's cache."""
    os.environ.setdefault("RELIVE_CACHE", str(Path(tmp_path_factory.mktemp("cache"))))
