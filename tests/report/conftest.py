"""Runs to report on, and a real browser to look at pages with."""

import os
import shutil
from collections.abc import Iterator

import pytest

import relive
from relive.agent.policy import ExpertPolicy
from relive.agent.runner import RunSettings
from relive.envs import get_suite
from tests.report.pages import HOSTILE, Browser, Made, Reader


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
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs chromium and chromedriver (apt install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    os.environ["SE_OFFLINE"] = "true"
    made = webdriver.Chrome(options=options, service=Service(driver))
    made.set_script_timeout(60)
    yield Browser(made)
    made.quit()
