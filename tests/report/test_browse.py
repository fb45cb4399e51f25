"""`relive memory browse`: who may ask it, and what a person does in the page."""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

import relive
from relive.agent.cli import main
from relive.agent.report.browse import Server
from relive.agent.report.look import View
from tests.report.pages import HOSTILE, Browser, Made


@dataclass
class Served:
    """A server over a memory of its own."""

    server: Server
    memory: relive.Memory

    def ask(
        self,
        path: str,
        body: object = None,
        *,
        host: str = "",
        token: str | None = None,
        **headers: str,
    ) -> tuple[int, Any, dict[str, str]]:
        """Status, answer, and headers of a request; `token` None knows it."""
        link = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        told = {"Host": host or f"127.0.0.1:{self.server.port}"}
        if token != "":
            told["X-Relive-Token"] = token or self.server.token
        if body is not None:
            told["Content-Type"] = "application/json"
        told |= {name.replace("_", "-"): value for name, value in headers.items()}
        sent = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
        link.request("POST" if sent is not None else "GET", path, sent, told)
        answer = link.getresponse()
        text = answer.read()
        link.close()
        plain = answer.headers.get_content_type() == "application/json"
        return answer.status, json.loads(text) if plain else text, dict(answer.headers)


@pytest.fixture
def served(made: Made, tmp_path: Path) -> Iterator[Served]:
    """A copy of the toy memory, served."""
    shutil.copytree(made.memory, tmp_path / "memory")
    with relive.Memory(tmp_path / "memory") as memory, Server(View(memory)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield Served(server, memory)
        server.shutdown()
        thread.join()


def first(memory: relive.Memory) -> str:
    return memory.entries()[0].episode_id


def test_it_listens_on_this_machine_alone(served: Served) -> None:
    assert served.server.server_address[0] == "127.0.0.1"
    assert len(served.server.token) >= 32
    assert served.server.token not in served.server.address
    assert len(served.server.ticket) >= 32


def test_nobody_asks_without_the_token(served: Served) -> None:
    name = first(served.memory)
    for token in ("", "wrong", served.server.token[:-1], "ü"):
        assert served.ask("/api/memory", token=token)[0] == 403
        assert (
            served.ask("/api/rate", {"id": name, "name": "human", "value": 1}, token=token)[0]
            == 403
        )
        assert served.ask("/api/open", {"ticket": token or None}, token="")[0] == 403
    assert served.memory.ratings(name) == {}
    status, page, headers = served.ask("/", token="")
    assert served.server.token.encode() not in page
    assert served.server.ticket.encode() not in page
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert b"connect-src &#39;self&#39;" in page or b"connect-src 'self'" in page
    assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"


def test_an_address_opens_one_tab(served: Served) -> None:
    ticket = served.server.ticket
    assert served.server.address.endswith(f"/#{ticket}")
    for origin in ("http://evil.example", "null"):
        assert served.ask("/api/open", {"ticket": ticket}, token="", Origin=origin)[0] == 403
    assert served.ask("/api/open", {"ticket": ticket}, token="", host="evil.example")[0] == 403
    status, answer, _ = served.ask("/api/open", {"ticket": ticket}, token="")
    assert (status, answer) == (200, {"token": served.server.token})
    status, answer, _ = served.ask("/api/open", {"ticket": ticket}, token="")
    assert status == 403
    assert "was used" in answer["error"]
    assert served.server.ticket not in ("", ticket)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "192.168.0.1:80", "127.0.0.1.evil.example:1"]
)
def test_a_name_that_is_bound_anew_is_refused(served: Served, host: str) -> None:
    status, answer, _ = served.ask("/api/memory", host=host)
    assert status == 403
    assert "loopback" in answer["error"]


def test_other_pages_write_nothing(served: Served) -> None:
    name = first(served.memory)
    told = {"id": name, "name": "human", "value": -1}
    for origin in ("http://evil.example", "null", f"http://evil.example:{served.server.port}"):
        assert served.ask("/api/rate", told, Origin=origin)[0] == 403
    # What a form of another page can send without asking first.
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert served.ask("/api/rate", told, Content_Type=kind)[0] == 415
    assert served.memory.ratings(name) == {}
    own = f"http://127.0.0.1:{served.server.port}"
    assert served.ask("/api/rate", told, Origin=own)[0] == 200
    tunnel = "localhost:9999"  # another port here than there
    assert served.ask("/api/rate", told, host=tunnel, Origin=f"http://{tunnel}")[0] == 200
    assert served.ask("/api/rate", told, host=tunnel, Origin=own)[0] == 403
    assert served.memory.ratings(name) == {"human": -1.0}


@pytest.mark.parametrize(
    "path", ["/../memory.json", "/..%2f..%2fetc/passwd", "/api/../../etc/passwd", "//etc/passwd",
             "/memory.json", "/api/", "/api/memory/log"],
)  # fmt: skip
def test_no_file_is_served(served: Served, path: str) -> None:
    assert served.ask(path)[0] in (403, 404)


def test_bad_requests_are_answered_and_change_nothing(served: Served) -> None:
    name, position = first(served.memory), served.memory.position
    for path, body, message in (
        ("/api/rate", {"id": "nobody", "name": "human", "value": 1}, "nobody"),
        ("/api/rate", {"id": name, "name": "human", "value": "much"}, "could not convert"),
        ("/api/rate", {"id": name, "name": "human", "value": None}, "no rating"),
        ("/api/rate", [1], "JSON object"),
        ("/api/explode", {"id": name}, "unknown change"),
        ("/api/restore", {"id": name}, "not deleted"),
        ("/api/rate", {"id": name, "name": "human", "value": "nan"}, "from -1 to 1"),
        ("/api/rate", {"id": name, "name": "human", "value": 5}, "from -1 to 1"),
        ("/api/rate", {"id": name, "name": "", "value": 1}, "has a name"),
        ("/api/annotate", {"id": name, "text": " "}, "empty remark"),
        ("/api/rate", b"{", "Expecting"),
        ("/api/rate", b"[" * 50_000, ""),
    ):  # fmt: skip
        status, answer, _ = served.ask(path, body)
        assert status in (400, 403), (path, body)
        assert message in answer["error"]
    assert served.ask("/api/rate", b"x" * 100_001)[0] == 413
    assert served.ask("/api/episode?id=nobody")[0] == 400
    for asked in ("{", "[]", '{"k":Infinity}', "[" * 20_000):
        assert served.ask(f"/api/search?q={quote(asked)}")[0] == 400
    assert served.ask("/api/rate", {"id": name}, Content_Length="5" * 5000)[0] == 413
    assert served.memory.position == position
    assert served.ask("/api/memory")[0] == 200


def test_searches_say_why_and_what_is_held_back(served: Served) -> None:
    entry = served.memory.entries()[0]
    asked = json.dumps({"text": entry.task.goal, "k": 3, "as": entry.episode_id})
    status, found, _ = served.ask(f"/api/search?q={quote(asked)}")
    assert status == 200
    assert entry.episode_id in [h["id"] for h in found["held_back"]]
    assert entry.episode_id not in [h["id"] for h in found["hits"]]
    assert found["hits"][0]["why"]["similarity"] <= 1
    assert {h["id"] for h in found["hits"]} <= {e.episode_id for e in served.memory.entries()}


def test_who_plays_a_task_is_shown_what_its_suite_has(served: Served) -> None:
    entry = served.memory.entries()[0]
    asked = json.dumps({"k": 50, "as": entry.episode_id, "all": True})
    _, found, _ = served.ask(f"/api/search?q={quote(asked)}")
    kinds = {served.memory.meta(h["id"]).task.suite for h in found["hits"] + found["held_back"]}
    assert kinds == {"toy"}  # not what was added by hand, of no suite
    assert found["hits"][0]["goal"].split()[0] == entry.task.goal.split()[0]


@pytest.mark.browser
def test_the_list_stays_where_it_was(browser: Browser, served: Served) -> None:
    browser.driver.set_window_size(1200, 500)
    browser.open(served.server.address)
    browser.click("#tab-entries")
    browser.wait("return document.querySelectorAll('.item').length")
    browser.run("document.querySelector('.list').scrollTop = 700")
    browser.wait("return document.getElementById('item-14')")
    browser.click("#item-14")
    browser.wait("return document.getElementById('rate-helpful')")
    browser.requested()
    browser.click("#rate-helpful")
    browser.wait("return document.querySelector('#rate-helpful[aria-pressed=true]')")
    assert browser.run("return document.querySelector('.list').scrollTop") == 700
    assert browser.run("return document.getElementById('item-14').ariaSelected") == "true"
    assert "helpful" in browser.texts("#item-14")[0]
    # One entry was changed, and no other was read again.
    assert not [a for a in browser.requested() if a.endswith("/api/memory")]
    browser.click("#delete")
    browser.wait("return document.getElementById('undo')")
    assert browser.texts("#count") == ["30 of 30 entries"]
    assert browser.run("return document.querySelector('.list').scrollTop") == 700


def test_without_writing_nothing_is_changed(made: Made) -> None:
    with relive.Memory(made.memory, "r") as memory:
        view = View(memory)
        assert view.overview()["writable"] is False
        with pytest.raises(ValueError, match="without --read-only"):
            view.change("delete", {"id": first(memory)})


def test_what_another_process_adds_is_seen(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.memory, tmp_path / "memory")
    with relive.Memory(tmp_path / "memory") as memory, relive.Memory(memory.path, "r") as reader:
        view = View(reader)
        before = len(view.overview()["entries"]["id"])
        memory.add(goal="dance", steps=[("x", "y")], success=True)
        assert len(view.overview()["entries"]["id"]) == before + 1


def test_what_is_no_memory_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["memory", "browse", "--memory", str(tmp_path / "gone")]) == 2
    assert "no folder" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["99999", "-1"])
def test_what_is_no_port_is_said(made: Made, port: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = ["memory", "browse", "--memory", str(made.memory), f"--port={port}", "--read-only"]
    assert main(told) == 2
    assert "from 0 to 65535" in capsys.readouterr().err


def test_ctrl_c_stops_it_and_leaves_the_memory_free(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.memory, tmp_path / "memory")
    command = [sys.executable, "-m", "relive", "memory", "browse", "--memory", tmp_path / "memory"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout
        address = run.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:")
        with pytest.raises(BlockingIOError):
            relive.Memory(tmp_path / "memory")
        run.send_signal(signal.SIGINT)
        assert run.wait(20) == 130
        assert run.stderr
        assert "Traceback" not in run.stderr.read()
    with relive.Memory(tmp_path / "memory") as memory:
        assert len(memory) == 31


@pytest.mark.browser
def test_a_person_rates_annotates_deletes_and_takes_it_back(
    browser: Browser, served: Served
) -> None:
    browser.complaints()
    browser.open(served.server.address)
    assert browser.run("return location.href") == f"http://127.0.0.1:{served.server.port}/"
    browser.driver.refresh()  # the tab stays open
    browser.wait("return document.documentElement.dataset.ready === 'yes'")
    entry = next(e for e in served.memory.entries() if e.task.type == "wash")
    browser.run("document.getElementById('text').value = arguments[0]", entry.task.goal)
    browser.click("#go")
    browser.wait("return document.querySelectorAll('#hits li').length")
    found = browser.texts("#hits li")
    assert len(found) == 5
    assert "similarity 1" in found[0]
    browser.click("#hits li button")
    browser.wait("return document.getElementById('rate-wrong')")
    shown = browser.run("return document.querySelector('#episode .tags').children[1].textContent")
    browser.click("#rate-wrong")
    browser.wait("return document.querySelector('#rate-wrong[aria-pressed=true]')")
    assert served.memory.ratings(shown) == {"human": -1.0}
    assert browser.run("return document.activeElement.id") == "rate-wrong"
    # What was rated wrong comes last, where ratings are weighed.
    browser.run("document.getElementById('q-ratings').value = 1")
    browser.run("document.getElementById('q-k').value = 40")
    browser.click("#go")
    browser.wait("return document.querySelectorAll('#hits li').length > 20")
    assert "rating -1" in browser.texts("#hits li")[-1]
    browser.run("document.getElementById('note').value = arguments[0]", HOSTILE)
    browser.click("#annotate")
    browser.wait("return document.getElementById('notes')")
    assert browser.texts("#notes li") == [HOSTILE]
    assert served.memory.notes(shown) == (HOSTILE,)
    browser.click("#rate-wrong")
    browser.wait("return document.querySelector('#rate-wrong[aria-pressed=false]')")
    assert served.memory.ratings(shown) == {}
    browser.click("#delete")
    browser.wait("return document.getElementById('undo')")
    assert shown not in served.memory
    browser.click("#undo")
    browser.wait("return document.getElementById('delete')")
    assert shown in served.memory
    with relive.Memory(served.memory.path, "r") as other:  # it is in the log
        assert other.notes(shown) == (HOSTILE,)
    assert browser.complaints() == []


@pytest.mark.browser
def test_the_memory_page_keeps_nobody_out(browser: Browser, served: Served) -> None:
    found: list[str] = []
    browser.requested()
    for width in (400, 1600):
        browser.driver.set_window_size(width, 900)
        browser.open(served.server.address)
        for name in ("search", "entries", "map", "worth"):
            browser.click(f"#tab-{name}")
            if name == "entries":
                browser.wait("return document.querySelectorAll('.item').length")
                assert browser.texts("#count") == ["31 of 31 entries"]
                browser.click(".item")
                browser.wait("return document.querySelector('.turn.done')")
            if name == "map":
                dots = browser.wait("return document.querySelectorAll('#plot title').length")
                assert dots == 31
            found += browser.violations()
            wide = browser.run("return document.documentElement.scrollWidth")
            assert wide <= browser.run("return document.documentElement.clientWidth"), name
    assert found == []
    asked = [a for a in browser.requested() if not a.startswith("data:")]
    assert all(a.startswith(f"http://127.0.0.1:{served.server.port}/") for a in asked)
