"""The report in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import relive
from relive.agent.report.report import report
from tests.report.pages import HOSTILE, Browser, Made

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(made: Made, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Address of a report on the evaluation and on the memory that it read."""
    file = tmp_path_factory.mktemp("page") / "report.html"
    report([made.run, made.memory], file)
    return file.as_uri()


@pytest.fixture(autouse=True)
def quiet(browser: Browser) -> Iterator[None]:
    """No page complains in the console or asks for anything but itself."""
    browser.complaints()
    browser.requested()
    yield
    assert browser.complaints() == []
    asked = [a for a in browser.requested() if not a.startswith(("file:", "data:"))]
    assert asked == []


def episodes_tab(browser: Browser, page: str) -> None:
    browser.open(page)
    browser.click("#tab-episodes")
    browser.wait("return document.querySelectorAll('.item').length")


def test_charts_and_tables_hold_the_numbers(browser: Browser, page: str, made: Made) -> None:
    browser.open(page)
    won = sum(e.success for e in made.episodes)
    titles = browser.run(
        "return [...document.querySelectorAll('figure svg title')].map(e => e.textContent)"
    )
    wanted = f"run, test: {100 * won / 8:.1f} % of 8"
    assert any(title.startswith(wanted) for title in titles)
    row = browser.run(
        "return [...document.querySelectorAll('#overview tbody tr')]"
        ".map(r => [...r.children].map(c => c.textContent)).find(r => r[0] === 'run')"
    )
    assert row[2:4] == ["8", f"{100 * won / 8:.1f}"]
    # The dot stands where the axis says: at the success rate, between 0 and 100.
    where = browser.run(
        """const dots = [...document.querySelectorAll('figure svg')][0].querySelectorAll('circle');
        const lines = [...document.querySelectorAll('figure svg')][0].querySelectorAll('line');
        const xs = [...lines].filter(l => l.x1.baseVal.value === l.x2.baseVal.value)
          .map(l => l.x1.baseVal.value);
        const found = [...dots].map(d => ({
          title: d.querySelector('title').textContent, x: d.cx.baseVal.value }));
        return [found, Math.min(...xs), Math.max(...xs)]"""
    )
    dots, low, high = where
    (mine,) = [d for d in dots if d["title"].startswith("run, test")]
    assert (mine["x"] - low) / (high - low) == pytest.approx(won / 8, abs=0.02)


def test_filters_filter(browser: Browser, page: str, made: Made) -> None:
    episodes_tab(browser, page)
    assert browser.texts("#count") == [f"{8 + 31} of {8 + 31} episodes"]
    choose = (
        "const s = document.getElementById(arguments[0]); s.value = arguments[1];"
        "s.dispatchEvent(new Event(s.tagName === 'SELECT' ? 'change' : 'input'))"
    )
    browser.run(choose, "filter-condition", "run")
    assert browser.texts("#count") == ["8 of 39 episodes"]
    browser.run(choose, "filter-outcome", "success")
    won = sum(e.success for e in made.episodes)
    assert browser.texts("#count") == [f"{won} of 39 episodes"]
    assert all(text.startswith("✓") for text in browser.texts(".item b"))
    browser.run(choose, "filter-outcome", "")
    browser.run(choose, "filter-type", "wash")
    assert browser.texts("#count") == ["4 of 39 episodes"]
    browser.run(choose, "search", "no such words")
    assert browser.texts("#count") == ["0 of 39 episodes"]
    # What was seen is only found by looking into the transcripts.
    for name in ("filter-type", "filter-condition"):
        browser.run(choose, name, "")
    browser.run(choose, "search", "onerror=alert")
    assert browser.texts("#count") == ["0 of 39 episodes"]
    browser.click("#deep")
    browser.wait("return document.getElementById('count').textContent === '1 of 39 episodes'")


def test_what_episodes_say_is_text(browser: Browser, page: str) -> None:
    episodes_tab(browser, page)
    browser.run(
        "const s = document.getElementById('search'); s.value = '<b>hall';"
        "s.dispatchEvent(new Event('input'))"
    )
    browser.click(".item")
    browser.wait("return document.querySelector('.turn.seen')")
    assert browser.texts(".turn.seen")[0] == HOSTILE
    assert browser.texts(".turn .say") == [HOSTILE]
    assert browser.texts("#episode h2") == ["put the key in <b>hall</b>"]
    assert "run" not in browser.driver.title.split(" · ")[0].split(", ")[1:]
    assert browser.run("return document.querySelectorAll('#main img, #main script').length") == 0


def test_an_episode_shows_what_was_retrieved_and_the_exact_prompt(
    browser: Browser, page: str, made: Made
) -> None:
    episodes_tab(browser, page)
    read = iter(made.read)
    for number, episode in enumerate(made.episodes[:3]):
        browser.run("document.querySelectorAll('.item')[arguments[0]].click()", number)
        browser.wait(f"return location.hash === '#episode-{number}'")
        assert browser.texts("#episode h2") == [episode.task.goal]
        cards = browser.texts(".memory .tags")
        assert [one.episode in card for one, card in zip(episode.retrieved, cards, strict=True)]
        assert all(re.search(r"score 0\.|score 1", card) for card in cards)
        assert browser.texts(".memory > p")[0].startswith("similarity ")
        assert browser.texts(".turn .say") == [step.action for step in episode.steps]
        for step, _ in enumerate(episode.steps):
            messages = next(read)
            browser.run(
                "document.querySelectorAll('.turn.done button')[arguments[0]].click()", step
            )
            prompt = browser.run(
                "return document.querySelectorAll('.turn.done')[arguments[0]]"
                ".querySelector('pre').textContent", step,
            )  # fmt: skip
            assert prompt == "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in messages)


def test_copied_steps_are_marked(browser: Browser, page: str, made: Made) -> None:
    episodes_tab(browser, page)
    browser.click(".item")
    browser.wait("return document.querySelectorAll('.memory .repeated').length")
    notes = " ".join(browser.texts(".turn .notes"))
    assert "repeats step 1 of memory 1" in notes


def test_keys_move_through_tabs_and_the_list(browser: Browser, page: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.open(page)
    tab = browser.driver.find_element("id", "tab-overview")
    tab.send_keys(Keys.ARROW_RIGHT)
    assert browser.run("return document.activeElement.id") == "tab-episodes"
    listed = browser.driver.find_element("css selector", ".list")
    listed.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    assert browser.run("return document.querySelector('.item[aria-selected=true]').id") == "item-2"
    listed.send_keys(Keys.END)
    assert browser.run("return document.querySelector('.item[aria-selected=true]').id") == "item-38"
    assert listed.get_attribute("aria-activedescendant") == "item-38"


@pytest.mark.parametrize("width", [400, 1600])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nobody_is_kept_out(browser: Browser, page: str, width: int, theme: str) -> None:
    browser.driver.set_window_size(width, 900)
    browser.open(page)
    browser.run("document.documentElement.dataset.theme = arguments[0]", theme)
    found = browser.violations()
    for name in ("episodes", "settings"):
        browser.click(f"#tab-{name}")
        if name == "episodes":
            browser.click(".item")
            browser.wait("return document.querySelector('.turn.done')")
            browser.click(".turn.done button")
        found += browser.violations()
        wide = browser.run("return document.documentElement.scrollWidth")
        assert wide <= browser.run("return document.documentElement.clientWidth")
    assert found == []


def test_a_report_says_what_is_not_at_hand(browser: Browser, made: Made, tmp_path: Path) -> None:
    with relive.Memory(tmp_path / "other"):
        pass
    report([made.run], tmp_path / "r.html", memory=tmp_path / "other")
    episodes_tab(browser, (tmp_path / "r.html").as_uri())
    browser.click(".item")
    browser.wait("return document.querySelector('.memory')")
    assert "not the one that was read" in browser.texts(".memory")[0]
