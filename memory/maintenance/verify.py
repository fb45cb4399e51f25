"""What is damaged in a memory: found by reading everything, or met with so far."""

from ..state import State
from ..storage.catalog import DUPLICATE_ID, GAP
from ..storage.durable import Corruption
from ..storage.segments import Kind


def catalog_is_whole(state: State) -> bool:
    """Whether the rows of the catalog agree with their checksums; they are mapped, and may have
    been damaged since they were loaded."""
    return bool(state.catalog.file.valid(0, len(state.catalog.file)).all())


def verify(state: State) -> None:
    """Read every record and every row of the caches but the catalog's, which say where the records
    lie, and compare their checksums; what is found is noted."""
    for ordinal in range(len(state.catalog)):
        try:
            state.read(ordinal)
        except ValueError:
            continue  # noted
    for part in state.catalog.file.parts(0, len(state.catalog.file)):
        # Everything else that is a record, also what is of a later version or a second one of
        # its id.
        for row in part[
            (part["kind"] != GAP)
            & ((part["kind"] != Kind.EPISODE) | (part["flags"] & DUPLICATE_ID > 0))
        ]:
            place = state.catalog.place_of(row)
            try:
                state.log.read(place)
            except ValueError as error:
                state.damage.append(
                    Corruption(
                        f"log/{place.segment:016d}.log", place.offset, place.length, str(error)
                    )
                )
    state.log.check_headers()
    for space in state.spaces.values():
        space.verify()


def all_damage(state: State) -> tuple[Corruption, ...]:
    """What was found damaged, and what was done about it."""
    found = [
        *state.damage,
        *(d for d in state.log.damage if d not in state.damage),
        *state.catalog.file.damage,
    ]
    for space in state.spaces.values():
        found += [*space.column.damage, *space.snapshots.damage]
    if state.log.unfinished:
        detail = (
            "not a complete record: being written right now, or torn (opening with "
            "mode='w' cuts it off)"
        )
        found.append(
            Corruption("log", state.log.size - state.log.unfinished, state.log.unfinished, detail)
        )
    return tuple(dict.fromkeys(found))
