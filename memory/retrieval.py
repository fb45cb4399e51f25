"""From a query to its hits: candidates, then who may see what, then what is wanted, then the
ranking."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .episode import Episode
from .holdout import Holdout
from .query import EntryMeta, Explanation, Hit, Query
from .search.embed import Vectors
from .search.field_index import WIDEST, FieldIndex, Found, Wanted
from .search.rank import choose, pool_of
from .storage.catalog import Catalog, Filter
from .storage.ingest import near_digest
from .storage.rows import Numbers

SAME_LIST = 50
"""Where a graph proposes candidates, the hits of every k up to this are cut from one list, so that
they are prefixes of each other: a wider search of a graph may find what a narrower one missed."""
LEAST_WIDE = 100
"""Candidates that are taken at least where all are compared anyway."""
NEXT = 8
"""Times as many candidates as a graph was asked for are taken of all that were compared, before all
of these are ranked."""
PER_CANDIDATE = 8
"""Rows that are compared in the time in which a graph finds one more candidate, roughly."""
LOOKED_AT = 16
"""Entries that are looked at for each that is drawn, before all of them are."""


@dataclass(frozen=True, slots=True)
class Library:
    """What is searched, as of a log position."""

    catalog: Catalog
    spaces: Mapping[str, FieldIndex]
    position: int
    meta: Callable[[int], EntryMeta]
    """What is known of the entry with an ordinal."""
    identify: Callable[[Numbers], list[str]]
    """Ids of entries."""
    find: Callable[[str], int | None]
    """Ordinal of an id."""
    useful: Callable[[Numbers], NDArray[np.float64]]
    """Usefulness of entries."""
    readable: Callable[[int], bool]
    """Whether the record of an entry is intact; looked at once."""
    hidden: Callable[[Numbers], NDArray[np.bool_]]
    """Which entries were deleted or rated unsafe by then, or are known to be damaged."""
    rated: Callable[[Numbers], NDArray[np.float64]]
    """What people thought of entries by then, within [-1, 1]."""


class _Candidates(NamedTuple):
    """What was compared with the query, best first."""

    ordinals: Numbers
    scores: Vectors
    fields: NDArray[np.int8]
    """By which of the query's fields each is closest."""
    exact: bool
    """Whether everything was compared."""
    floor: float
    """A score that nothing else exceeds."""


class _Qualified(NamedTuple):
    """Candidates that may be shown and are wanted, best first; all of shape (n,)."""

    ranks: Numbers
    """Their places among the candidates."""
    kept_back: Numbers
    """How many before each the holdout kept back."""
    unwanted: Numbers
    """How many before each the query did not want."""
    finished: bool
    """Whether no further candidate could change them."""


Reading = Callable[[str, int], Callable[[], Episode]]
"""What reads the episode of an id later, as it is at a log position."""


def retrieve(
    query: Query,
    vector: Vectors,
    holdout: Holdout,
    library: Library,
    reading: Reading | None = None,
) -> list[Hit]:
    """The best ``query.k`` entries that may be shown and that the query wants, best first.

    Candidates are taken from the index, as many more than needed as the filters make necessary; if
    too few of them are left, every entry that passes the filters is compared: far from the query a
    graph misses more than it may, and takes as long. So there are k hits whenever k entries
    qualify. A list is taken only if it is closer than anything that the index may have passed over.
    Of entries that are equally close the one with the very goal that is asked for comes first,
    where it has no room; other ties are broken by task, see :meth:`Catalog.break_ties`. They are
    never cut in half.

    Args:
        query: what is looked for.
        vector: of the query, shape (dimension,).
        holdout: what must not be shown.
        library: what is searched.
        reading: makes what a hit reads its episode with.
    """
    _require_keys(query, library)
    stop = library.catalog.count_before(library.position)
    if query.k == 0 or stop == 0:
        return []
    sequences = library.catalog.sequences[:stop]
    approximate = any(library.spaces[field].approximate(sequences) for field in query.fields)
    k = max(query.k, SAME_LIST) if approximate else query.k
    needed = pool_of(k) if query.ranked else k
    wanted = Filter.of(query.successes_only, query.only, query.exclude_reasons)
    mask, matching = library.catalog.matching(wanted.within(holdout.splits), stop)
    alive = matching * library.catalog.alive / len(library.catalog)
    filters = approximate and all(library.spaces[field].filters for field in query.fields)
    proposed = Wanted(wanted.within(holdout.splits), mask) if filters else None
    # An index that knows the columns proposes few that are not wanted.
    share = library.catalog.alive / len(library.catalog) if filters else alive / stop
    wide = math.ceil(1.5 * needed / max(1 / stop, share))
    wide = wide if approximate else max(LEAST_WIDE, wide)
    # Comparing all that match costs less than a graph that mostly proposes others, or that is asked
    # for too many.
    few = min(library.spaces[field].exact_limit for field in query.fields)
    few = min(few, PER_CANDIDATE * wide)
    everything = approximate and (wide > WIDEST or alive <= few)
    # Ranking a large memory takes longer than comparing it: what no filter keeps is left out first.
    large = approximate or stop > max(library.spaces[field].exact_limit for field in query.fields)

    def tries() -> Iterator[tuple[int, Numbers | None]]:
        """How many candidates to take, and among which entries; the last of them are all."""
        if not everything:
            yield min(wide, stop), None
        among = None
        if large:
            among = np.flatnonzero(mask)
            among = among[~library.hidden(among)]
            if NEXT * wide < len(among):
                yield NEXT * wide, among
        yield stop, among

    looked_at = needed
    while True:
        for width, among in tries():
            first = proposed if among is None and width < stop else None
            found = _candidates(query, vector, library, width, stop, among, first)
            qualified = _qualify(query, wanted, holdout, library, found, needed)
            # Others may be as close as the last one, unless all of them were looked at.
            full = len(qualified.ranks) == needed
            least = float(found.scores[qualified.ranks[-1]]) if full else query.min_score
            if width == stop or (qualified.finished and least is not None and least > found.floor):
                break
        hits = _hits(query, library, qualified, found, reading)
        if hits is not None:
            return hits
        # What cannot be read is no hit. It is known as broken from now on; where one is, many
        # others may be, so that each turn looks at twice as many.
        looked_at *= 2
        closest = _qualify(query, wanted, holdout, library, found, looked_at).ranks
        for ordinal in found.ordinals[closest].tolist():
            library.readable(ordinal)


def draw(
    query: Query,
    vector: Vectors,
    holdout: Holdout,
    library: Library,
    count: int,
    rng: np.random.Generator,
) -> list[tuple[str, float]]:
    """`count` entries drawn evenly from all that may be shown and that the query wants, or all of
    them if there are not more.

    Args:
        query: as of :func:`retrieve`; ``k``, ``min_score`` and what ranks are not looked at.
        vector: of the query, shape (dimension,).
        holdout: what must not be shown.
        library: what is drawn from.
        count: how many.
        rng: decides which.

    Returns:
        Ids and similarities, the most similar first. Only a few times `count` entries are looked
        at, however many there are, unless nearly none of them qualifies. Those that cannot be read
        are passed over.
    """
    _require_keys(query, library)
    stop, wanted = (
        library.catalog.count_before(library.position),
        Filter.of(query.successes_only, query.only, query.exclude_reasons),
    )

    def qualifying(ordinals: Numbers) -> Numbers:
        shown, kept = _masks(query, wanted, holdout, library, ordinals)
        found = ordinals[shown & kept].tolist()
        right = (one for one in found if _satisfies(query, library, one) and library.readable(one))
        return np.array(list(islice(right, min(count, len(found)))), dtype=np.int64)

    few = stop <= 2 * LOOKED_AT * count
    every = library.catalog.by_task(stop)  # the log's order depends on what ran beside what
    drawn = rng.permutation(stop) if few else rng.choice(stop, LOOKED_AT * count, replace=False)
    found = qualifying(every[drawn])
    if len(found) < count and not few:
        found = qualifying(every[rng.permutation(stop)])
    if not len(found):
        return []
    parts = [
        library.spaces[field].candidates(
            vector, len(found), library.catalog.sequences[:stop], np.sort(found)
        )
        for field in query.fields
    ]
    ordinals, scores, _ = _best_of(parts)
    order = library.catalog.break_ties(ordinals, scores, near_digest("", query.text))
    return list(zip(library.identify(ordinals[order]), scores[order].tolist(), strict=True))


def _require_keys(query: Query, library: Library) -> None:
    missing = [field for field in query.fields if field not in library.spaces]
    if missing:
        raise ValueError(
            f"this memory has no field {', '.join(missing)}: open it once with mode='w' and "
            f"fields=(..., {missing[0]!r})"
        )


def _candidates(
    query: Query,
    vector: Vectors,
    library: Library,
    count: int,
    stop: int,
    among: Numbers | None,
    wanted: Wanted | None = None,
) -> _Candidates:
    """Candidates of all fields that are asked, each with the best of its scores."""
    sequences = library.catalog.sequences[:stop]
    parts = [
        library.spaces[field].candidates(vector, count, sequences, among, wanted)
        for field in query.fields
    ]
    ordinals, scores, fields = _best_of(parts)
    order = library.catalog.break_ties(ordinals, scores, near_digest("", query.text))
    exact, floor = all(part.exact for part in parts), max(part.floor for part in parts)
    return _Candidates(ordinals[order], scores[order], fields[order], exact, floor)


def _best_of(parts: list[Found]) -> tuple[Numbers, Vectors, NDArray[np.int8]]:
    if len(parts) == 1:
        return parts[0].ordinals, parts[0].scores, np.zeros(len(parts[0].ordinals), dtype=np.int8)
    ordinals = np.concatenate([part.ordinals for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    fields = np.concatenate(
        [np.full(len(part.ordinals), i, dtype=np.int8) for i, part in enumerate(parts)]
    )
    order = np.lexsort((fields, -scores, ordinals))
    first = order[np.flatnonzero(np.diff(ordinals[order], prepend=-1))]
    return ordinals[first], scores[first], fields[first]


def _masks(
    query: Query, wanted: Filter, holdout: Holdout, library: Library, ordinals: Numbers
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which of these entries may be shown, and which are wanted as far as columns can tell."""
    kept = library.catalog.wanted(wanted, ordinals) & ~library.hidden(ordinals)
    if query.exclude:
        unwanted = [ordinal for ordinal in map(library.find, query.exclude) if ordinal is not None]
        kept &= ~np.isin(ordinals, np.array(unwanted, dtype=np.int64))
    return holdout.visible(library.catalog, ordinals), kept


def _satisfies(query: Query, library: Library, ordinal: int) -> bool:
    """Whether the query's ``where`` keeps an entry; it keeps none that cannot be read."""
    if query.where is None:
        return True
    try:
        entry = library.meta(ordinal)
    except ValueError:
        return False
    return query.where(entry)


def _qualify(
    query: Query,
    wanted: Filter,
    holdout: Holdout,
    library: Library,
    candidates: _Candidates,
    count: int,
) -> _Qualified:
    """The first `count` that qualify."""
    enough, ordinals = False, candidates.ordinals
    if query.min_score is not None:
        close = int(np.count_nonzero(candidates.scores >= query.min_score))
        enough, ordinals = close < len(ordinals), ordinals[:close]
    shown, kept = _masks(query, wanted, holdout, library, ordinals)
    ranks = np.flatnonzero(shown & kept)
    if query.where is not None:
        places = zip(ranks.tolist(), ordinals[ranks].tolist(), strict=True)
        right = (rank for rank, ordinal in places if _satisfies(query, library, ordinal))
        ranks = np.array(list(islice(right, min(count, len(ranks)))), dtype=np.int64)
        kept[:] = False
        kept[ranks] = True
    ranks = ranks[:count]
    kept_back, unwanted = (
        np.cumsum(mask, dtype=np.int64)[ranks] for mask in (~shown, shown & ~kept)
    )
    return _Qualified(ranks, kept_back, unwanted, enough or len(ranks) == count)


def _hits(
    query: Query,
    library: Library,
    qualified: _Qualified,
    candidates: _Candidates,
    reading: Reading | None,
) -> list[Hit] | None:
    """Hits from those that qualify, best first: by similarity, or by all that the query weighs.
    None if one is damaged."""
    ranks = qualified.ranks
    if not len(ranks):
        return []
    ordinals, scores = candidates.ordinals[ranks], candidates.scores[ranks]
    useful = rated = length = np.zeros(len(ranks))
    vectors: Vectors = np.empty((len(ranks), 0), dtype=np.float32)
    if query.usefulness:
        useful = query.usefulness * library.useful(ordinals)
    if query.ratings:
        rated = query.ratings * library.rated(ordinals)
    if query.length_penalty:
        length = query.length_penalty * np.log2(
            np.maximum(1, library.catalog.column("steps")[ordinals])
        )
    if query.diversity:
        vectors = library.spaces[query.fields[0]].vectors_of(library.catalog.sequences[ordinals])
    if query.ranked:
        chosen = choose(scores, useful + rated - length, vectors, query.k, query.diversity)
    else:
        chosen = [(i, float(score), 0.0) for i, score in enumerate(scores[: query.k])]
    picked = ordinals[[i for i, _, _ in chosen]]
    if not all(map(library.readable, picked.tolist())):
        return None
    positions = library.catalog.sequences[picked].tolist()
    hits = []
    for (i, score, redundancy), name, position in zip(
        chosen, library.identify(picked), positions, strict=True
    ):
        why = Explanation(
            similarity=float(scores[i]),
            considered=int(ranks[i]) + 1,
            held_out=int(qualified.kept_back[i]),
            filtered=int(qualified.unwanted[i]),
            exact=candidates.exact,
            field=query.fields[int(candidates.fields[ranks[i]])],
            usefulness=float(useful[i]),
            rating=float(rated[i]),
            length=float(length[i]),
            redundancy=redundancy,
        )
        read = reading(name, library.position) if reading else None
        hits.append(Hit(name, score, position, why, read))
    return hits
