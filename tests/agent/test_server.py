"""A model behind a server: what goes wrong there costs time, never an episode."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from relive import Agent, Memory, ServerModel, evaluate
from relive.agent.conversation import ContextOverflow, Conversation, SomeFailed, StopRun, Turn
from relive.agent.evaluation.remarks import remarks
from relive.agent.runner import RunSettings
from relive.agent.server.ask import ServerFailed, ServerRefused
from relive.agent.server.budget import Budget, BudgetSpent, Prices
from relive.memory.episode import StopReason

TALK: Conversation = (Turn("system", "Act."), Turn("user", "You see a door."))
Reply = tuple[int, dict[str, str], Any]
"""Status, headers, and body as JSON, or as it is if it is bytes; None breaks the connection."""


def said(text: str, **message: Any) -> dict[str, Any]:
    return {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": text, **message},
        }],
        "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23},
    }  # fmt: skip


class FakeServer:
    """Answers as it is told to; keeps what it was asked."""

    def __init__(self, behave: Callable[[int, dict[str, Any]], Reply]) -> None:
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    number = len(outer.requests)
                    outer.requests.append((self.path, body))
                status, headers, reply = behave(number, body)
                if reply is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int, dict[str, Any]], Reply]], FakeServer]]:
    servers: list[FakeServer] = []

    def start(behave: Callable[[int, dict[str, Any]], Reply]) -> FakeServer:
        servers.append(FakeServer(behave))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_what_is_sent_and_what_comes_back(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda n, body: (200, {}, said('"open the door."', reasoning="It is shut.")))
    model = ServerModel(
        server.url, "m", temperature=0.5, prices=Prices(2.0, 10.0), thinking="on",
        keep_messages=tmp_path / "sent.jsonl",
    )  # fmt: skip
    (action,) = model.act([TALK], [2**62 + 5])
    assert (action.text, action.said) == ("open the door", '"open the door."')
    assert action.reasoning == "It is shut."
    assert action.usage
    assert (action.usage.prompt, action.usage.completion) == (20, 3)
    assert action.usage.cost == pytest.approx(70e-6)
    path, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [
        {"role": "system", "content": "Act."},
        {"role": "user", "content": "You see a door."},
    ]
    assert body["seed"] == 5
    assert body["max_tokens"] == 32
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    (line,) = (tmp_path / "sent.jsonl").read_text().splitlines()
    assert json.loads(line)["request"]["messages"] == body["messages"]


def play(model: ServerModel, path: Path, tasks: int = 12) -> list[Any]:
    """Episodes of the toy suite, batch of four, all in the memory."""
    with Memory(path) as memory:
        found = list(Agent(model, memory).run("toy", tasks, batch=4, max_steps=2))
        assert len(memory) == len(found) == tasks
        assert {e.id for e in found} == {entry.episode_id for entry in memory.entries()}
    return found


@pytest.mark.parametrize("fault", ["429", "500", "cut", "nonsense", "empty", "no json"])
def test_errors_of_the_moment_are_waited_out(serve: Any, tmp_path: Path, fault: str) -> None:
    """Every second request fails; every episode is played to its end all the same."""
    bad: dict[str, Reply] = {
        "429": (429, {"Retry-After": "0.01"}, {"error": {"message": "slow down"}}),
        "500": (500, {"retry-after-ms": "10"}, {"error": {"message": "oops"}}),
        "cut": (200, {}, None),
        "nonsense": (200, {}, {"what": "is this"}),
        "empty": (200, {}, {**said("x"), "choices": []}),
        "no json": (200, {}, b"<html>Bad gateway</html>"),
    }
    server = serve(lambda n, body: bad[fault] if n % 2 == 0 else (200, {}, said("look")))
    model = ServerModel(server.url, "m")
    model._asker._sleep = lambda seconds: time.sleep(min(seconds, 0.01))
    episodes = play(model, tmp_path / "memory")
    assert {e.outcome.reason for e in episodes} <= {StopReason.STEP_LIMIT, StopReason.SOLVED}
    assert model.retries >= 12
    assert all(e.usage["prompt"] >= 20 * len(e.steps) for e in episodes)


@pytest.mark.parametrize(
    "message", [{"content": None}, {"content": None, "refusal": "I would rather not."}]
)
def test_saying_nothing_is_an_answer(serve: Any, message: dict[str, Any]) -> None:
    """Not a fault of the server, which would be asked again and paid for ten minutes."""
    reply = said("x")
    reply["choices"][0]["message"] = {"role": "assistant", **message}
    server = serve(lambda n, body: (200, {}, reply))
    (action,) = ServerModel(server.url, "m").act([TALK])
    assert (action.text, len(server.requests)) == ("", 1)
    assert "There is no action" in action.problem
    assert action.reasoning == message.get("refusal", "")


def test_retry_after_is_heeded(serve: Any) -> None:
    late: Reply = (429, {"Retry-After": "1"}, {"error": {"message": "later"}})
    server = serve(lambda n, body: late if n == 0 else (200, {}, said("look")))
    began = time.monotonic()
    assert ServerModel(server.url, "m").act([TALK])[0].text == "look"
    assert time.monotonic() - began >= 1


def test_slow_answers_time_out_and_are_asked_for_again(serve: Any) -> None:
    def slow_once(number: int, body: dict[str, Any]) -> Reply:
        if number == 0:
            time.sleep(1.0)
        return 200, {}, said("look")

    model = ServerModel(serve(slow_once).url, "m", timeout=0.3)
    assert model.act([TALK])[0].text == "look"
    assert model.retries >= 1


def test_one_that_fails_for_good_costs_its_own_episode(serve: Any, tmp_path: Path) -> None:
    """A request that the server does not take: the others go on, and are not asked again."""

    def behave(number: int, body: dict[str, Any]) -> Reply:
        if "red" in json.dumps(body["messages"][-1]):
            return 400, {}, {"error": {"message": "no such field"}}
        return 200, {}, said("look")

    server = serve(behave)
    model = ServerModel(server.url, "m")
    talks = [(TALK[0], Turn("user", text)) for text in ("a red door", "a blue door")]
    with pytest.raises(SomeFailed, match="1 of 2 got no answer") as caught:
        model.act(talks)
    failed, good = caught.value.answers
    assert isinstance(failed, ServerFailed)
    assert not isinstance(good, Exception)
    assert good.text == "look"
    assert len(server.requests) == 2
    episodes = play(model, tmp_path / "memory")
    assert len(episodes) == 12


def test_a_conversation_that_is_too_long_goes_on_without_its_oldest_turns(serve: Any) -> None:
    told = "This model's maximum context length is 9 tokens. However, you requested 12 tokens."

    def behave(number: int, body: dict[str, Any]) -> Reply:
        if len(body["messages"]) > 6:
            return 400, {}, {"error": {"message": told}}
        return 200, {}, said("look")

    model = ServerModel(serve(behave).url, "m")
    episodes = list(Agent(model).run("toy", 3, batch=3))
    assert {str(episode.outcome.reason) for episode in episodes} == {"step limit"}
    assert all(episode.usage["dropped"] > 0 for episode in episodes)


def test_a_server_that_dies_and_comes_back(serve: Any, tmp_path: Path) -> None:
    """What could not be asked is a policy error, recorded, and played again by the same command."""
    server = serve(lambda n, body: (200, {}, said("look")) if n < 10 else (503, {}, {}))
    settings = RunSettings(batch=4, max_steps=2)
    with pytest.raises(StopRun, match="run the same again later"):
        evaluate(
            ServerModel(server.url, "m", patience=0.0), "toy", tasks=12, out=tmp_path / "e",
            settings=settings,
        )  # fmt: skip
    with Memory(tmp_path / "e" / "episodes", "r") as kept:
        done = len([1 for entry in kept.entries() if entry.reason is not StopReason.POLICY_ERROR])
    assert 0 < done < 12
    back = serve(lambda n, body: (200, {}, said("look")))
    again = evaluate(
        ServerModel(back.url, "m"), "toy", tasks=12, out=tmp_path / "e", settings=settings
    )
    assert len(again.episodes) == 12
    assert not [e for e in again.episodes if e.outcome.reason is StopReason.POLICY_ERROR]
    assert len(back.requests) == 2 * (12 - done)


def test_half_a_character_in_an_answer_costs_no_episode(serve: Any) -> None:
    server = serve(lambda n, body: (200, {}, said("fry \ud83d")))
    (episode,) = Agent(ServerModel(server.url, "m")).run("toy", max_steps=2)
    assert [step.action for step in episode.steps] == ["fry \ud83d"] * 2
    assert server.requests[1][1]["messages"][2]["content"] == "fry \ufffd"


def test_the_budget_stops_the_run_and_the_next_goes_on(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda n, body: (200, {}, said("look")))
    settings = RunSettings(batch=2, max_steps=2)
    poor = ServerModel(server.url, "m", budget=Budget(tokens=23 * 8), concurrency=2)
    with pytest.raises(BudgetSpent, match="184 tokens is used up"):
        evaluate(poor, "toy", tasks=12, out=tmp_path / "e", settings=settings)
    assert 8 <= len(server.requests) <= 9
    kept = len(list((tmp_path / "e").rglob("*.*")))
    assert kept
    still = ServerModel(server.url, "m", budget=Budget(tokens=23 * 8 - 46))
    with pytest.raises(BudgetSpent):  # what was used before counts
        evaluate(still, "toy", tasks=12, out=tmp_path / "e", settings=settings)
    rich = ServerModel(server.url, "m", budget=Budget(money=1.0), prices=Prices(1.0, 1.0))
    done = evaluate(rich, "toy", tasks=12, out=tmp_path / "e", settings=settings)
    assert done.n == 12
    assert done.rows[-1].tokens == 46
    assert done.rows[-1].cost == pytest.approx(12 * 46e-6, rel=0.5)


def test_every_reply_is_paid_for_and_none_is_asked_for_without_end(serve: Any) -> None:
    """What cannot be used counts; a server that asks to wait for nothing is not stormed."""
    nothing = {**said("x"), "choices": []}
    server = serve(lambda n, body: (200, {}, nothing))
    model = ServerModel(server.url, "m", budget=Budget(tokens=23 * 5))
    model._asker._sleep = lambda seconds: None
    with pytest.raises(BudgetSpent):
        model.act([TALK])
    assert len(server.requests) == 5
    hurry = serve(lambda n, body: (429, {"Retry-After": "0"}, {}))
    with pytest.raises(StopRun, match=r"gave no answer in [2-9] tries"):
        ServerModel(hurry.url, "m", patience=2.0).act([TALK])


@pytest.mark.parametrize(
    ("message", "thinking", "told"),
    [
        ({"content": "", "reasoning": "Let me see"}, None, "thinking='off' or more tokens"),
        ({"content": None, "reasoning_content": "Hm"}, "off", "while thinking: more tokens"),
        ({"content": "<think>\nLet me"}, "on", "while thinking: thinking='off' or more tokens"),
    ],
)
def test_answers_that_are_cut_off_while_thinking_are_told_from_refusals(
    serve: Any, message: dict[str, Any], thinking: Any, told: str
) -> None:
    reply = said("")
    reply["choices"][0] |= {"finish_reason": "length"}
    reply["choices"][0]["message"] |= message
    server = serve(lambda n, body: (200, {}, reply if n else said("look")))
    model = ServerModel(server.url, "m", thinking=thinking)
    measured = evaluate(model, "toy", tasks=1, settings=RunSettings(max_steps=10))
    assert measured.episodes[0].usage["cut"] == 9
    (remark,) = remarks(measured.episodes)
    assert remark.startswith("90 % of the answers were empty, cut off at max_new_tokens=32 while")
    assert remark.endswith(told)


def test_answers_that_are_cut_off_before_the_action_are_said_to_be(serve: Any) -> None:
    reply = said("Thought: I should look around, for it may be")
    reply["choices"][0]["finish_reason"] = "length"
    model = ServerModel(serve(lambda n, body: (200, {}, reply)).url, "m", action_format="react")
    (episode,) = Agent(model).run("toy", max_steps=3)
    (remark,) = remarks([episode])
    assert remark == (
        "100 % of the answers were cut off at max_new_tokens=256 before they came to an action: "
        "allow more tokens"
    )
    # A whole action is one, wherever the answer ended.
    reply["choices"][0]["message"]["content"] = "Action: look"
    (episode,) = Agent(model).run("toy", max_steps=3)
    assert "cut" not in episode.usage


def test_errors_say_what_the_server_said(serve: Any) -> None:
    told: list[Reply] = [
        (200, {}, {"error": {"message": "model overloaded"}}),
        (422, {}, {"detail": [{"loc": ["body", "seed"], "msg": "not an integer"}]}),
        (400, {}, {"error": {"message": "no such field"}}),
        (418, {}, b""),
    ]
    said_of_it = []
    for reply in told:
        server = serve(lambda n, body, reply=reply: reply)
        with pytest.raises(Exception, match="server") as caught:
            ServerModel(server.url, "m", patience=0.0).act([TALK])
        said_of_it.append(str(caught.value))
    overloaded, unfit, unknown, bare = said_of_it
    assert f"the server at {server.url[:17]}" in overloaded
    assert "gave no answer in 1 try over 0 s" in overloaded
    assert "no usable answer: model overloaded; patience is 0 s" in overloaded
    assert '422: [{"loc": ["body", "seed"], "msg": "not an integer"}]' in unfit
    assert unknown.endswith("such as: the server answered 400: no such field")
    assert "answered 418: " in bare


def test_who_gave_no_answer_and_why_is_told(serve: Any) -> None:
    late: Reply = (429, {"Retry-After": "900"}, {"error": {"message": "later"}})
    first, second = serve(lambda n, body: late), serve(lambda n, body: late)
    with pytest.raises(StopRun) as caught:
        ServerModel([first.url, second.url], "m", patience=60.0).act([TALK])
    assert first.url in str(caught.value)
    assert second.url in str(caught.value)
    assert "429: later; asked to wait for 900 s (Retry-After); patience" in str(caught.value)
    second.close()
    with pytest.raises(StopRun, match=r"Connection error\. \(.*refused"):
        ServerModel(second.url, "m", patience=0.0).act([TALK])


@pytest.mark.parametrize(
    ("said", "is_that"),
    [
        ("This model's maximum context length is 9 tokens.", True),
        ("Your input exceeds the context window of this model.", True),
        ("the request exceeds the available context size, try increasing it", True),
        ("The decoder prompt (length 30) is longer than the maximum model length of 20.", True),
        ("prompt is too long: 210000 tokens > 200000 maximum", True),
        ("the chat template has no variable context", False),
        ("Invalid 'user': string too long. Expected a maximum length 64", False),
    ],
)
def test_what_says_that_a_conversation_is_too_long(serve: Any, said: str, is_that: bool) -> None:
    server = serve(lambda n, body: (400, {}, {"error": {"message": said}}))
    with pytest.raises(SomeFailed) as caught:
        ServerModel(server.url, "m").act([TALK])
    assert isinstance(caught.value.answers[0], ContextOverflow) is is_that


def test_thoughts_in_the_answer_are_taken_apart(serve: Any) -> None:
    answers = ["<think>\nhm\n</think>\n\ngo north", "<think>\nhm"]
    model = ServerModel(serve(lambda n, body: (200, {}, said(answers[n]))).url, "m")
    (action,), (none,) = model.act([TALK]), model.act([TALK])
    assert (action.text, action.said, action.reasoning) == ("go north", "", "hm")
    assert (none.text, none.reasoning) == ("", "hm")
    assert none.problem


@pytest.mark.parametrize(("status", "hint"), [(401, "OPENAI_API_KEY"), (404, "base_url")])
def test_a_refusal_of_everything_ends_the_run_at_once(
    serve: Any, tmp_path: Path, status: int, hint: str
) -> None:
    server = serve(lambda n, body: (status, {}, {"error": {"message": "no"}}))
    with (
        Memory(tmp_path / "m") as memory,
        pytest.raises(ServerRefused, match=f"refuses every request: {status}.*{hint}"),
    ):
        list(Agent(ServerModel(server.url, "m"), memory).run("toy", 12))
    assert len(server.requests) == 1


def test_adapters_have_names_that_are_never_used_again(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda n, body: (200, {}, said("look") if "messages" in body else b"ok"))
    model = ServerModel(server.url, "m")
    (tmp_path / "v1").mkdir()
    names = []
    for _ in range(3):
        model.set_adapter(tmp_path / "v1")
        assert model.actor.adapter == "v1"
        model.act([TALK])
        names.append(server.requests[-1 if server.requests[-1][1].get("model") else -2][1]["model"])
    model.set_adapter(None)
    assert model.actor.adapter == ""
    assert len(set(names)) == 3
    loads = [b["lora_name"] for path, b in server.requests if path == "/v1/load_lora_adapter"]
    unloads = [b["lora_name"] for path, b in server.requests if path == "/v1/unload_lora_adapter"]
    assert loads == unloads == names
    refusing = serve(lambda n, body: (400, {}, {"error": {"message": "no lora"}}))
    with pytest.raises(ValueError, match=r"does not take adapter .*--enable-lora"):
        ServerModel(refusing.url, "m").set_adapter(tmp_path / "v1")


def test_the_adapter_stays_while_episodes_run(serve: Any, tmp_path: Path) -> None:
    server = serve(lambda n, body: (200, {}, said("look")))
    model = ServerModel(server.url, "m")
    with Memory(tmp_path / "m") as memory:
        run = Agent(model, memory).run("toy", 8, batch=4, max_steps=2)
        next(run)
        next(run)  # the place of the first is taken by another that runs
        with pytest.raises(RuntimeError, match="episodes are being played"):
            model.set_adapter(None)
        list(run)
    model.set_adapter(None)


def test_answers_without_an_action_are_told_so(serve: Any, tmp_path: Path) -> None:
    answers = ["I would like to wait.", "<action>look</action>", "<action>  </action>"]
    server = serve(lambda n, body: (200, {}, said(answers[n % 3])))
    model = ServerModel(server.url, "m", action_format="tagged")
    with Memory(tmp_path / "m") as memory:
        (episode,) = Agent(model, memory).run("toy", 1, max_steps=3)
        (stored,) = memory.iterate()
    assert stored == episode
    assert [step.action for step in episode.steps] == ["", "look", ""]
    assert [step.invalid for step in episode.steps][::2] == [True, True]
    assert episode.steps[0].said == "I would like to wait."
    assert "like this: <action>look</action>" in episode.steps[1].observation
    sent = server.requests[1][1]["messages"]
    assert sent[2]["content"] == "I would like to wait."
    assert "<action>look</action>" in sent[0]["content"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"base_url": "localhost:8000"}, "no address"),
        ({"concurrency": 0}, "at least 1"),
        ({"temperature": -1}, "must not be negative"),
        ({"model": ""}, "model must be the model's name on the server, not ''"),
        ({"model": None}, "the model's name on the server, not None"),
        ({"budget": 5}, r"budget must be a Budget\(tokens=…, money=…\), not 5"),
        ({"budget": 0}, "budget must be a Budget"),
        ({"prices": 1.0}, "prices must be Prices"),
        ({"base_url": 5}, "base_url must be an address or a list of them, not 5"),
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        ServerModel(**{"base_url": "http://x/v1", "model": "m", **arguments})
