"""Several opinions before an action: votes, orders of what is shown, specialists."""

from collections.abc import Sequence
from itertools import permutations

import pytest

from relive.agent.action_format import PLAIN, REACT
from relive.agent.conversation import Action, Asked, Conversation, Playing, Turn, Usage
from relive.agent.ensemble.council import Council
from relive.agent.ensemble.explorer import Explorer
from relive.agent.ensemble.orders import OrderVote, in_orders, orders
from relive.agent.ensemble.votes import vote
from relive.agent.policy import counter_of
from relive.agent.prompt import (
    Demonstration,
    begin,
    demonstrations_of,
    prompt_spec,
    system_text,
)
from relive.task import Task

SPEC = prompt_spec("Do it.", [("go to {place}", "move")])


def demo(goal: str, success: bool = True, form: str = "phrase") -> Demonstration:
    return Demonstration(goal, success, (("look", "a\n\nb"),), goal, goal_form=form)


def test_most_answers_decide_and_ties_go_to_the_first() -> None:
    said = [Action("b", usage=Usage(2, 1)), Action("a", usage=Usage(3, 1)), Action("a")]
    found = vote(said)
    assert (found.action.text, found.unique) == ("a", True)
    assert found.agreement == pytest.approx(2 / 3)
    assert found.action.usage == Usage(5, 2)  # what all of them took
    torn = vote([Action("b"), Action("a"), Action("a"), Action("b")])
    assert (torn.action.text, torn.agreement, torn.unique) == ("b", 0.5, False)
    assert vote([Action("a")]).unique


@pytest.mark.parametrize("form", ["phrase", "instruction"])
def test_demonstrations_are_found_in_a_prompt(form: str) -> None:
    shown = [demo("one", form=form), demo("two", False, form=form), demo("three", form=form)]
    text = system_text(SPEC, shown)
    assert demonstrations_of(text) == [f"\n\n{one.text}" for one in reversed(shown)]
    assert demonstrations_of(system_text(SPEC)) == []


def test_orders_change_nothing_else() -> None:
    shown = [demo("one"), demo("two"), demo("three")]
    asked = (*begin(SPEC, "You see nothing.", shown), Turn("assistant", "look"), Turn("user", "x"))
    found = in_orders(asked, 6)
    assert found[0] == asked
    assert len({one[0].text for one in found}) == 6
    for one in found:
        assert one[1:] == asked[1:]
        assert sorted(demonstrations_of(one[0].text)) == sorted(demonstrations_of(asked[0].text))
    alone = begin(SPEC, "You see nothing.", shown[:1])
    assert in_orders(alone, 6) == [alone]
    assert in_orders(begin(SPEC, "x"), 6) == [begin(SPEC, "x")]


def test_orders_are_drawn_the_same_way_each_time() -> None:
    four = ["a", "b", "c", "d"]
    assert orders(four, 6) == orders(four, 6)
    assert orders(four, 6)[0] == tuple(four)
    assert len(set(orders(four, 6))) == 6
    assert set(orders(four, 99)) == set(permutations(four))
    many = [str(n) for n in range(30)]
    assert [sorted(one) for one in orders(many, 3)] == [sorted(many)] * 3
    with pytest.raises(ValueError, match="at least one"):
        OrderVote(Reader(), 0)


class Reader:
    """Does what the demonstration says that is read last."""

    def __init__(self, say: str = "") -> None:
        self.say, self.asked = say, 0
        self.playing: Playing | None = None

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        self.asked += len(conversations)
        if seeds is not None:
            assert len(seeds) == len(conversations)
        last = [["", *demonstrations_of(one[0].text)][-1] for one in conversations]
        return [Action(self.say or ("go" if "go" in text else "stay")) for text in last]


def test_a_vote_of_orders_does_not_hang_on_what_stands_last() -> None:
    shown = [demo("go"), demo("stay here"), demo("stay there")]  # the closest comes last
    asked = begin(SPEC, "You see nothing.", shown)
    reader = Reader()
    assert reader.act([asked])[0].text == "go"
    policy = OrderVote(reader)
    one, other = policy.act([asked, begin(SPEC, "x")], [1, 2])
    assert (one.text, other.text) == ("stay", "stay")
    assert reader.asked == 1 + 6 + 1
    assert policy.actor.settings["orders"] == 6


def asked(name: str, *shown: str) -> Asked:
    return Asked(begin(SPEC, "x"), 1, Task("toy", name, "t", "train", "", 0, "1", "g"), shown=shown)


def test_whose_case_it_is_decides() -> None:
    members = {"put": Reader("put"), "heat": Reader("heat")}
    base = Reader("base")
    council = Council(members, base, lambda name: name.partition("-")[0])
    found = council.answer([asked("a", "put-1"), asked("b", "heat-1", "heat-2")])
    assert [one.text for one in found] == ["put", "heat"]
    assert council.agreed == {"a": [1.0], "b": [1.0]}
    assert base.asked == 0
    # Nobody's case, and no two agree: the base is asked as well.
    assert council.answer([asked("c", "cool-1")])[0].text == "base"
    assert council.agreed["c"] == [pytest.approx(1 / 3)]
    assert base.asked == 1
    members["put"].say = "heat"
    assert council.answer([asked("d")])[0].text == "heat"
    assert council.agreed["d"] == [1.0]
    assert base.asked == 1


def test_all_may_always_vote() -> None:
    members = {name: Reader(say) for name, say in (("a", "x"), ("b", "y"), ("c", "y"))}
    council = Council(members, Reader("z"), lambda name: name, "vote")
    assert council.answer([asked("t", "a")])[0].text == "y"
    assert council.agreed["t"] == [pytest.approx(2 / 3)]
    assert council.answer([]) == []
    assert council.actor.policy == "council"
    for some, rule in (({}, "route"), (members, "shout")):
        with pytest.raises(ValueError, match="route or vote"):
            Council(some, Reader(), str, rule)  # type: ignore[arg-type]


def test_the_base_explores_where_nothing_is_known() -> None:
    tuned, base = Reader("known"), Reader("new")
    policy = Explorer(tuned, base)
    said = policy.answer([asked("a", "past"), asked("b"), asked("c", "past")])
    assert [one.text for one in said] == ["known", "new", "known"]
    assert (tuned.asked, base.asked) == (2, 1)
    assert policy.answer([]) == []
    assert policy.actor.settings["explores"] is True


def test_who_asks_others_says_what_they_say() -> None:
    """Prompts, token budgets and counts are those of the model that is asked."""

    class Model(Reader):
        action_format, model_name = REACT, "m"
        charge = print

        def count_tokens(self, text: str) -> int:
            return 7

    model, plain = Model(), Reader()
    for policy in (OrderVote(model), Council({"a": plain}, model, str), Explorer(model, plain)):
        assert counter_of(policy)("one two") == 7
        assert (policy.action_format, policy.model_name) == (REACT, "m")
        assert callable(policy.charge)
    for policy in (OrderVote(plain), Council({"a": model}, plain, str), Explorer(plain, model)):
        assert counter_of(policy)("one two") == 2
        assert (policy.action_format, policy.model_name) == (PLAIN, "")
        assert policy.charge is None


def test_no_adapter_changes_under_those_who_play_together() -> None:
    players = [Reader("x"), Reader("y"), Reader("z")]
    for player in players[:2]:
        player.playing = Playing()
    for policy in (
        Explorer(players[0], players[1]),
        Council(dict(zip("ab", players[:2], strict=True)), players[2], str),
        Council({"a": players[0], "b": players[0]}, players[1], str),
    ):
        policy.playing.tell(7, 2)
        for player in players[:2]:
            with pytest.raises(RuntimeError, match="2 episodes"):
                player.playing.check()
        with pytest.raises(RuntimeError, match="2 episodes"):
            policy.playing.check()
        policy.playing.tell(7, 0)
        policy.playing.check()
