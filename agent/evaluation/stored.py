"""What a stored episode says of the suite it was played in, as far as that can be had here.

A suite's name in an episode is data. Only registered suites are looked for: ``gymnasium:ID`` and
others with an argument may import any module, and are the user's to name.
"""

from dataclasses import replace
from functools import lru_cache

from ...envs import Suite, get_suite
from ...envs.registry import suite_names
from ...memory.episode import Episode
from ..action_format import FORMATS, PLAIN
from ..prompt import PromptSpec
from ..runner import spec_of


@lru_cache
def stored_suite(name: str) -> tuple[Suite | None, str]:
    """The suite of a name that was read somewhere; or None, and why."""
    if name not in suite_names():
        return None, "no registered suite"
    try:
        return get_suite(name), ""
    except (ImportError, LookupError, OSError, TypeError, ValueError) as error:
        return None, " ".join(str(error).split())


def in_its_format(spec: PromptSpec, episode: Episode) -> PromptSpec:
    """A suite's part of the prompt, with the form in which an episode's actor wrote its actions."""
    written = str(episode.actor.settings.get("action_format", ""))
    return replace(spec, action_format=FORMATS.get(written, PLAIN))


def stored_spec(name: str) -> tuple[PromptSpec | None, str]:
    """The prompt's part of the suite of a name; or None, and why."""
    suite, why = stored_suite(name)
    return (None if suite is None else spec_of(suite)), why
