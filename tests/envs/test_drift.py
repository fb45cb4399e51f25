"""The renamed household is the household, in other words."""

import pytest

from relive.envs import get_suite
from relive.envs.check import check_env
from relive.envs.drift import NAMES, Renaming


def test_the_contract_holds() -> None:
    assert [
        finding
        for finding in check_env(get_suite("household-renamed"), per_type=1)
        if not finding.ok
    ] == []


def test_the_expert_solves_it_in_new_names() -> None:
    suite, plain = get_suite("household-renamed"), get_suite("household")
    seen = ""
    for task, before in zip(suite.tasks("valid", 12), plain.tasks("valid", 12), strict=True):
        assert task.identity != before.identity
        assert (task.type, task.split, task.room, task.seed) == (
            before.type,
            before.split,
            before.room,
            before.seed,
        )
        env, expert = suite.make(), suite.expert(task)
        observation, info = env.reset(options={"task": task})
        assert info["task"] == task
        for _ in range(suite.max_steps):
            seen += observation + "\n"
            observation, _, over, _, info = env.step(expert.act(observation))
            if over:
                break
        assert info["success"]
        env.close()
    words = set(seen.replace(",", " ").replace(".", " ").split())
    assert not words & set(NAMES)
    assert len(words & set(NAMES.values())) > 5


def test_old_names_are_refused() -> None:
    suite = get_suite("household-renamed")
    env = suite.make()
    env.reset(options={"task": suite.tasks("valid", 1)[0]})
    assert env.step("take mug 1 from shelf 1")[4]["invalid"]
    env.close()


def test_names_must_be_told_apart() -> None:
    with pytest.raises(ValueError, match="cannot be exchanged"):
        Renaming({"mug": "cup", "cup": "lantern"}, get_suite("household"))
