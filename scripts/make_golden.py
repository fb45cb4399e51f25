"""Write golden transcripts of 30 household games, played by the stock TextWorld engine.

    python scripts/make_golden.py            # about two minutes

The tests hold the fast engine to them. Run this again only when the generator's version changes on
purpose; the diff of the file is then the proof of what changed.
"""

import argparse
import gzip
import hashlib
import json
import random
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the stock engine is the tests'

from relive.envs.household import generator  # noqa: E402
from relive.envs.household.expert import HouseholdExpert  # noqa: E402
from relive.envs.household.rooms import TASK_TYPES, task_seed  # noqa: E402
from tests.envs.stock import StockEngine  # noqa: E402

FILE = ROOT / "tests" / "envs" / "data" / "golden.json.gz"
GAMES_PER_TYPE = 5
STEPS = 30
# Accepted nowhere: unknown words, wrong dialect, wrong case, things that are not there.
INVALID = (
    "fly to the moon",
    "",
    "Look",
    "put cup 1 in/on fridge 1",
    "take unicorn 1 from shelf 1",
    "open sofa 99",
)


def play(engine: Any, task_type: str, number: int) -> dict[str, Any]:
    """Transcript of one game: expert moves, random admissible commands and invalid ones, mixed by a
    seed.

    Even numbers follow the expert (and so reach the goal), with commands in between that only look;
    odd ones wander.
    """
    split = ("train", "valid", "test")[number % 3]
    seed = task_seed(split, task_type, 1000 + number)
    world = generator.generate(task_type, seed, split)
    game = generator.game(world)
    engine.load(game)
    opening = engine.reset()
    rng = random.Random(f"golden/{task_type}/{number}")
    expert, observation = HouseholdExpert(), opening
    steps: list[list[Any]] = []
    while len(steps) < STEPS and not (steps and steps[-1][2]):
        admissible = engine.admissible()
        looking = [
            c for c in admissible if c.split()[0] in ("look", "examine", "inventory", "help")
        ]
        chance = rng.random()
        follow = chance >= 0.3 and number % 2 == 0
        if chance < 0.15:
            command = rng.choice(INVALID)
        elif follow:
            command = expert.act(observation)
        else:
            command = rng.choice(looking if number % 2 == 0 else admissible)
        feedback = engine.step(command)
        if follow:
            observation = feedback
        steps.append([command, feedback, engine.won(), digest(engine.admissible())])
    return {
        "task_type": task_type,
        "split": split,
        "seed": seed,
        "identity": generator.identity(game.problem),
        "opening": opening,
        "steps": steps,
    }


def digest(commands: list[str]) -> str:
    """Short hash of a list of commands."""
    return hashlib.sha256("\n".join(commands).encode()).hexdigest()[:12]


def main() -> None:
    """Play all games and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=FILE,
        help="file to write (default: the one that the tests read)",
    )
    out: Path = parser.parse_args().out
    engine = StockEngine()
    transcripts = []
    for task_type in TASK_TYPES:
        for number in range(GAMES_PER_TYPE):
            transcripts.append(play(engine, task_type, number))
            won = transcripts[-1]["steps"][-1][2]
            print(
                f"{task_type} {number}: {len(transcripts[-1]['steps'])} steps, "
                f"{'won' if won else 'not won'}"
            )
    document = {"format": 1, "generator": generator.VERSION, "transcripts": transcripts}
    out.parent.mkdir(parents=True, exist_ok=True)
    # No time stamp in the gzip header: the same transcripts give the same bytes.
    out.write_bytes(gzip.compress(json.dumps(document, indent=0).encode(), mtime=0))
    print(f"wrote {out}: {len(transcripts)} games, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
