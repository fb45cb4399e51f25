"""A report of ten thousand episodes in a real browser: size, first view, filters, accessibility.

    python scripts/check_report.py [--episodes 10000] [--img docs/img]

Fills a memory with the expert's household episodes, plays as many test tasks as asked for with a
scripted copier under retrieval, reports on them, and measures the page in Chromium. Writes
docs/results/report.json, and the pictures of README with --img.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from relive import Memory, Retrieval, evaluate  # noqa: E402
from relive.agent.collect import collect_demonstrations  # noqa: E402
from relive.agent.report.browse import Server  # noqa: E402
from relive.agent.report.look import View  # noqa: E402
from relive.agent.report.report import report  # noqa: E402
from relive.envs import get_suite  # noqa: E402
from relive.training.experiments.study.copy_baseline import CopyPolicy  # noqa: E402
from tests.report.pages import Browser, open_browser  # noqa: E402


def play(folder: Path, episodes: int) -> None:
    """An evaluation of a scripted policy that reads its memory."""
    suite = get_suite("household")
    with Memory(folder / "memory") as memory:
        collect_demonstrations(memory, suite, 600)
        evaluate(
            CopyPolicy(suite.templates, search=True), suite, memory, tasks=episodes,
            split="test", retrieval=Retrieval(k=2, max_tokens=1500), out=folder / "run",
        )  # fmt: skip


def measure(browser: Browser, address: str) -> dict[str, float | int]:
    """Medians of five: milliseconds to the first view, and to filter."""
    views, filtered = [], []
    for _ in range(5):
        browser.open(address)
        views.append(
            browser.run(
                "return performance.getEntriesByName('ready')[0].startTime"
                " - performance.getEntriesByType('navigation')[0].startTime"
            )
        )
        browser.click("#tab-episodes")
        browser.wait("return document.querySelectorAll('.item').length")
        for field, value in (
            ("search", "egg"), ("filter-outcome", "success"), ("search", ""),
            ("filter-order", "steps"), ("filter-outcome", ""),
        ):  # fmt: skip
            filtered.append(
                browser.run(
                    """const field = document.getElementById(arguments[0]);
                    const began = performance.now();
                    field.value = arguments[1];
                    field.dispatchEvent(new Event(field.tagName === 'SELECT' ? 'change' : 'input'));
                    document.querySelector('.list').getBoundingClientRect();
                    return performance.now() - began""",
                    field, value,
                )
            )  # fmt: skip
    return {
        "first_view_s": round(statistics.median(views) / 1000, 3),
        "filter_ms": round(max(filtered), 1),
        "filter_ms_median": round(statistics.median(filtered), 1),
    }


def pages(browser: Browser, address: str, folder: Path, img: Path | None) -> tuple[int, int]:
    """Pages looked at, and what axe-core finds wrong on them, at two widths and in two themes."""
    looked = wrong = 0
    with Memory(folder / "memory") as memory, Server(View(memory)) as server:
        import threading

        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name, where, tabs in (
            ("report", address, ("overview", "episodes", "settings")),
            ("memory", server.address, ("search", "entries", "map", "worth")),
        ):
            for width in (400, 1600):
                browser.driver.set_window_size(width, 1000)
                browser.open(where)
                for theme in ("light", "dark"):
                    browser.run("document.documentElement.dataset.theme = arguments[0]", theme)
                    for tab in tabs:
                        browser.click(f"#tab-{tab}")
                        if tab in ("episodes", "entries"):
                            browser.wait("return document.querySelectorAll('.item').length")
                            browser.click(".item")
                            browser.wait("return document.querySelector('.turn.done')")
                        if tab == "search":
                            browser.run(
                                "document.getElementById('text').value = 'put a hot mug in shelf'"
                            )
                            browser.click("#go")
                            browser.wait("return document.querySelectorAll('#hits li').length")
                        found = browser.violations()
                        print(name, width, theme, tab, found, flush=True)
                        looked, wrong = looked + 1, wrong + len(found)
                        if img and width == 1600 and theme == "light":
                            time.sleep(0.3)
                            browser.driver.save_screenshot(str(img / f"{name}-{tab}.png"))
        server.shutdown()
    return looked, wrong


def main() -> None:
    """Plays, reports, measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--run", type=Path, help="keep what is played here, and go on with it")
    parser.add_argument("--img", type=Path, help="folder that gets the pictures")
    args = parser.parse_args()
    if args.img:
        args.img.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.run or Path(temporary)
        play(folder, args.episodes)
        began = time.monotonic()
        made = report([folder / "run"], folder / "report.html")
        seconds = time.monotonic() - began
        with open_browser() as browser:
            address = made.file.resolve().as_uri()
            measured = measure(browser, address)
            looked, wrong = pages(browser, address, folder, args.img)
            complaints = browser.complaints()
    result = {
        "episodes": made.episodes,
        "megabytes": round(made.size / 1e6, 2),
        **measured,
        "axe_violations": wrong,
        "pages_checked": looked,
        "console_complaints": len(complaints),
        "made_in_s": round(seconds, 1),
    }
    print(json.dumps(result), *complaints, sep="\n")
    (ROOT / "docs" / "results" / "report.json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
