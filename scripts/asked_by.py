"""By what a memory whose goals all read alike finds an episode of the right type.

python scripts/asked_by.py MEMORY            # TextWorld's cooking, as a study fills its memory

Each success is asked for with the rest as memory, by its opening alone and once more after its
first steps (`retrieval.refresh_after`): how often one of two is of its type.
"""

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path

from relive.agent.evaluation.terminal import say
from relive.agent.policy import words
from relive.agent.retriever import MemoryRetriever, first_steps
from relive.agent.runner import spec_of
from relive.envs import get_suite
from relive.memory import Memory, Purpose, Retrieval

FIELDS = ("first", "window")
AFTER = (0, 2, 3, 4)
"""Steps after which the memory is asked; 0: by the opening alone."""


def main() -> None:
    """Prints a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("memory", type=Path)
    parser.add_argument("--suite", default="textworld")
    args = parser.parse_args()
    with Memory(args.memory, "r") as source:
        episodes = list(source.iterate())
    spec = spec_of(get_suite(args.suite))
    with tempfile.TemporaryDirectory() as folder, Memory(folder, fields=FIELDS) as memory:
        memory.add_many(episodes)
        for after in AFTER:
            asked = Retrieval(query="opening", fields=FIELDS, refresh_after=after, max_tokens=5000)
            retriever = MemoryRetriever(memory, spec, words, asked, Purpose.TRAIN)
            right: dict[str, list[bool]] = defaultdict(list)
            for one in episodes:
                own, opening = frozenset({one.id}), one.observations[0]
                shown = retriever(one.task, first_steps(one, after), own, opening=opening).retrieved
                types = {memory.meta(hit.episode).task.type for hit in shown}
                right[one.task.type].append(one.task.type in types)
            shares = ", ".join(f"{k} {100 * sum(v) / len(v):.0f}" for k, v in sorted(right.items()))
            say(f"after {after} steps: {shares} %")


if __name__ == "__main__":
    main()
