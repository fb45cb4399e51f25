"""What a table does not say and its reader should know: one line each."""

from collections import Counter
from collections.abc import Sequence

from ...memory import Memory
from ...memory.episode import Episode
from ..collect import BROKEN
from ..prompt import PromptSpec

_MODELS = ("local", "server", "callable", "custom")
"""Policies that can misunderstand what is wanted."""


def remarks(episodes: Sequence[Episode]) -> list[str]:
    """What stands out in some episodes; often nothing."""
    found = [
        errors_in(episodes), _empty(episodes), _cut(episodes), _refused(episodes),
        _forgotten(episodes),
    ]  # fmt: skip
    return [remark for remark in found if remark]


def other_words(episodes: Sequence[Episode], memory: Memory, spec: PromptSpec) -> str:
    """How many of the past episodes that were shown speak another dialect of the suite's world;
    empty where none does."""
    if spec.reword is None:
        return ""
    at = {hit.episode: e.memory_position for e in episodes for hit in e.retrieved}
    other = 0
    for name, position in at.items():
        told = memory.get(name, position)
        steps = list(zip((s.action for s in told.steps), told.observations[1:], strict=True))
        other += spec.reword(steps) != steps
    if not other:
        return ""
    return (
        f"{other} of the {len(at)} past episodes shown were lived in another dialect of this "
        "world: with retrieval.translate=true they are shown in its own words"
    )


def errors_in(episodes: Sequence[Episode]) -> str:
    """How many episodes errors broke off, and the commonest of them; empty where there are none."""
    details = Counter(e.outcome.detail for e in episodes if e.outcome.reason in BROKEN)
    if not details:
        return ""
    return f"{details.total()} broken off by errors, such as: {details.most_common(1)[0][0]}"


def _empty(episodes: Sequence[Episode]) -> str:
    asked = [e for e in episodes if e.memory_position > 0 and e.actor.settings.get("k", 0)]
    empty = sum(not e.retrieved for e in asked)
    if 2 * empty <= len(asked):
        return ""
    return (
        f"{empty} of {len(asked)} episodes were shown nothing of the memory: it holds nothing "
        "that may be shown to them (see relive memory stats), or nothing that fits "
        "(retrieval.max_tokens)"
    )


def _cut(episodes: Sequence[Episode]) -> str:
    """How many answers ended before they came to an action, and where."""
    cut = [e for e in episodes if e.usage.get("cut")]
    count = sum(e.usage["cut"] for e in cut)
    steps = [s for e in episodes if e.actor.policy in _MODELS for s in e.steps]
    if not count or count < 0.1 * len(steps):
        return ""
    actor, share = cut[0].actor, 100 * count / len(steps)
    names = ("extra_body.max_completion_tokens", "max_new_tokens")
    most = next((f"{n}={actor.settings[n]}" for n in names if n in actor.settings), names[-1])
    if any(s.said for e in cut for s in e.steps if not s.action):
        return (
            f"{share:.0f} % of the answers were cut off at {most} before they came to an action: "
            "allow more tokens"
        )
    thinks = actor.policy == "server" or actor.settings.get("thinking") == "on"
    off = "thinking='off' or " if thinks and actor.settings.get("thinking") != "off" else ""
    return (
        f"{share:.0f} % of the answers were empty, cut off at {most} while thinking: {off}more "
        "tokens"
    )


def _refused(episodes: Sequence[Episode]) -> str:
    # Answers that were cut off have a remark of their own.
    cut = sum(e.usage.get("cut", 0) for e in episodes if e.actor.policy in _MODELS)
    steps = [s.invalid for e in episodes if e.actor.policy in _MODELS for s in e.steps]
    if sum(steps) - cut <= 0.9 * (len(steps) - cut):
        return ""
    return (
        f"{100 * sum(steps) / len(steps):.0f} % of all actions were refused: the policy does not "
        "know the commands of this world; look at some episodes (relive memory show), and at the "
        "action format"
    )


def _forgotten(episodes: Sequence[Episode]) -> str:
    cut = sum("dropped" in e.usage for e in episodes)
    if not cut:
        return ""
    return (
        f"{cut} of {len(episodes)} conversations outgrew the model's context: their oldest actions "
        "were left out (usage.dropped of an episode says how many)"
    )
