"""What is asked of a memory, and what it answers."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np

from ..task import Task
from .episode import Episode, StopReason
from .search.fields import FIELDS
from .storage.catalog import Filter
from .storage.codec import Head

MOST_HITS = 2**53
"""More than this are not asked for: no memory holds so many."""


class EpisodeNotFoundError(KeyError):
    """There is no such episode.

    Args:
        episode_id: that was asked for.
        where: path of the memory.
        deleted: whether it was there and was deleted.
        hint: what to do, for whoever reads the message.
    """

    def __init__(self, episode_id: str, where: str, deleted: bool, hint: str = "") -> None:
        # All of them, so that it can be sent to another process.
        super().__init__(episode_id, where, deleted, hint)
        self.episode_id, self.where, self.deleted, self.hint = episode_id, where, deleted, hint

    def __str__(self) -> str:
        gone = ": it was deleted" if self.deleted else ": it is not there" if self.hint else ""
        return f"there is no episode {self.episode_id!r} in {self.where}{gone}{self.hint}"


@dataclass(frozen=True, slots=True)
class EntryMeta:
    """What is known of a stored episode without decoding it."""

    episode_id: str
    position: int
    """Sequence number of its record; visible to searches at any later position."""
    task: Task
    success: bool
    score: float
    reason: StopReason
    policy: str
    adapter: str
    steps: int
    """Number of steps."""


def meta_of(head: Head, position: int) -> EntryMeta:
    """What is known of an episode whose record has this sequence number."""
    return EntryMeta(
        episode_id=head.id,
        position=position,
        task=head.task,
        success=head.outcome.success,
        score=head.outcome.score,
        reason=head.outcome.reason,
        policy=head.actor.policy,
        adapter=head.actor.adapter,
        steps=head.step_count,
    )


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for, and which of it is wanted. Equal ones have the same hash.

    Raises:
        TypeError: a field is not of its type.
        ValueError: a number is out of its range or not finite, or a field or column is unknown.
    """

    text: str
    k: int = 2
    """How many hits at most; 0 gives none. The hits of a smaller k are the first of those of a
    larger one; where a graph proposes candidates, up to
    :data:`relive.memory.retrieval.SAME_LIST`."""
    min_score: float | None = None
    """Leave out what is less similar than this; None keeps everything."""
    successes_only: bool = False
    exclude: frozenset[str] = frozenset()
    """Ids of episodes that are not wanted."""
    exclude_reasons: frozenset[StopReason] = frozenset()
    """Episodes that ended for one of these reasons are not wanted."""
    where: Callable[[EntryMeta], bool] | None = None
    """Keep only entries for which this is true. For experiments (an index without the type under
    test), not for normal use: it is called in Python for one candidate after the other. It must not
    change the memory (`RuntimeError`)."""
    only: Mapping[str, Collection[str]] = field(default_factory=dict, hash=False)
    """Keep only entries whose suite, type, split, policy or adapter is one of these: fast at any
    selectivity."""
    fields: tuple[str, ...] = ("goal",)
    """Which texts of an episode are compared with the query; the closest counts. The memory must
    have them (see ``open``)."""
    diversity: float = 0.0
    """In [0, 1): how much being unlike the other hits counts against similarity
    (:func:`relive.memory.search.rank.choose`)."""
    usefulness: float = 0.0
    """Weight of what an entry's usefulness, in [-1, 1], adds to its similarity
    (:mod:`relive.memory.search.usefulness`)."""
    ratings: float = 0.0
    """Weight of what people think of an entry, its rating ``human`` in [-1, 1], that is added to
    its similarity (:mod:`relive.memory.search.ratings`). What is rated ``unsafe`` is never
    shown, whatever the weight."""
    length_penalty: float = 0.0
    """What each doubling of an entry's number of steps takes from its similarity: of those that fit
    alike, direct ones first."""

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"the text of a query must be a str, not {self.text!r}")
        if isinstance(self.k, bool) or not isinstance(self.k, Integral):
            raise TypeError(f"k must be an int, not {self.k!r}")
        if self.k < 0:
            raise ValueError(f"k is {self.k}; ask for 0 hits or more")
        if not isinstance(self.successes_only, bool | np.bool_):
            raise TypeError(f"successes_only must be True or False, not {self.successes_only!r}")
        for name in ("diversity", "usefulness", "ratings", "length_penalty", "min_score"):
            value = getattr(self, name)
            if value is None and name == "min_score":
                continue
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}; it must be finite")
        if not 0 <= self.diversity < 1:
            raise ValueError(
                f"diversity is {self.diversity}; it must be at least 0 and less than 1"
            )
        if self.length_penalty < 0:
            raise ValueError(f"length_penalty is {self.length_penalty}; it must not be negative")
        _check_texts("fields", self.fields)
        _check_texts("exclude", self.exclude)
        _check_texts("exclude_reasons", self.exclude_reasons)
        for reason in self.exclude_reasons:
            StopReason(reason)  # which says what is wrong with it
        # Numpy's small numbers overflow where they are multiplied, and lists have no hash.
        object.__setattr__(self, "k", min(int(self.k), MOST_HITS))
        object.__setattr__(self, "successes_only", bool(self.successes_only))
        for name in ("exclude", "exclude_reasons"):
            object.__setattr__(self, name, frozenset(getattr(self, name)))
        object.__setattr__(self, "fields", tuple(self.fields))
        unknown = [field for field in self.fields if field not in FIELDS]
        if unknown or not self.fields:
            raise ValueError(f"unknown fields {unknown}: use some of {', '.join(FIELDS)}")
        if self.where is not None and not callable(self.where):
            raise TypeError(f"where must be a function of an entry, not {self.where!r}")
        if not isinstance(self.only, Mapping):
            raise TypeError(
                f"only must map a column to the values that are wanted, not {self.only!r}"
            )
        for column, values in self.only.items():
            _check_texts(f"only[{column!r}]", values)
        Filter.of(
            self.successes_only, self.only, self.exclude_reasons
        )  # which says what is wrong with the columns

    @property
    def ranked(self) -> bool:
        """Whether more than similarity decides which hits come first."""
        weighed = self.usefulness != 0 or self.ratings != 0 or self.length_penalty > 0
        return weighed or self.diversity > 0


def _check_texts(name: str, values: object) -> None:
    if isinstance(values, str) or not isinstance(values, Collection):
        raise TypeError(f"{name} of a query must be a collection of texts, not {values!r}")
    if not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} of a query must hold texts only, not {list(values)!r}")


ORDERS = ("closest-last", "closest-first", "shortest-last", "longest-last", "random")
"""In which past episodes can be shown."""


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What is retrieved and how much of it is shown."""

    k: int = 2
    """Number of episodes; 0 turns memory off."""
    max_tokens: int = field(default=1500, metadata={"stored": "budget"})
    """Tokens of the memory block at most."""
    long: str = "shorten"
    """What becomes of an episode that does not fit into its share of the block: ``shorten`` shows
    its beginning and end, or, asked for after some steps, a window around what is at hand; ``skip``
    shows the next hit instead."""
    outcomes: str = "successes"
    """``successes`` or ``all``. Failures are labelled when shown; early in learning they would
    crowd out everything else."""
    query: str = "static"
    """``static``: ask once, by the goal. ``opening``: ask once, by the first observation, for
    worlds whose goals all read alike (with ``fields=("first",)``). ``dynamic``: ask at every step,
    by the goal and the latest steps."""
    refresh_after: int = field(default=0, metadata={"sparse": True})
    """Ask once more before the step with this index, by the goal and the steps so far; 0: never.
    For worlds in which what is to be done is told by the first steps (a recipe is read). The memory
    block then stays, so that an episode can be trained on under it (with ``"window"`` among the
    fields)."""
    fields: tuple[str, ...] = field(default=("goal",), metadata={"stored": "keys"})
    """Which texts of a stored episode are compared with the query: ``goal``, ``first``
    (observation), ``window`` (of its steps, for dynamic queries). The memory must have them:
    ``Memory(..., fields=...)``."""
    diversity: float = 0.0
    """In [0, 1): how much episodes that are unlike each other are preferred (maximal marginal
    relevance)."""
    usefulness: float = 0.0
    """Weight of what showing an episode did for earlier runs."""
    ratings: float = field(default=0.0, metadata={"sparse": True})
    """Weight of what people think of an episode, its rating ``human`` from -1 (wrong) to 1
    (helpful). What is rated ``unsafe`` is never shown, whatever the weight."""
    length_penalty: float = field(default=0.0, metadata={"stored": "brevity"})
    """What each doubling of an episode's length takes from its similarity. Of several successes
    that fit alike, the long ones hold what was tried in vain; an agent that lives on experience of
    its own does well not to be shown them."""
    min_score: float | None = None
    """Show nothing that is less similar than this; None shows the closest, however far.
    Demonstrations of something else mislead. In the household an episode of the same procedure and
    wording is above 0.95, of any other type below 0.4 (hashed embedder)."""
    order: str = field(default="closest-last", metadata={"sparse": True})
    """Where each of the shown episodes stands: ``closest-last`` (next to the task, as the prompt's
    format has it), ``closest-first``, ``shortest-last``, ``longest-last``, or ``random``, which is
    the same for the same task."""
    across: bool = False
    """Also show episodes of other suites. An agent in an environment that is no suite is shown
    whatever its memory holds."""
    translate: bool = False
    """Show episodes in the words of the suite that is played, where they were lived in another
    dialect of its world (ALFWorld's old games say "put", new ones "move")."""
    splits: tuple[str, ...] = ("train",)
    """Splits whose episodes may be shown; none of the task's own split where it is under evaluation
    (:meth:`relive.memory.Holdout.strict`)."""

    def __post_init__(self) -> None:
        Query(
            "",
            fields=self.fields,
            diversity=self.diversity,
            ratings=self.ratings,
            length_penalty=self.length_penalty,
            usefulness=self.usefulness,
            min_score=self.min_score,
        )  # which says what is wrong with them
        _check_texts("splits", self.splits)
        for name in ("k", "max_tokens", "refresh_after"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral):
                raise TypeError(f"retrieval.{name} must be an int, not {value!r}")
        if self.query not in ("static", "opening", "dynamic"):
            raise ValueError(
                f"retrieval.query is {self.query!r}; use 'static', 'opening' or 'dynamic'"
            )
        if self.order not in ORDERS:
            raise ValueError(f"retrieval.order is {self.order!r}; use one of {', '.join(ORDERS)}")
        if self.query == "opening" and "first" not in self.fields:
            raise ValueError(
                "retrieval.query 'opening' asks by the first observation, which has to be compared "
                f"with those of the memory: use retrieval.fields ['first'], not {self.fields}"
            )
        if self.refresh_after and self.query == "dynamic":
            raise ValueError(
                "retrieval.refresh_after asks once more, and retrieval.query 'dynamic' at every "
                "step: use one of them"
            )
        if self.refresh_after and "window" not in self.fields:
            raise ValueError(
                "retrieval.refresh_after asks by the first steps, which have to be compared with "
                f"those of the memory: add 'window' to retrieval.fields, which are {self.fields}"
            )
        if self.long not in ("shorten", "skip"):
            raise ValueError(f"retrieval.long is {self.long!r}; use 'shorten' or 'skip'")
        if self.outcomes not in ("successes", "all"):
            raise ValueError(f"retrieval.outcomes is {self.outcomes!r}; use 'successes' or 'all'")
        if min(self.k, self.max_tokens, self.refresh_after) < 0:
            raise ValueError(
                f"retrieval.k ({self.k}), retrieval.max_tokens ({self.max_tokens}) and "
                f"retrieval.refresh_after ({self.refresh_after}) must not be negative"
            )


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a hit came about."""

    similarity: float
    """Inner product of the unit vectors of query and text."""
    considered: int
    """Entries that were at least as close, this one included: its rank before anything was
    removed. In a memory of more than `exact_limit` entries
    (:class:`relive.memory.IndexSettings`) only of those that were looked at, and so are the two
    numbers that follow: an index proposes some, and what no filter keeps may be passed over."""
    held_out: int
    """How many of those the holdout kept back (same task, near-duplicate, split under
    evaluation)."""
    filtered: int
    """How many of those the query did not want (failures, excluded, ``where``), or nobody is shown
    (rated unsafe)."""
    exact: bool
    """Every entry that could be a hit was compared; false: the candidates came from the approximate
    index."""
    field: str = "goal"
    """Which of the episode's texts was closest."""
    usefulness: float = 0.0
    """What its usefulness added to the score."""
    rating: float = 0.0
    """What people's rating of it added to the score; 0 where ratings were not asked for."""
    length: float = 0.0
    """What the number of its steps took from the score; 0 where no length penalty was asked for."""
    redundancy: float = 0.0
    """Similarity with the closest of the hits before it; 0 where diversity was not asked for."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One past episode that fits."""

    episode_id: str
    score: float
    """Higher is closer."""
    position: int
    """Sequence number of its record in the log."""
    explanation: Explanation
    _read: Callable[[], Episode] | None = field(default=None, repr=False, compare=False)

    @property
    def episode(self) -> Episode:
        """The episode itself, read from the memory now.

        Raises:
            EpisodeNotFoundError: it was deleted and its bytes were taken away since.
            ValueError: the memory was closed, or the record is damaged.
        """
        if self._read is None:
            raise ValueError(
                f"this hit was copied out of its memory: read memory.get({self.episode_id!r})"
            )
        return self._read()

    def __reduce__(self) -> tuple[type["Hit"], tuple[str, float, int, Explanation]]:
        # What is sent to another process leaves the open memory behind.
        return Hit, (self.episode_id, self.score, self.position, self.explanation)
