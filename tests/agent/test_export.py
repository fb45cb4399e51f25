"""Exports, read back by the programs they are for."""

import csv
import json
import math
import os
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from relive.agent.cli import main
from relive.agent.export.datasets import export_datasets
from relive.agent.export.messages import export_messages
from relive.agent.export.minari import export_minari
from relive.agent.export.report import Report
from relive.agent.export.source import Source
from relive.agent.export.tables import export_tables
from relive.agent.retriever import RetrievedContext
from relive.agent.rundir import memory_in
from relive.agent.runner import spec_of
from relive.envs import get_suite
from relive.memory import Episode, Memory, Step
from relive.memory.compose import compose
from relive.memory.episode import Outcome, Retrieved, StopReason

TOY = ["--suite", "toy", "--tasks", "6"]
HALF = "half \ud800 a character"
NASTY = 'line one\nline "two", with\r\nreturns; \tтаб 🫖 \x1b[2J'
EXPORTS: dict[str, Callable[[Any, Path], Report]] = {
    "messages": export_messages,
    "datasets": export_datasets,
    "minari-v0": export_minari,
    "csv": export_tables,
}


def nasty(**changes: Any) -> Episode:
    """An episode with everything that a format may trip over."""
    steps = [
        Step(NASTY, "=cmd|' /C calc'!A0", float("nan"), retrieved=(Retrieved("a", 1.0),)),
        Step(HALF, "wash\0 mug", math.inf, invalid=True, reasoning="Hm.\n", said="I wash\nit"),
        Step("", "", -0.0),
    ]
    made = compose(goal="wash a mug", steps=steps, success=False, id="nasty", final_observation="-")
    return replace(made, **changes)


def empty() -> Episode:
    made = compose(goal="x", steps=[("a", "b")], success=False, id="empty", final_observation="e")
    return replace(
        made, steps=(), outcome=Outcome(False, 0.0, StopReason.ENVIRONMENT_ERROR, "died")
    )


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Six of the expert's episodes and six random ones, which were refused now and then."""
    folder = tmp_path / "memory"
    for policy in ("expert", "random"):
        assert main(["run", *TOY, "--policy", policy, "--memory", str(folder)]) == 0
    return folder


def lines_of(path: Path) -> list[list[dict[str, Any]]]:
    return [json.loads(line)["messages"] for line in path.read_text().splitlines()]


def test_messages_are_those_that_training_shows(memory: Path, tmp_path: Path) -> None:
    from relive.agent.conversation import messages
    from relive.training.examples import example

    out = tmp_path / "new" / "messages.jsonl"
    assert main(["export", str(memory), "--to", "messages", "--out", str(out)]) == 0
    with Memory(memory, "r") as opened:
        episodes = list(opened.iterate())
    spec = spec_of(get_suite("toy"))
    told = lines_of(out)
    assert len(told) == len(episodes) == 12
    refused = 0
    for got, episode in zip(told, episodes, strict=True):
        shown = example(spec, episode, RetrievedContext())
        assert [{k: m[k] for k in ("role", "content")} for m in got] == messages(shown.conversation)
        answers = [m for m in got if m["role"] == "assistant"]
        assert [m.get("weight") == 0 for m in answers] == [s.invalid for s in episode.steps]
        refused += sum(s.invalid for s in episode.steps)
    assert refused  # or the weights above say nothing


def test_messages_load_as_trl_loads_them(memory: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out = tmp_path / "messages.jsonl"
    with Memory(memory, "r") as opened:
        export_messages([*opened.iterate(), nasty()], out)
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset("json", data_files=str(out), split="train", cache_dir=cache)
    assert loaded.num_rows == 13
    last = loaded[12]["messages"]
    assert [m["role"] for m in last] == ["system", *("user", "assistant") * 3]
    assert NASTY in last[1]["content"]
    assert last[3]["content"] == HALF.replace("\ud800", "\ufffd")
    assert (last[4]["content"], last[4]["weight"]) == ("I wash\nit", 0)


def test_episodes_of_no_suite_say_their_goal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [("locked out", "unlock account")]
    with Memory(tmp_path / "m") as memory:
        memory.add(goal="reset a password", steps=steps, success=True)
        memory.add(goal="Locked", steps=steps, success=True, suite="os:system", split="test")
        memory.add(goal="x", steps=steps, success=False)
    arguments = ["export", str(tmp_path / "m"), "--to", "messages", "--out"]
    assert main([*arguments, str(tmp_path / "a"), "--successes"]) == 0
    told = capsys.readouterr().err
    assert "suite 'os:system' (no registered suite)" in told
    assert "1 episode of split 'test'" in told
    first, second = lines_of(tmp_path / "a")
    assert first[0]["content"].startswith("You act in a text environment.")
    assert first[1]["content"] == "Your task is to: reset a password.\n\nlocked out"
    assert second[1]["content"] == "locked out"  # which states it
    assert main([*arguments, str(tmp_path / "b"), "--suite", "toy", "--split", "train"]) == 0
    told = capsys.readouterr().err
    assert "split" not in told
    assert len(lines_of(tmp_path / "b")) == 2
    assert lines_of(tmp_path / "b")[0][0]["content"].startswith("You are in a small house")


def test_an_action_format_is_asked_for_as_it_was(tmp_path: Path) -> None:
    made = nasty()
    made = replace(made, actor=replace(made.actor, settings={"action_format": "tagged"}))
    export_messages([made], tmp_path / "a")
    assert "<action>look</action>" in lines_of(tmp_path / "a")[0][0]["content"]


def test_datasets_opens_the_folder(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    plain = compose(goal="g", steps=[("a", "b")], success=True, id="plain")
    # First what would be guessed wrong: a column of nulls, a list without items.
    report = export_datasets([empty(), plain, nasty(usage={"prompt": 7})], tmp_path / "set")
    assert (report.episodes, report.steps, report.replaced) == (3, 4, 1)
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=cache)
    first, second, third = loaded
    assert (first["observation"], first["reason"], first["detail"]) == (
        [], "environment error", "died",
    )  # fmt: skip
    assert (second["action"], second["prompt_tokens"], second["success"]) == (["b"], None, True)
    assert third["prompt_tokens"] == 7.0
    assert third["observation"] == [NASTY, HALF.replace("\ud800", "\ufffd"), ""]
    assert third["action"][1] == "wash\0 mug"
    assert third["reward"] == [None, None, 0.0]
    assert third["invalid"] == [False, True, False]
    assert third["retrieved"] == ["a", "", ""]
    direct = datasets.load_dataset(
        "json", data_files=str(tmp_path / "set" / "episodes.jsonl"), split="train", cache_dir=cache
    )
    assert direct.column_names == loaded.column_names


def test_minari_opens_it(memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minari = pytest.importorskip("minari")
    pytest.importorskip("h5py")
    monkeypatch.chdir(tmp_path)  # Minari gets relative paths wrong
    with Memory(memory) as opened:
        opened.add(nasty())
        opened.add(empty())
        episodes = [e for e in opened.iterate() if e.steps]
    assert main(["export", "memory", "--to", "minari", "--out", "sets/toy-v0"]) == 0
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "sets"))
    assert list(minari.list_local_datasets()) == ["toy-v0"]
    found = minari.load_dataset("toy-v0")
    assert (found.total_episodes, found.total_steps) == (13, sum(len(e.steps) for e in episodes))
    for got, episode in zip(found.iterate_episodes(), episodes, strict=True):
        assert all(map(found.observation_space.contains, got.observations))
        assert all(map(found.action_space.contains, got.actions))
        ended = episode.outcome.reason in (StopReason.SOLVED, StopReason.FAILED)
        assert (got.terminations[-1], got.truncations[-1]) == (ended, not ended)
        assert list(got.infos["invalid"]) == [False, *(s.invalid for s in episode.steps)]
        if episode.id != "nasty":
            assert got.observations == list(episode.observations)
            assert got.actions == [s.action for s in episode.steps]
            assert list(got.rewards) == [s.reward for s in episode.steps]
    assert got.observations[1] == HALF.replace("\ud800", "\ufffd")
    assert got.actions[1] == "wash\ufffd mug"
    assert math.isnan(got.rewards[0])
    (about,) = found.storage.get_episode_metadata([0])
    assert about["options"]["goal"] == episodes[0].task.goal
    assert about["seed"] == episodes[0].task.seed


@pytest.mark.parametrize("name", ["toy", "toy v0", "-v", "toy-v0.1"])
def test_minari_has_names_of_its_own(name: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    with pytest.raises(ValueError, match="name-v0"):
        export_minari([nasty()], tmp_path / name)
    with pytest.raises(ValueError, match="no episode with a step"):
        export_minari([empty()], tmp_path / "toy-v0")
    assert list(tmp_path.iterdir()) == []


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_tables_come_back_as_they_were(tmp_path: Path) -> None:
    report = export_tables([nasty(), empty()], tmp_path / "t")
    first, second = rows(tmp_path / "t" / "episodes.csv")
    assert (first["goal"], first["success"], first["prompt_tokens"]) == ("wash a mug", "false", "")
    assert (second["reason"], second["final_observation"]) == ("environment error", "e")
    a, b, c = rows(tmp_path / "t" / "steps.csv")
    assert (a["observation"], a["action"]) == (NASTY, "=cmd|' /C calc'!A0")
    assert math.isnan(float(a["reward"]))
    assert (b["observation"], b["action"]) == (HALF.replace("\ud800", "\ufffd"), "wash\0 mug")
    assert (float(b["reward"]), b["invalid"], b["said"]) == (math.inf, "true", "I wash\nit")
    assert (c["observation"], c["action"], float(c["reward"])) == ("", "", 0.0)
    assert any(note.startswith("texts that begin as formulas do: 3;") for note in report.remarks)


def test_tables_for_a_spreadsheet_hold_no_formula(tmp_path: Path) -> None:
    starts = ("=", "+", "-", "@", "\t", "\r", "\n")
    steps = [(f"{c}1+1", "look") for c in starts]
    made = compose(goal="@SUM(A1)", steps=steps, success=True)
    export_tables([made], tmp_path / "t", spreadsheet=True)
    assert [row["observation"] for row in rows(tmp_path / "t" / "steps.csv")] == [
        f"'{c}1+1" for c in starts
    ]
    (row,) = rows(tmp_path / "t" / "episodes.csv")
    assert row["goal"] == "'@SUM(A1)"
    assert row["score"] == "1.0"


def test_an_export_leaves_files_of_others_alone(tmp_path: Path) -> None:
    mine = tmp_path / "out.jsonl.tmp"
    mine.write_text("mine")
    export_messages([nasty()], tmp_path / "out.jsonl")
    assert mine.read_text() == "mine"
    assert (tmp_path / "out.jsonl").stat().st_size


@pytest.mark.parametrize("kind", EXPORTS)
def test_an_export_is_there_in_full_or_not_at_all(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py")

    class Breaking:
        """Minari reads twice, and it is the writing that breaks here."""

        def __init__(self) -> None:
            self.times = 0

        def __iter__(self) -> Iterator[Episode]:
            self.times += 1
            yield nasty()
            if self.times == (2 if kind == "minari-v0" else 1):
                raise OSError("the disk is full")

    out = tmp_path / "new" / kind
    with pytest.raises(OSError, match="the disk is full"):
        EXPORTS[kind](Breaking(), out)
    assert list(out.parent.iterdir()) == []
    EXPORTS[kind]([nasty()], out)
    assert [file.name for file in out.parent.iterdir()] == [kind]
    held = {file: file.read_bytes() for file in out.parent.rglob("*") if file.is_file()}
    with pytest.raises(FileExistsError, match="give another --out, or delete it first"):
        EXPORTS[kind]([empty(), nasty()], out)
    assert held == {file: file.read_bytes() for file in out.parent.rglob("*") if file.is_file()}
    dangling = tmp_path / f"dangling-{kind}"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError):
        EXPORTS[kind]([nasty()], dangling)
    assert not (tmp_path / "nowhere").exists()


def test_others_may_read_a_folder_as_far_as_they_may_read_others(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        export_tables([nasty()], tmp_path / "t")
    finally:
        os.umask(before)
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "t" / "steps.csv").stat().st_mode & 0o777 == 0o640


def test_a_broken_episode_is_named_and_the_others_exported(
    memory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (segment,) = (memory / "log").iterdir()
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 0xFF
    segment.write_bytes(data)
    capsys.readouterr()
    out = tmp_path / "t"
    assert main(["export", str(memory), "--to", "csv", "--out", str(out)]) == 1
    told = capsys.readouterr().err
    assert "not exported, damaged: log/" in told
    assert f"11 episodes with {len(rows(out / 'steps.csv'))} steps exported" in told
    assert len(rows(out / "episodes.csv")) == 11


def test_what_is_added_meanwhile_is_not_exported(tmp_path: Path) -> None:
    with Memory(tmp_path / "m") as memory:
        memory.add(nasty())
        source = Source(memory, memory.position)
        memory.add(nasty(id="later"))
        assert [episode.id for episode in source] == ["nasty"]
        assert [e.id for e in Source(memory, memory.position)] == ["nasty", "later"]


def test_the_memory_of_a_run_is_found(tmp_path: Path) -> None:
    run = tmp_path / "r"
    assert main(["eval", *TOY, "--policy", "expert", "--out", str(run)]) == 0
    assert memory_in(run) == run / "episodes"
    assert memory_in(run / "episodes") == run / "episodes"
    with pytest.raises(FileNotFoundError, match="is no folder"):
        memory_in(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="holds no episodes"):
        memory_in(run / "episodes" / "log")
    study = tmp_path / "study"
    Memory(study / "seed-0" / "own").close()
    assert memory_in(study) == study / "seed-0" / "own"
    Memory(study / "seed-1" / "own").close()
    with pytest.raises(ValueError, match=r"several memories: give one of .*seed-0.*seed-1"):
        memory_in(study)


def test_messages_go_to_standard_output(
    memory: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    arguments = ["export", str(memory), "--to", "messages", "--out"]
    assert main([*arguments, "a.jsonl"]) == 0
    capfdbinary.readouterr()
    assert main([*arguments, "-"]) == 0
    out, error = capfdbinary.readouterr()
    assert out == Path("a.jsonl").read_bytes()
    assert error.startswith(b"12 episodes with ")
    assert error.splitlines()[0].endswith(b" exported")
    assert not Path("-").exists()
    assert main([*arguments, "./-"]) == 0
    assert Path("-").read_bytes() == out


def test_mistakes_are_one_line(memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(memory.parent / "o")]
    for wrong, told in (
        (["--to", "csv", "--suite", "toy"], "--suite chooses the instructions of messages"),
        (["--to", "datasets", "--spreadsheet"], "--spreadsheet is about tables"),
        (["--to", "csv", "--out", "-"], "--out - is standard output, and --to csv makes a folder"),
        (["--to", "messages", "--suite", "toyy"], "there is no suite 'toyy'. Did you mean 'toy'?"),
    ):
        capsys.readouterr()
        assert main(["export", str(memory), *out, *wrong]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("relive export: ")
        assert told in line
    assert not (memory.parent / "o").exists()


@pytest.mark.parametrize("kind", EXPORTS)
def test_many_episodes_need_no_more_room_than_few(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    text = "You see a mug. " * 7000  # 100 kB, so that a hundred more are 10 MB

    class Many:
        def __init__(self, count: int) -> None:
            self.count = count

        def __iter__(self) -> Iterator[Episode]:
            for number in range(self.count):
                steps = [(f"{text}{number}", "look")]
                yield compose(goal="wash a mug", steps=steps, success=True, id=str(number))

    peaks = []
    for count in (20, 120):
        tracemalloc.start()
        EXPORTS[kind](Many(count), tmp_path / str(count) / kind)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 3e6


def test_a_split_that_nothing_is_of_is_said(tmp_path: Path) -> None:
    with Memory(tmp_path / "m") as memory:
        memory.add(nasty())
        with pytest.raises(ValueError, match="no episode is of split 'typo': the memory has '"):
            Source(memory, memory.position, split="typo")
