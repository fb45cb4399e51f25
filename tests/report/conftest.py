"""Runs to report on, and a real browser to look at pages with."""

import shutil
from collections.abc import Iterator

import pytest

import relive
from relive.agent.policy import ExpertPolicy
from relive.agent.runner import RunSettings
from relive.envs import get_suite
from tests.report.pages import HOSTILE, Browser, Made, Reader, open_browser


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Eight test tasks of the toy house, played by a copier under a memory of the expert's."""
    folder, suite, policy = tmp_path_factory.mktemp("made"), get_suite("toy"), Reader()
    with relive.Memory(folder / "memory") as memory:
        agent = relive.Agent(ExpertPolicy(suite), memory=memory)
        assert all(e.success for e in agent.run(suite, tasks=30))
        memory.add(goal="put the key in <b>hall</b>", steps=[(HOSTILE, HOSTILE)], success=True)
        result = relive.evaluate(
            policy, suite, memory, tasks=8, out=folder / "run",
            settings=RunSettings(batch=1, max_steps=12),
        )  # fmt: skip
    return Made(folder / "memory", folder / "run", tuple(result.episodes), tuple(policy.read))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, driven by its own driver; nothing is downloaded."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    with open_browser() as opened:
        yield opened
