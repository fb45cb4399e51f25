"""Variations of episodes: each is true in the real game, and keeps to what was asked for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from relive.agent.llm.local import LocalModel
from relive.agent.llm.prose import continued
from relive.agent.policy import ExpertPolicy
from relive.agent.runner import Runner, RunSettings
from relive.agent.settings import build
from relive.envs import get_suite
from relive.envs.household.engine import Engine
from relive.envs.household.generator import game
from relive.envs.household.suite import HouseholdSuite
from relive.envs.household.tasks import world_of
from relive.envs.household.variations import KINDS, _worded
from relive.memory import Episode, Memory
from relive.training.augment import augment, paraphrase, propose
from relive.training.learn import LearnSettings
from relive.training.select import SelectSettings
from relive.training.tune import train_on_memory


@pytest.fixture(scope="module")
def lived() -> list[Episode]:
    suite = get_suite("household")
    runner = Runner(suite, ExpertPolicy(suite), RunSettings(batch=4))
    return [e for e in runner.run(suite.tasks("train", 18)) if e.success]


def test_variations_say_what_they_are(lived: list[Episode]) -> None:
    suite = get_suite("household")
    made = augment(suite, lived, tuple(KINDS), most=9)
    assert set(made.counts) == set(KINDS)
    assert all(made.counts.values())
    by_id = {e.id: e for e in lived}
    for one in made.episodes:
        before = by_id[one.id]
        assert one.task.identity == before.task.identity  # retrieval keeps the original away
        assert one.task.goal != before.task.goal
        assert one.success
        assert one.task.goal in one.steps[0].observation
        assert len(one.observations) == len(one.steps) + 1
    plain = augment(suite, lived, ("wordings",))
    assert {e.task.type for e in plain.episodes} == {e.task.type for e in lived}
    assert all(len(e.steps) == len(by_id[e.id].steps) for e in plain.episodes)
    easy = augment(suite, lived, ("hindsight", "reversal"), types=("pick_and_place_simple",))
    assert {e.task.type for e in easy.episodes} == {"pick_and_place_simple"}
    assert augment(suite, lived, (), most=9).episodes == ()


def test_hindsight_is_true_in_the_real_game(lived: list[Episode]) -> None:
    """One cleaned thing that was put somewhere: the engine grants the plain goal for the same
    actions, word for word the same observations, and at the last action only."""
    suite = get_suite("household")
    episode = next(e for e in lived if e.task.type == "pick_clean_then_place_in_recep")
    (made, *_) = augment(
        suite, [episode], ("hindsight",), types=("pick_and_place_simple",)
    ).episodes
    assert episode.observations[0].partition("Your task")[0] in made.observations[0]
    other = replace(world_of(episode.task), task_type=made.task.type, goal=made.task.goal)
    engine = Engine()
    engine.load(game(_worded(other, made.task.goal)))
    assert engine.reset().endswith(made.observations[0])  # after a banner
    for number, step in enumerate(made.steps):
        assert not engine.won()
        assert engine.step(step.action) == made.observations[number + 1]
    assert engine.won()
    engine.close()


def test_what_a_suite_cannot_vary_is_said(lived: list[Episode]) -> None:
    with pytest.raises(ValueError, match="knows no variations of kind wordings: it has none"):
        augment(get_suite("toy"), lived, ("wordings",))
    with pytest.raises(KeyError):
        list(get_suite("toy").variations(lived[0].task, [], "wordings"))


def test_what_cannot_be_simulated_makes_no_variation(lived: list[Episode]) -> None:
    """Rather than one whose observations are false."""
    suite = get_suite("household")
    actions = [step.action for step in lived[0].steps]
    assert list(suite.variations(lived[0].task, actions, "wordings"))
    for strange in ("look", "inventory", "examine bed 1"):
        assert not list(suite.variations(lived[0].task, [strange, *actions], "wordings"))


def test_variations_are_learnt_from_and_counted(lived: list[Episode], tmp_path: Path) -> None:
    settings = build(LearnSettings, {
        "select": {"policies": ["expert"], "variations": ["wordings", "reversal"]},
        "lora": {"steps": 1, "batch_examples": 1, "rehearsal": 0.0},
    })  # fmt: skip
    with Memory(tmp_path / "m") as memory:
        memory.add_many(lived[:4])
        model = LocalModel("bundled")
        made = train_on_memory(settings, get_suite("household"), model, memory, tmp_path / "a")
        assert made.extra["variations"]["wordings"] == 4
        assert made.examples == 4 + sum(made.extra["variations"].values())
        # Of another world, or another version of this one, nothing can be laid out anew.
        strange = [
            replace(lived[n], id=f"strange-{n}", task=replace(lived[n].task, **told))
            for n, told in ((4, {"version": "household-0"}), (5, {"suite": ""}))
        ]
        memory.add_many(strange)
        more = train_on_memory(settings, get_suite("household"), model, memory, tmp_path / "more")
        assert more.extra == made.extra
        assert more.examples == made.examples + 2
        toys = replace(settings, select=SelectSettings(("expert",), variations=("wordings",)))
        with pytest.raises(ValueError, match="knows no variations"):
            train_on_memory(toys, _Mute(), model, memory, tmp_path / "b")


class _Mute(HouseholdSuite):
    variation_kinds = ()


WAY = ["go to sinkbasin 1", "take plate 1 from sinkbasin 1", "go to countertop 1",
       "move plate 1 to countertop 1"]  # fmt: skip


def test_what_is_made_up_is_played_before_it_is_believed() -> None:
    suite = get_suite("household")
    made = suite.proposed("put a plate in countertop", WAY)
    assert made is not None
    assert (made.kind, made.type) == ("proposed", "pick_and_place_simple")
    assert made.opening.endswith("Your task is to: put a plate in countertop.")
    assert [action for action, _ in made.steps] == WAY
    assert made.steps[1][1] == "You pick up the plate 1 from the sinkbasin 1."
    again = suite.proposed("put a plate in countertop", WAY)
    assert again == made
    for goal, actions in (
        ("put a golden plate in countertop", WAY),  # no such goal
        ("put a plate in countertop", WAY[:3]),  # not reached
        ("put a plate in sinkbasin", WAY),  # it lies there
        ("put a hot plate in countertop", WAY),  # not heated
        ("put a plate in countertop", []),
        ("", WAY),
    ):
        assert suite.proposed(goal, actions) is None
    assert get_suite("toy").proposed("put a plate in countertop", WAY) is None


def written(told: Iterator[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has every model write what is told; returns what it is asked to go on with."""
    shown: list[str] = []

    def write(model: LocalModel, system: str, **how: object) -> str:
        shown.append(system)
        return next(told)

    monkeypatch.setattr("relive.training.augment.continued", write)
    return shown


def test_the_model_makes_up_episodes_and_what_works_is_kept(
    lived: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = iter([
        " put a plate in countertop.\n" + "".join(f"Action: {a}\nObservation: x\n" for a in WAY),
        " put a plate in countertop.\n" + "".join(f"Action: {a}\nObservation: y\n" for a in WAY),
        " put a golden cup in locker.\nAction: go to shelf 1\nObservation: x",
        f" {lived[0].task.goal}.\n" + "".join(f"Action: {s.action}\n" for s in lived[0].steps),
        " clean some plate and put it in countertop.\n" + "".join(
            f"Action: {a}\n" for a in [*WAY[:2], "clean plate 1 with sinkbasin 1", *WAY[2:]]),
        "",
    ])  # fmt: skip
    shown = written(told, monkeypatch)
    model, suite = LocalModel("bundled"), get_suite("household")
    made = propose(model, suite, lived, 6, ("pick_and_place_simple",), shown=len(lived))
    assert made.counts == {
        "works": 1, "again": 1, "does not work": 1, "other type": 1, "says nothing": 1,
        "copied": 1,
    }  # fmt: skip
    (episode,) = made.episodes
    assert [step.action for step in episode.steps] == WAY
    assert episode.id not in {e.id for e in lived}
    assert all(text.endswith("\n\nSuccess. Your task is to:") for text in shown)
    assert all(text.count("\n\nSuccess. ") == len(lived) + 1 for text in shown)
    with pytest.raises(ValueError, match="no episodes"):
        propose(model, suite, [], 1)


def test_the_model_says_goals_in_other_words_and_keeps_what_matters(
    lived: list[Episode], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three goals: of one everything said is of no use, of the others the second and the first."""
    some = [e for e in lived if e.task.type == "pick_clean_then_place_in_recep"][:3]
    other = next(e for e in lived if e.task.type == "look_at_obj_in_light")
    lamp = next(s.action for s in other.steps if s.action.startswith("use")).split()[1]
    things = [next(s.action for s in e.steps if s.action.startswith("take")).split()[1]
              for e in some]  # fmt: skip
    ends = [next(s.action for s in e.steps if s.action.startswith("move")).split()[-2]
            for e in some]  # fmt: skip
    good = [f"bring the {a}s, once Clean, into the {b}" for a, b in zip(things, ends, strict=True)]
    told = iter([
        f" {some[0].task.goal}.\n5. x", " wash the car = x", " " + "very " * 40, "",
        f" {good[1].replace(things[1], things[1] + 'like')}", f" {good[1]} by the {lamp}",
        f" {good[1]}.\n5. else", f" {good[2]} = again", *[""] * 4,
    ])  # fmt: skip
    shown = written(told, monkeypatch)
    model = LocalModel("bundled")
    made = paraphrase(model, [*some, other], tries=4)
    assert made.counts == {
        "paraphrases": 2, "as it was": 6, "loses a word": 2, "adds a word": 1, "too long": 1,
    }  # fmt: skip
    assert [e.task.goal for e in made.episodes] == good[1:]
    assert shown[0].endswith(f"\n4. {some[0].task.goal} =")
    for episode, lived_, goal in zip(made.episodes, some[1:], good[1:], strict=True):
        assert episode.steps[0].observation.endswith(f"Your task is to: {goal}.")
        assert episode.steps[1:] == lived_.steps[1:]
        assert (episode.id, episode.task.type) == (lived_.id, lived_.task.type)


def test_a_model_goes_on_where_its_system_turn_was_broken_off() -> None:
    model = LocalModel("bundled")
    told = "Experience:\n\nSuccess. Your task is to: put a mug in"
    first = continued(model, told, tokens=6, seed=1)
    assert first == continued(model, told, tokens=6, seed=1)
    assert len({continued(model, told, tokens=6, seed=seed) for seed in range(4)}) > 1
    assert model.count_tokens(first) <= 8
    with pytest.raises(ValueError, match="leave no room"):
        continued(model, told, tokens=10_000)
