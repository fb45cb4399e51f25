"""A run to report on, and a browser to look at pages with."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import relive
from relive.envs import get_suite
from relive.envs.base import Expert

Messages = list[dict[str, str]]
HOSTILE = "<script>document.title = 'run'</script><img src=x onerror=alert(1)>"


@dataclass
class Reader:
    """A policy that does what the closest demonstration did, and in every second episode what the
    toy house's expert would; remembers what it read."""

    read: list[Messages] = field(default_factory=list)
    expert: Expert | None = None
    episodes: int = 0

    def __call__(self, messages: Messages) -> str:
        self.read.append(messages)
        done = [m["content"] for m in messages if m["role"] == "assistant"]
        if not done:
            self.episodes += 1
            suite = get_suite("toy")
            even = self.episodes % 2 == 0
            self.expert = suite.expert(suite.tasks("train", 1)[0]) if even else None
        if self.expert is not None:
            return self.expert.act(messages[-1]["content"])
        shown = messages[0]["content"].rpartition("\n\n")[2]
        script = [
            line.removeprefix("Action: ")
            for line in shown.splitlines()
            if line.startswith("Action: ")
        ]
        return script[len(done)] if len(done) < len(script) else "look"


@dataclass(frozen=True)
class Made:
    """An evaluation with its memory."""

    memory: Path
    run: Path
    episodes: tuple[relive.Episode, ...]
    read: tuple[Messages, ...]
    """What the policy read at each step, in the order of the steps."""


@dataclass
class Browser:
    """A headless Chromium."""

    driver: Any

    def open(self, address: str) -> None:
        """Opens a page and waits until it says that it is ready."""
        self.driver.get(address)
        self.wait("return document.documentElement.dataset.ready === 'yes'")

    def wait(self, script: str) -> Any:
        """What a script returns, as soon as that is true."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 30, poll_frequency=0.02).until(
            lambda driver: driver.execute_script(script)
        )

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def click(self, selector: str) -> None:
        """Clicks the first element of a selector."""
        from selenium.common.exceptions import StaleElementReferenceException

        for _ in range(20):  # lists are drawn anew when their size is known
            try:
                self.driver.find_element("css selector", selector).click()
                return
            except StaleElementReferenceException:
                continue
        raise AssertionError(f"{selector} is drawn anew all the time")

    def texts(self, selector: str) -> list[str]:
        """Texts of all elements of a selector."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText.trim())",
            selector,
        )
        return found

    def complaints(self) -> list[str]:
        """What the console says that is no plain note."""
        return [
            line["message"]
            for line in self.driver.get_log("browser")
            if line["level"] in ("SEVERE", "WARNING")
        ]

    def requested(self) -> list[str]:
        """Addresses that were asked for since the last time."""
        found = []
        for line in self.driver.get_log("performance"):
            message = json.loads(line["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found

    def violations(self) -> list[str]:
        """What axe-core finds wrong."""
        import axe_core_python

        script = Path(axe_core_python.__file__).with_name("axe.min.js").read_text("utf-8")
        self.driver.execute_script(script)
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1]; axe.run().then(done)"
        )
        return [f"{v['id']}: {v['nodes'][0]['html'][:200]}" for v in found["violations"]]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A headless Chromium. Selenium downloads nothing: browser and driver are named."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    os.environ["SE_OFFLINE"] = "true"
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
