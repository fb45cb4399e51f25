"""What the readers of foreign formats share: what they make of an object, and how it is named."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..episode import Episode, Outcome
from ..plain import plain

DEFAULT_SPLIT = "train"
"""Split of what is imported without one: agents may be shown it, or why import it."""
POLICY = "imported"
"""Kind of policy that acted (:attr:`relive.memory.episode.Actor.policy`): the files do not name
it."""


@dataclass(frozen=True, slots=True)
class Labels:
    """What all episodes of an import are to be called, whatever their file says.

    Raises:
        ValueError: a label is blank.
    """

    suite: str | None = None
    """None: what the line says, or the format's own default."""
    split: str | None = None
    """None: what the line says, or :data:`DEFAULT_SPLIT`."""

    def __post_init__(self) -> None:
        for name in ("suite", "split"):
            value = getattr(self, name)
            if value is not None and not value.strip():
                raise ValueError(
                    f"the {name} to label imported episodes with is blank: name one, or give none"
                )


@dataclass(frozen=True, slots=True)
class Parsed:
    """An episode that was made of an object, and what happened to the rest of the object."""

    episode: Episode
    success_known: bool
    """Whether the object says how the episode ended. If not, it is stored as a failure."""
    notes: tuple[str, ...] = ()
    """What is kept beside the episode, as remarks about it."""
    kept: Mapping[str, int] = field(default_factory=dict)
    """How many of what was told apart, by what it is and where it went."""
    left_out: tuple[tuple[str, str], ...] = ()
    """(what, why) of each part that was not taken."""
    otherwise: tuple[Outcome, ...] = ()
    """The outcomes that the same steps would have if the object said otherwise how it ended; none
    where its id does not follow from its content."""

    def twins(self) -> list[str]:
        """Ids of the same steps with another outcome: an object that was corrected since it was
        imported is there under one of them."""
        values, prefix = plain(replace(self.episode, id="")), self.episode.id.rpartition("-")[0]
        return [
            _content_id(prefix, {**values, "outcome": plain(outcome)})
            for outcome in self.otherwise
            if outcome != self.episode.outcome
        ]


def with_content_id(prefix: str, episode: Episode) -> Episode:
    """The episode with an id that follows from its content: importing it again adds nothing."""
    return replace(episode, id=_content_id(prefix, plain(replace(episode, id=""))))


def _content_id(prefix: str, values: Mapping[str, object]) -> str:
    text = json.dumps(values, sort_keys=True)
    return f"{prefix}-{hashlib.blake2b(text.encode(), digest_size=10).hexdigest()}"
