"""Tuning the retriever: the policy's likelihood decides, also on queries that were held out."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from relive.agent.cli.main import main
from relive.agent.llm.local import LocalModel
from relive.agent.policy import ExpertPolicy
from relive.agent.retriever import RetrievedContext
from relive.agent.runner import Runner, play_all, spec_of
from relive.envs import get_suite
from relive.memory import HashedEmbedder, Memory, Retrieval
from relive.memory.search.embed import Embedder
from relive.memory.search.tuned import load_embedder
from relive.training.batches import encode_example
from relive.training.examples import example
from relive.training.retriever.linear_map import fit_map
from relive.training.retriever.score import score_candidates
from relive.training.retriever.settings import RetrieverSettings, ScoredQuery
from relive.training.retriever.tune import MANIFEST, tune_retriever
from relive.training.teacher_forced import forced, mean_loss, mean_losses

BASE = HashedEmbedder(256)
QUICK = RetrieverSettings(epochs=100, rank=0, learning_rate=0.01, views=4, anchor=1e-4)
THINGS = "mug bowl egg plate apple knife fork pan".split()
FORMS = ("steam the {} gently", "polish some {} twice", "hide your {} at once")


def opposite(queries: int = 90) -> list[ScoredQuery]:
    """The embedder finds goals of the same form; what helps, the policy says, is the same thing."""
    rng = random.Random(0)
    made = []
    for number in range(queries):
        form, thing = FORMS[number % 3], rng.choice(THINGS)
        others = [rng.choice([t for t in THINGS if t != thing]) for _ in range(3)]
        keys = [form.format(other) for other in others]
        keys += [other.format(thing) for other in FORMS if other != form]
        goal = form.format(thing)
        made.append(
            ScoredQuery(
                f"task-{number}", f"room-{number % 10}", goal, goal, tuple(keys),
                tuple(level + rng.gauss(0, 0.01) for level in (-1.0, -1.0, -1.0, -0.5, -0.5)),
            )
        )  # fmt: skip
    return made


def helpful_first(embedder: Embedder, scored: list[ScoredQuery]) -> float:
    """Share of queries whose closest candidate is about the same thing."""
    right = 0
    for query in scored:
        asked, *keys = embedder.encode([query.text, *query.keys])
        right += int(np.argmax([asked @ key for key in keys])) >= 3
    return right / len(scored)


def test_tuning_turns_a_ranking_round() -> None:
    """On queries of rooms that were held out, and in forms that were never scored."""
    scored = opposite()
    settings = replace(QUICK, actions=0.0, disturbed=0.0)
    tuned, report = fit_map(BASE, scored, settings)
    assert (report.queries, report.held_out) == (72, 18)
    apart = [query for query in scored if query.group in set(report.held_out_groups)]
    assert len(apart) == 18
    assert helpful_first(BASE, apart) < 0.2
    assert helpful_first(tuned, apart) == 1
    assert report.loss_after < report.loss_before / 3
    assert report.regret_before > 0.4 > 0.05 > report.regret_after
    assert report.losses[report.best_epoch - 1] == report.loss_after
    unseen = [
        replace(query, text=f"please fetch me a {query.text.split()[2]}") for query in scored[:20]
    ]
    assert helpful_first(tuned, unseen) > 0.8


def test_the_same_seed_gives_the_same_map() -> None:
    scored = opposite(30)
    one, report = fit_map(BASE, scored, replace(QUICK, epochs=3))
    again, same = fit_map(BASE, scored, replace(QUICK, epochs=3))
    other, _ = fit_map(BASE, scored, replace(QUICK, epochs=3, seed=1))
    assert (one.identity, report) == (again.identity, same)
    assert other.identity != one.identity
    low, _ = fit_map(BASE, scored, replace(QUICK, epochs=3, rank=4))
    assert np.linalg.matrix_rank(low.matrix - np.eye(256), tol=1e-4) <= 4


def test_what_makes_no_difference_changes_nothing() -> None:
    """Queries whose candidates all help alike would have everything equally close; they do not
    count, and the embedder stays as it was."""
    scored = [replace(query, likelihoods=(-1.0,) * 5) for query in opposite(30)]
    tuned, report = fit_map(BASE, scored, replace(QUICK, epochs=5))
    assert (report.best_epoch, report.loss_before) == (0, 0)
    np.testing.assert_array_equal(tuned.matrix, np.eye(256, dtype=np.float32))


def test_settings_and_queries_that_cannot_be_used() -> None:
    for change in (
        {"queries": -1}, {"candidates": 1}, {"epochs": 0}, {"held_out": 1.0}, {"temperature": 0.0},
        {"beta": 0.0}, {"actions": 0.7, "disturbed": 0.4}, {"views": 0}, {"near": 2.0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=next(iter(change))):
            replace(QUICK, **change)
    one_room = [replace(query, group="room") for query in opposite(6)]
    with pytest.raises(ValueError, match="two or more"):
        fit_map(BASE, one_room, QUICK)


def test_losses_in_batches_are_those_one_by_one(tiny_model: Path) -> None:
    suite, model = get_suite("toy"), LocalModel(tiny_model)
    episodes = play_all(Runner(suite, ExpertPolicy(suite)), suite.tasks("train", 5))
    sequences = [
        encode_example(model.encoder, example(spec_of(suite), episode, RetrievedContext()))
        for episode in episodes
    ]
    expected = [mean_loss(forced(model.model, one)) for (one,) in sequences]
    for tokens in (1, 300, 100_000):
        assert mean_losses(model.model, sequences, tokens) == pytest.approx(expected, rel=1e-4)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy successes, some of each train task twice."""
    folder, suite = tmp_path_factory.mktemp("toys") / "memory", get_suite("toy")
    with Memory(folder) as made:
        tasks = suite.tasks("train", 12)
        made.add_many(play_all(Runner(suite, ExpertPolicy(suite)), tasks))
        made.add_many(play_all(Runner(suite, ExpertPolicy(suite)), tasks[:3]))
    return folder


def test_candidates_are_never_the_task_itself(memory: Path, tiny_model: Path) -> None:
    suite, model = get_suite("toy"), LocalModel(tiny_model)
    settings = replace(QUICK, queries=0, candidates=5)
    with Memory(memory, "r") as opened:
        scored = score_candidates(model, opened, suite, Retrieval(), settings)
        tasks = {entry.task.identity: entry.task for entry in opened.entries()}
        assert sorted(query.task for query in scored) == sorted(tasks)  # each task once
        for query in scored:
            assert 2 <= len(query.keys) == len(query.likelihoods) <= 5
            assert query.text == tasks[query.task].goal
            assert query.actions
            same = [t.goal for t in tasks.values() if t.identity != query.task]
            assert set(query.keys) <= set(same)
            assert all(-20 < likelihood < 0 for likelihood in query.likelihoods)
        assert scored == score_candidates(model, opened, suite, Retrieval(), settings)
        with pytest.raises(ValueError, match="static"):
            score_candidates(model, opened, suite, Retrieval(query="dynamic"), settings)


def test_a_memory_that_holds_too_little(tmp_path: Path, tiny_model: Path) -> None:
    with Memory(tmp_path / "empty") as opened, pytest.raises(ValueError, match="holds 0 successes"):
        tune_retriever(
            LocalModel(tiny_model), opened, get_suite("toy"), Retrieval(), QUICK, tmp_path / "out"
        )
    assert not (tmp_path / "out").exists()


def test_the_command(
    memory: Path, tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Tunes, writes embedder and manifest, and the memory takes it."""
    out = tmp_path / "embedder"
    command = ["train-retriever", "--memory", str(memory), "--out", str(out)]
    for text in (
        "suite=toy", f"policy.model={tiny_model}", "retriever.candidates=4", "retriever.epochs=2"
    ):  # fmt: skip
        command += ["--set", text]
    assert main(command) == 0
    assert "use it: relive memory rebuild" in capfd.readouterr().out
    manifest = json.loads((out / MANIFEST).read_text())
    made = load_embedder(out)
    assert manifest["embedder"] == made.identity
    assert manifest["settings"]["candidates"] == 4
    assert len(manifest["tasks"]) == manifest["queries"] + manifest["held_out"] == 12
    assert main(["memory", "rebuild", "--memory", str(memory), "--embedder", str(out)]) == 0
    with Memory(memory, "r") as opened:
        assert opened.embedder.identity == made.identity
    assert main(["memory", "rebuild", "--memory", str(memory), "--embedder", "hashed"]) == 0
    with Memory(memory, "r") as opened:
        assert opened.embedder.identity == "hashed-1-384"
    assert main(command) == 2
    assert "exists: name a new folder" in capfd.readouterr().err
