"""The `relive memory` commands that look into a memory and say something about it.

Those that keep it in order and move it are in :mod:`relive.agent.cli.memory_upkeep`. As in
:mod:`relive.agent.cli`, every command calls one library function and prints what it returns;
nothing heavy is imported before.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.terminal import say
from .memory_upkeep import add_upkeep_commands, print_damage

if TYPE_CHECKING:
    from ...memory import Memory, Query


def add_memory_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `memory` and what it can do to the commands of `relive`."""
    memory = commands.add_parser("memory", help="look into a memory, keep it in order, move it")
    views = memory.add_subparsers(dest="view", required=True, metavar="what")

    def command(
        name: str, act: Callable[[argparse.Namespace], int | None], help: str
    ) -> argparse.ArgumentParser:
        parser = views.add_parser(name, help=help)
        parser.add_argument("--memory", type=Path, required=True, help="folder of the memory")
        parser.set_defaults(act=act)
        return parser

    command("stats", _stats, "what it holds, and what was found damaged")
    search = command("search", _search, "the episodes closest to a goal, and why")
    search.add_argument("goal", help="for example 'put a hot mug in cabinet'")
    search.add_argument("--k", type=int, default=5, help="number of episodes (default 5)")
    search.add_argument("--all-outcomes", action="store_true", help="failures too")
    search.add_argument(
        "--fields", default="goal", help="what is compared, by comma: goal (default), first, window"
    )
    search.add_argument(
        "--diversity",
        type=float,
        default=0.0,
        help="in [0, 1): how much being like a better hit counts against one",
    )
    search.add_argument(
        "--usefulness",
        type=float,
        default=0.0,
        help="weight of what an episode did for the runs that saw it (default 0)",
    )
    search.add_argument(
        "--ratings",
        type=float,
        default=0.0,
        help="weight of what people think of an episode, its rating human (default 0)",
    )
    search.add_argument(
        "--length-penalty",
        type=float,
        default=0.0,
        help="what each doubling of an episode's length takes from its similarity",
    )
    search.add_argument(
        "--only", action="append", default=[], metavar="field=value",
        help="only episodes whose suite, type, split, policy or adapter is this (repeatable; of "
        "one field, any of them)",
    )  # fmt: skip
    show = command("show", _show, "one episode, step by step")
    rate = command(
        "rate", _rate, "give an episode a number; a later one of the same name replaces it"
    )
    rate.description = (
        "Ratings named human, from -1 (wrong) to 1 (helpful), can be weighed in searches "
        "(--ratings) and decide what is learnt from; one named unsafe, above 0, keeps an episode "
        "from both. Any other name is kept and steers nothing."
    )
    unrate = command("unrate", _unrate, "undo a rating of an episode")
    annotate = command("annotate", _annotate, "attach a remark to an episode")
    delete = command(
        "delete", _delete, "leave episodes out from now on (compact takes their bytes away)"
    )
    restore = command(
        "restore", _restore, "bring deleted episodes back; without any, list those that can be"
    )
    for parser in (show, rate, unrate, annotate):
        parser.add_argument("episode", help="its id, or how it begins")
    rate.add_argument("name", help="what is rated, for example human")
    rate.add_argument("value", type=float)
    unrate.add_argument("name", help="of the rating")
    annotate.add_argument("text", help="the remark")
    delete.add_argument("episodes", nargs="+", metavar="episode", help="its id, or how it begins")
    restore.add_argument("episodes", nargs="*", metavar="episode", help="its id, or how it begins")
    for parser in (delete, restore):
        parser.add_argument("--reason", default="", help="why, for whoever reads the log")
    browse = command(
        "browse", _browse, "look around in it on a page: search, map, duplicates, what helped"
    )
    browse.add_argument("--port", type=int, default=0, help="default: one that is free")
    browse.add_argument(
        "--read-only", action="store_true", help="while another process adds to the memory"
    )
    add_upkeep_commands(command)


def _browse(args: argparse.Namespace) -> None:
    from ..report.browse import serve
    from ..rundir import memory_in

    serve(memory_in(args.memory), args.port, writable=not args.read_only, tell=say)


def _stats(args: argparse.Namespace) -> None:
    from ...memory import Memory
    from ...memory.plain import counted

    with Memory(args.memory, "r") as memory:
        stats = memory.stats()
    say(
        f"{stats.path}: {counted(stats.entries, 'episode')}, "
        f"{counted(stats.successes, 'success')}, position {stats.position}"
    )
    for name, counts in (
        ("type", stats.by_type),
        ("split", stats.by_split),
        ("policy", stats.by_policy),
    ):
        say(f"  by {name}: " + ", ".join(f"{key} {count}" for key, count in sorted(counts.items())))
    say(
        f"  {counted(stats.ratings, 'rating')}, {counted(stats.notes, 'note')}; "
        f"{stats.total_bytes / 1e6:.1f} MB on disk, "
        f"{stats.log_bytes / 1e6:.1f} MB of it the log"
    )
    say(f"  {stats.deleted} deleted{', whose bytes compact takes away' if stats.deleted else ''}")
    if stats.other_records:
        unknown = counted(stats.other_records, "record")
        say(f"  {unknown} of kinds that this program does not know")
    say(
        f"  shown to later runs {counted(stats.credits, 'time')}"
        f"{'; most useful:' if stats.most_useful else ''}"
    )
    for episode_id, value in stats.most_useful.items():
        say(f"    {value:+.3f}  {episode_id}")
    say(f"  embedder {stats.embedder}; found by {', '.join(stats.fields)}")
    say(
        f"  {counted(stats.index_entries, 'goal')} in the index, the others are compared one by one"
    )
    print_damage(stats.damage)


def _search(args: argparse.Namespace) -> None:
    from ...memory import Memory, Query
    from ...memory.plain import counted

    query = Query(
        args.goal,
        k=args.k,
        successes_only=not args.all_outcomes,
        only=_only(args.only),
        fields=tuple(field.strip() for field in args.fields.split(",")),
        diversity=args.diversity,
        usefulness=args.usefulness,
        ratings=args.ratings,
        length_penalty=args.length_penalty,
    )
    with Memory(args.memory, "r") as memory:
        hits = memory.search(query)
        if not hits:
            say(_nothing_found(memory, query))
        for hit in hits:
            entry, why = memory.meta(hit.episode_id), hit.explanation
            verdict = "success" if entry.success else "failure"
            say(
                f"{hit.score:.3f}  {hit.episode_id}  {verdict}, "
                f"{counted(entry.steps, 'step')}, {entry.policy}: {entry.task.goal}"
            )
            say(
                f"       similarity {why.similarity:.3f} (by {why.field}), "
                f"usefulness {why.usefulness:+.3f}, rating {why.rating:+.3f}, "
                f"length −{why.length:.3f}, redundancy {why.redundancy:.3f}"
            )
            say(
                f"       rank {why.considered}; {why.filtered} closer ones filtered; "
                f"{'all entries compared' if why.exact else 'candidates from the index'}"
            )


def _nothing_found(memory: "Memory", query: "Query") -> str:
    """That a search found nothing, and what it left out."""
    from ...memory.plain import counted

    there = len(memory)
    if not there:
        return f"nothing found: {memory.path} holds no episode"
    wider = replace(query, successes_only=False, diversity=0.0, k=there)
    if query.successes_only and (failures := len(memory.search(wider))):
        return f"nothing found; {counted(failures, 'failure')} left out (--all-outcomes shows them)"
    fits = ", which are not what --only asks for" if query.only else ", none of which may be shown"
    return f"nothing found; {counted(there, 'episode')} left out{fits}"


def _only(wanted: Sequence[str]) -> dict[str, set[str]]:
    """Values by field, from texts ``field=value``."""
    only: dict[str, set[str]] = {}
    for text in wanted:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(
                f"--only {text} is not field=value: write, for example, --only type=heat"
            )
        only.setdefault(name.strip(), set()).add(value)
    return only


def _show(args: argparse.Namespace) -> None:
    from ...memory import Memory
    from ...memory.plain import counted

    with Memory(args.memory, "r") as memory:
        episode = memory.get(_the_one(memory, args.episode))
        notes = memory.notes(episode.id)
    task = episode.task
    about = ", ".join(filter(None, (task.type, task.split, task.room)))
    say(f"{episode.id}: {task.goal} ({about})")
    actor = " ".join(
        filter(None, (episode.actor.policy, episode.actor.model, episode.actor.adapter))
    )
    outcome = episode.outcome
    after = f"after {counted(len(episode.steps), 'step')} {outcome.detail}".rstrip()
    say(f"{actor}: {outcome.reason} {after}")
    for name, value in episode.ratings.items():
        say(f"rated {name} {value:g}")
    for note in notes:
        say(f"note: {note}")
    say()
    for step in episode.steps:
        for hit in step.retrieved:
            say(f"(retrieved {hit.episode}, {hit.score:.3f})")
        say(f"{step.observation}\n", lines=True)
        if step.reasoning:
            say(f"({step.reasoning})\n", lines=True)
        say(f"> {step.action}{'   (refused)' if step.invalid else ''}")
    say(episode.final_observation, lines=True)


def _the_one(memory: "Memory", beginning: str, *, deleted: bool = False) -> str:
    """The one episode, or deleted episode, whose id is this, or begins so."""
    if not deleted and beginning in memory:
        return beginning
    known = [e.episode_id for e in (memory.deleted() if deleted else memory.entries())]
    if deleted and beginning in known:
        return beginning
    ids = [episode_id for episode_id in known if episode_id.startswith(beginning)]
    what, where = "deleted episode" if deleted else "episode", f"in {memory.path}"
    if not ids:
        gone = " (what was compacted away cannot be restored)" if deleted else ""
        raise LookupError(f"no {what} {where} begins with {beginning!r}{gone}")
    if len(ids) > 1:
        shows = "restore without an id lists them" if deleted else "search shows ids"
        raise LookupError(
            f"{len(ids)} {what}s {where} begin with {beginning!r}: give more of the id "
            f"(relive memory {shows})"
        )
    return ids[0]


def _rate(args: argparse.Namespace) -> None:
    import math

    from ...memory import Memory

    if not math.isfinite(args.value):
        raise ValueError(f"{args.value} is no rating: give a number")
    with Memory(args.memory, "w") as memory:
        episode_id = _the_one(memory, args.episode)
        memory.rate(episode_id, args.name, args.value)
    say(f"{episode_id}: {args.name} {args.value:g}")


def _unrate(args: argparse.Namespace) -> None:
    from ...memory import Memory

    with Memory(args.memory, "w") as memory:
        episode_id = _the_one(memory, args.episode)
        memory.unrate(episode_id, args.name)
    say(f"{episode_id}: {args.name} removed")


def _annotate(args: argparse.Namespace) -> None:
    from ...memory import Memory
    from ...memory.plain import counted

    with Memory(args.memory, "w") as memory:
        episode_id = _the_one(memory, args.episode)
        memory.annotate(episode_id, args.text)
        say(f"{episode_id}: {counted(len(memory.notes(episode_id)), 'note')}")


def _delete(args: argparse.Namespace) -> None:
    from ...memory import Memory

    with Memory(args.memory, "w") as memory:
        # Each is looked for before any is deleted: a typing error deletes nothing.
        for episode_id in dict.fromkeys(
            [_the_one(memory, beginning) for beginning in args.episodes]
        ):
            memory.delete(episode_id, args.reason)
            say(f"{episode_id} deleted")


def _restore(args: argparse.Namespace) -> None:
    from ...memory import Memory
    from ...memory.plain import counted

    with Memory(args.memory, "w" if args.episodes else "r") as memory:
        if not args.episodes:
            there = memory.deleted()
            say(f"{counted(len(there), 'deleted episode')} in {memory.path} can be restored")
            for entry in there:
                say(f"{entry.episode_id}  {entry.policy}: {entry.task.goal}")
        for episode_id in dict.fromkeys(
            [_the_one(memory, beginning, deleted=True) for beginning in args.episodes]
        ):
            memory.restore(episode_id, args.reason)
            say(f"{episode_id} restored")
