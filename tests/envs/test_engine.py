"""The fast engine says what TextWorld's says."""

import dataclasses
import gzip
import hashlib
import importlib.util
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fast_downward
import pytest

from relive.envs.household import generator, translate
from relive.envs.household.engine import REFUSED, Engine, read_game
from relive.envs.household.generator import Game
from relive.envs.household.rooms import TASK_TYPES, task_seed
from tests.envs.stock import StockEngine

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(__file__).parent / "data"
GOLDEN = json.loads(gzip.decompress((DATA / "golden.json.gz").read_bytes()))
TRANSCRIPTS: list[dict[str, Any]] = GOLDEN["transcripts"]


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def stock() -> StockEngine:
    return StockEngine()


def game_of(transcript: dict[str, Any]) -> Game:
    game = generator.game(
        generator.generate(transcript["task_type"], transcript["seed"], transcript["split"])
    )
    assert generator.identity(game.problem) == transcript["identity"], (
        "the generator changed: bump its VERSION"
    )
    return game


def some_game(task_type: str = "pick_two_obj_and_place", index: int = 0) -> Game:
    return generator.game(
        generator.generate(task_type, task_seed("train", task_type, index), "train")
    )


def test_golden_transcripts_cover_all_types_winning_and_refusals() -> None:
    assert GOLDEN["generator"] == generator.VERSION
    assert [t["task_type"] for t in TRANSCRIPTS] == [t for t in TASK_TYPES for _ in range(5)]
    assert {t["task_type"] for t in TRANSCRIPTS if t["steps"][-1][2]} == set(TASK_TYPES)
    assert sum(step[1] == REFUSED for t in TRANSCRIPTS for step in t["steps"]) > 50


@pytest.mark.parametrize("number", range(30))
def test_golden_transcript(engine: Engine, number: int) -> None:
    transcript = TRANSCRIPTS[number]
    engine.load(game_of(transcript))
    assert engine.reset() == transcript["opening"]
    for command, feedback, won, admissible in transcript["steps"]:
        assert engine.step(command) == feedback, command
        assert engine.won() == won, command
        digest = hashlib.sha256("\n".join(engine.admissible()).encode()).hexdigest()[:12]
        assert digest == admissible, command


def script(name: str) -> Any:
    """A module of scripts/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        spec.loader.exec_module(module)
    return module


def test_the_script_that_wrote_the_golden_transcripts_writes_them_again(engine: Engine) -> None:
    for number in (12, 13):
        transcript = json.loads(
            json.dumps(script("make_golden").play(engine, TASK_TYPES[number // 5], number % 5))
        )
        assert transcript == TRANSCRIPTS[number]


def test_steps_are_ten_times_as_fast_as_stock_and_reset_takes_60_ms_at_most() -> None:
    result = script("bench_engine").measure(types=["pick_clean_then_place_in_recep"])
    assert result["engine_step_speedup"] >= 10
    assert result["engine_reset_ms"] <= 60


@pytest.mark.parametrize("number", [0, 12, 27])
def test_live_against_the_stock_engine(engine: Engine, stock: StockEngine, number: int) -> None:
    transcript = TRANSCRIPTS[number]
    game = game_of(transcript)
    engine.load(game)
    stock.load(game)
    assert stock.reset() == engine.reset() == transcript["opening"]
    for command, feedback, *_ in transcript["steps"]:
        assert stock.step(command) == engine.step(command) == feedback
        assert stock.admissible() == engine.admissible()
        assert stock.won() == engine.won()


def test_an_official_game_file_plays_as_in_the_stock_engine(
    engine: Engine, stock: StockEngine
) -> None:
    game = read_game(DATA / "official_game.tw-pddl.gz")
    assert game.goal == "put a hot potato in sinkbasin"
    engine.load(game)
    stock.load(game)
    assert engine.reset() == stock.reset()
    rng = random.Random(4)
    for _ in range(12):
        assert engine.admissible() == stock.admissible()
        command = rng.choice(engine.admissible())
        assert engine.step(command) == stock.step(command)


def test_a_file_that_is_no_game_is_named(tmp_path: Path) -> None:
    path = tmp_path / "game.tw-pddl"
    for content in (
        "not json",
        '{"grammar": "x"}',
        '{"pddl_domain": "", "grammar": "", "pddl_problem": ""}',
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=r"game\.tw-pddl"):
            read_game(path)


def test_engines_in_one_process_do_not_disturb_each_other(engine: Engine) -> None:
    other = Engine()
    try:
        engine.load(some_game("pick_and_place_simple"))
        opening = engine.reset()
        before = engine.admissible()
        other.load(some_game("pick_heat_then_place_in_recep"))
        other.reset()
        other.step(other.admissible()[0])
        assert engine.admissible() == before
        assert engine.step(before[0]) != REFUSED
        assert engine.reset() == opening
    finally:
        other.close()


def test_a_closed_engine_leaves_its_library_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    load = fast_downward.load_lib

    def counted() -> object:
        loaded.append(load())
        return loaded[-1]

    monkeypatch.setattr(fast_downward, "load_lib", counted)
    engines = [Engine()]
    while not loaded:  # until those that other engines left are taken
        engines.append(Engine())
    engines[-1].close()
    engines[-1].close()
    engines.append(Engine())
    assert len(loaded) == 1
    engines.append(Engine())
    assert len(loaded) == 2, "a library came back twice"
    for engine in engines:
        engine.close()


def test_reset_before_load_says_so() -> None:
    with pytest.raises(RuntimeError, match="load a game first"):
        Engine().reset()


def test_translating_leaves_argv_and_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    argv, stdout = list(sys.argv), sys.stdout
    game = some_game()
    translate.translate_anew(game.domain, game.problem)
    with pytest.raises(ValueError, match="cannot be translated"):
        translate.translate_anew(game.domain, "(define (problem broken")
    assert sys.argv == argv
    assert sys.stdout is stdout
    assert capsys.readouterr().out == ""


def test_translations_are_kept_on_disk_and_damage_is_repaired(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    game = some_game("look_at_obj_in_light", 3)
    expected = translate.translate(game.domain, game.problem)
    translate.clear_memory()
    with monkeypatch.context() as patch:
        patch.setattr(translate, "translate_anew", lambda *_: pytest.fail("translated again"))
        assert translate.translate(game.domain, game.problem) == expected
    files = [path for path in own_cache.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if path.name.startswith(".partial")]
    for path in files:
        path.write_bytes(path.read_bytes()[:100])
    translate.clear_memory()
    assert translate.translate(game.domain, game.problem) == expected


def test_a_cache_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RELIVE_CACHE", str(tmp_path / "file"))
    translate.clear_memory()
    game = some_game("look_at_obj_in_light", 4)
    assert translate.translate(game.domain, game.problem).sas


def test_another_textworld_is_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textworld.__version__", "1.8.0")
    game = dataclasses.replace(some_game(), grammar="that was not parsed yet")
    with pytest.raises(ImportError, match=r"pip install textworld==1\.7\.0"):
        Engine().load(game)


def test_nothing_is_left_in_the_home_folder(tmp_path: Path) -> None:
    code = (
        "import os, relive.envs\n"
        "from tests.envs.stock import StockEngine\n"
        "before = dict(os.environ)\n"
        "suite = relive.envs.get_suite('household')\n"
        "env = suite.make(); env.reset(options={'task': suite.tasks('train', 1)[0]}); env.close()\n"
        "StockEngine()\n"
        "assert dict(os.environ) == before"
    )
    home = {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path),
        "RELIVE_CACHE": str(tmp_path / "relive"),
    }
    environment = {name: value for name, value in os.environ.items() if name != "ALFWORLD_DATA"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env={**environment, **home})
    assert {path.name for path in tmp_path.iterdir()} <= {"relive"}
