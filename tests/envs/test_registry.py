"""Suites are found by name, lazily, and errors say what to do."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest

from relive import envs
from relive.envs import registry
from relive.envs.base import Suite

ROOT = Path(__file__).resolve().parents[2]


def test_built_in_suites_are_there_and_are_suites() -> None:
    for name in ("household", "toy"):
        assert name in envs.suite_names()
        suite = envs.get_suite(name)
        assert isinstance(suite, Suite)
        assert suite.name == name
        assert envs.get_suite(name) is suite


def test_unknown_name_gets_the_closest_and_all() -> None:
    with pytest.raises(
        envs.UnknownSuiteError, match=r"no suite 'houshold'\. Did you mean 'household'\?.*toy"
    ):
        envs.get_suite("houshold")


def test_register_checks_the_form_and_names_a_missing_attribute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "_targets", dict(registry._targets))
    with pytest.raises(ValueError, match="module:attribute"):
        envs.register("garden", "garden.Suite")
    with pytest.raises(TypeError, match="an object can be passed wherever a suite"):
        envs.register("garden", envs.get_suite("toy"))  # type: ignore[arg-type]
    envs.register("garden", "no_such_garden.suite:Garden")
    with pytest.raises(ImportError, match="no module 'no_such_garden', which the entry"):
        envs.get_suite("garden")
    envs.register("garden", "relive.envs.toy:GardenSuite")
    with pytest.raises(ImportError, match="no 'GardenSuite'"):
        envs.get_suite("garden")
    envs.register("garden", "relive.envs.toy:ToySuite")
    assert envs.get_suite("garden").types == ("fetch", "wash")


def test_plug_ins_come_in_through_the_entry_point_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(group: str) -> list[importlib.metadata.EntryPoint]:
        assert group == "relive.envs"
        return [importlib.metadata.EntryPoint("plugged", "relive.envs.toy:ToySuite", group)]

    monkeypatch.setattr(registry, "entry_points", fake)
    registry.plugins.cache_clear()
    try:
        assert "plugged" in envs.suite_names()
        assert envs.get_suite("plugged").name == "toy"
    finally:
        registry.plugins.cache_clear()


def test_gymnasium_makes_suites_by_id() -> None:
    envs.register_gymnasium()
    env = gymnasium.make("relive/toy-v0")
    observation, info = env.reset(seed=1)
    assert info["task"].goal in observation


def test_import_is_cheap_and_listing_tasks_needs_neither_textworld_nor_torch() -> None:
    code = (
        "import sys, relive.envs\n"
        "assert not {'textworld', 'torch', 'fast_downward', 'relive.envs.household.suite'} & "
        "set(sys.modules)\n"
        "assert relive.envs.get_suite('household').tasks('train', 2)\n"
        "assert not {'textworld', 'torch', 'alfworld'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
