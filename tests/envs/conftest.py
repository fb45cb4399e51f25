"""Shared by the tests of `envs`: a cache of their own, and misbehaving suites that workers can
import."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tests neither read nor fill the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RELIVE_CACHE", str(folder))
        yield folder


@pytest.fixture
def misbehaving(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a registered suite whose environments sleep, exit or raise when told to."""
    from relive.envs import registry

    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    registry.register("misbehaving", "misbehaving_suite:MisbehavingSuite")
    yield "misbehaving"
    registry._loaded.clear()
