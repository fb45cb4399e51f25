"""Several servers of one model: the work is shared, a server that goes costs no episode, and an
adapter is on all of them before anybody plays with it."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from relive import Agent, Memory, ServerModel
from relive.agent.conversation import Conversation, StopRun, Turn
from relive.agent.load_policy import PolicySettings, ServerSettings, load_server
from relive.agent.server import replicas as replicas_module
from relive.agent.server.ask import ServerRefused
from relive.agent.server.replicas import Replica, Replicas, is_well
from relive.memory.episode import StopReason
from tests.agent.vllm_stand_in import StandIn

Start = Callable[..., list[StandIn]]


@pytest.fixture
def start() -> Iterator[Start]:
    servers: list[StandIn] = []

    def begin(count: int, **options: Any) -> list[StandIn]:
        servers.extend(StandIn(**options) for _ in range(count))
        return servers[-count:]

    yield begin
    for server in servers:
        server.stop()


@pytest.fixture(autouse=True)
def _quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas_module, "FIRST_CHECK", 0.02)
    monkeypatch.setattr(replicas_module, "LAST_CHECK", 0.05)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "v1"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    return folder


def model_of(servers: list[StandIn], **options: Any) -> ServerModel:
    model = ServerModel([server.url for server in servers], "m", **options)
    model._asker._sleep = lambda seconds: time.sleep(min(seconds, 0.02))
    return model


def talk(number: int, *more: str) -> Conversation:
    """A conversation that begins with its number."""
    turns = [Turn("system", "Act."), Turn("user", f"You see door {number}.")]
    for text in more:
        turns += [Turn("assistant", "look"), Turn("user", text)]
    return tuple(turns)


def wait_for(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


def numbers(server: StandIn) -> list[str]:
    """Which conversations a server was asked about, once for each request."""
    return [body["messages"][1]["content"] for body in server.asked]


def test_new_conversations_are_dealt_out_and_known_ones_go_back(start: Start) -> None:
    servers = start(3, seconds=0.01)
    model = model_of(servers)
    model.act([talk(i) for i in range(12)])
    assert [len(server.asked) for server in servers] == [4, 4, 4]
    first = [set(numbers(server)) for server in servers]
    for step in range(3):
        model.act([talk(i, *["Nothing happens."] * (step + 1)) for i in range(12)])
    assert [set(numbers(server)) for server in servers] == first
    assert [len(server.asked) for server in servers] == [16, 16, 16]


def test_what_is_known_in_one_place_only_does_not_wait_there(start: Start) -> None:
    """Eight samples of one task begin alike; one server does not do all the work."""
    servers = start(2, seconds=0.05)
    model = model_of(servers)
    model.act([talk(0)])
    model.act([talk(0)] * 8)
    counts = sorted(len(server.asked) for server in servers)
    assert sum(counts) == 9
    assert counts[0] >= 3


def play(model: ServerModel, path: Path, tasks: int = 16) -> list[Any]:
    with Memory(path) as memory:
        return list(Agent(model, memory).run("toy", tasks, batch=4, max_steps=3))


@pytest.mark.parametrize("fault", ["stopped", 503, 500, 429])
def test_a_server_that_fails_costs_no_episode(
    start: Start, tmp_path: Path, fault: str | int
) -> None:
    servers = start(2)
    model = model_of(servers)
    play(model, tmp_path / "before", 4)
    asked = len(servers[0].asked)
    if fault == "stopped":
        servers[0].stop()
    else:
        servers[0].fault, servers[0].health = int(fault), int(fault)
    episodes = play(model, tmp_path / "during")
    assert {e.outcome.reason for e in episodes} <= {StopReason.STEP_LIMIT, StopReason.SOLVED}
    assert len(servers[0].asked) == asked
    assert (set(model.out_of_service) == {servers[0].url}) == (fault != 429)
    if fault == "stopped":  # no more than one for each of four that ran at once, and some checks
        assert model.retries <= 12
        servers[0].start()
    servers[0].fault, servers[0].health = None, 200
    assert wait_for(lambda: bool(model.act([talk(99)])) and not model.out_of_service)
    play(model, tmp_path / "after")
    assert len(servers[0].asked) > asked


def test_all_are_gone_for_a_while_and_then_for_good(start: Start) -> None:
    servers = start(2)
    model = ServerModel([server.url for server in servers], "m", patience=20.0)
    for server in servers:
        server.stop()
    threading.Timer(0.3, servers[1].start).start()
    assert model.act([talk(1)])[0].text == "look"
    servers[1].stop()
    again = model_of(servers, patience=0.2)
    with pytest.raises(StopRun, match=r"gave no answer in \d+ tries"):
        again.act([talk(2)])
    for server in servers:
        server.start()  # for the fixture to stop


def test_one_with_a_wrong_address_is_named(start: Start) -> None:
    (server,) = start(1)
    model = ServerModel([server.url, server.url.replace("/v1", "/v2")], "m")
    with pytest.raises(ServerRefused, match=r"/v2 refuses every request: 404.*base_url"):
        model.act([talk(number) for number in range(4)])


def test_an_adapter_is_on_all_before_anybody_is_asked(start: Start, adapter: Path) -> None:
    servers = start(3)
    model = model_of(servers)
    model.set_adapter(adapter)
    (name,) = servers[0].adapters
    assert [list(server.adapters) for server in servers] == [[name]] * 3
    model.act([talk(i) for i in range(6)])
    assert {body["model"] for server in servers for body in server.asked} == {name}
    second = adapter.with_name("v2")
    adapter.rename(second)
    model.set_adapter(second)
    (newer,) = servers[0].adapters
    assert newer != name
    assert [list(server.adapters) for server in servers] == [[newer]] * 3
    model.set_adapter(None)
    assert not any(server.adapters for server in servers)


def test_one_that_refuses_an_adapter_keeps_it_off_all(start: Start, adapter: Path) -> None:
    """No round is played by two versions; the one before stays in force."""
    servers = start(3)
    model = model_of(servers)
    model.set_adapter(adapter)
    before = dict(servers[0].adapters)
    other = adapter.with_name("v2")
    other.mkdir()
    with pytest.raises(ValueError, match=r"does not take adapter .*v2.*must see the folder"):
        model.set_adapter(other)  # there is no adapter in it
    servers[2].refuses_adapters = True
    (other / "adapter_config.json").write_text("{}")
    with pytest.raises(ValueError, match=rf"{servers[2].port}/v1 does not take"):
        model.set_adapter(other)
    assert [server.adapters for server in servers] == [before] * 3
    assert model.adapter == "v1"
    model.act([talk(i) for i in range(6)])
    assert {body["model"] for server in servers for body in server.asked} == set(before)


def test_one_that_is_away_gets_the_adapter_before_it_gets_requests(
    start: Start, adapter: Path
) -> None:
    servers = start(3)
    model = model_of(servers)
    servers[1].stop()
    model.set_adapter(adapter)
    assert "has not got adapter v1-" in model.out_of_service[servers[1].url]
    model.act([talk(i) for i in range(6)])
    assert not servers[1].asked
    servers[1].start()

    def served() -> bool:
        model.act([talk(time.monotonic_ns() % 10_000) for _ in range(6)])
        return bool(servers[1].asked)

    assert wait_for(served)
    assert servers[1].loads == servers[0].loads
    assert {body["model"] for body in servers[1].asked} == set(servers[0].adapters)
    for server in servers:
        server.stop()
    second = adapter.with_name("v2")
    adapter.rename(second)
    with pytest.raises(ValueError, match=r"does not take adapter .*Connection error"):
        model.set_adapter(second)
    for server in servers:
        server.start()


@pytest.mark.parametrize("count", [1, 2])
def test_one_that_was_started_again_and_forgot_its_adapter(
    start: Start, adapter: Path, count: int
) -> None:
    """Nobody noticed: it answers that there is no such model, and is given it again."""
    servers = start(count)
    model = model_of(servers)
    model.set_adapter(adapter)
    model.act([talk(i) for i in range(2 * count)])
    for server in servers:
        server.adapters.clear()
    actions = model.act([talk(i, "Nothing happens.") for i in range(2 * count)])
    assert [action.text for action in actions] == ["look"] * 2 * count
    assert [server.loads[-1] for server in servers] == [servers[0].loads[0]] * count
    model.set_adapter(None)
    assert not any(server.adapters for server in servers)


def test_health_is_asked_for_where_it_is(start: Start) -> None:
    (server,) = start(1)
    client = openai.OpenAI(base_url=server.url, api_key="none", max_retries=0)
    assert is_well(client)
    server.health = 503
    assert not is_well(client)
    server.health = 404  # no such address: its models are asked for
    assert is_well(client)
    assert not is_well(client.with_options(base_url="http://127.0.0.1:9/v1"))


def test_waits_between_checks_grow_and_turns_go_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now, checked = [0.0], Counter[str]()
    monkeypatch.setattr(replicas_module, "FIRST_CHECK", 1.0)
    monkeypatch.setattr(replicas_module, "LAST_CHECK", 8.0)

    def unwell(client: Any) -> bool:
        if client in clients:  # threads of other tests may still be looking at theirs
            checked[str(client.base_url)] += 1
        return False

    monkeypatch.setattr(replicas_module, "is_well", unwell)
    clients = [openai.OpenAI(base_url=f"http://{n}/v1", api_key="none") for n in "abc"]
    replicas = Replicas(clients, lambda: now[0])
    a, b, c = replicas

    def turn(conversation: int) -> Replica:
        chosen = replicas.lease(conversation)
        replicas.release(chosen)
        return chosen

    assert [turn(i) for i in range(6)] == [a, b, c, a, b, c]
    assert turn(1) is b
    replicas.failed(b, None, 0.0, "refused")
    assert [turn(1) for _ in range(3)] == [turn(1)] * 3  # another is its home now
    assert b not in {turn(i) for i in range(10, 20)}
    replicas.failed(a, 429, 5.0, "not so fast")
    assert {turn(i) for i in range(20, 30)} == {c}
    for second in range(1, 40):
        now[0] = float(second)
        turn(7)
        assert wait_for(lambda: not b._checking)
    assert checked == {"http://b/v1/": 7}  # after 1, 2, 4, and four times 8 seconds
    replicas.answered(b)
    assert b in {turn(i) for i in range(40, 50)}


def test_several_addresses_in_settings() -> None:
    where = ServerSettings(base_url="http://a:1/v1, http://b:2/v1")
    model = load_server(PolicySettings(kind="server", model="m", server=where))
    assert model.base_urls == ("http://a:1/v1", "http://b:2/v1")
    for wrong in ([], ["http://a/v1", "http://a/v1/"], ["http://a/v1", "b"]):
        with pytest.raises(ValueError, match="address"):
            ServerModel(wrong, "m")
