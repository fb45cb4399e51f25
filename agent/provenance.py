"""Who acted, for the record: derived from the policy and from the settings, never typed in."""

from dataclasses import replace

from ..memory import Retrieval
from ..memory.episode import Actor
from .conversation import Policy
from .prompt import PROMPT_VERSION
from .settings import as_stored

Value = str | int | float | bool


def actor_of(policy: Policy, retrieval: Retrieval | None = None, seed: int | None = None) -> Actor:
    """The record of who acts.

    Args:
        policy: who; its attribute ``actor``, where it has one, says what it is and how it decides.
        retrieval: what it is shown; None for no memory.
        seed: of the run.
    """
    who = getattr(policy, "actor", None)
    if not isinstance(who, Actor):
        who = Actor("custom", model=type(policy).__qualname__)
    settings: dict[str, Value] = dict(who.settings)
    if retrieval is not None:
        settings |= flat(retrieval)
    if seed is not None:
        settings["seed"] = seed
    return replace(who, prompt=PROMPT_VERSION, settings=settings)


def flat(retrieval: Retrieval) -> dict[str, Value]:
    """Retrieval settings as plain values; those of several texts are joined by commas, and those
    that are not set are left out."""
    return {
        name: ",".join(value) if isinstance(value, tuple) else value
        for name, value in as_stored(retrieval).items()
        if value is not None
    }
