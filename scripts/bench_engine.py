"""Measure the household engine against stock TextWorld on the same games and the same commands.

python scripts/bench_engine.py           # about a minute; table, then one line of JSON
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # the stock engine is the tests'

from relive.envs.household import generator, translate
from relive.envs.household.engine import Engine
from relive.envs.household.rooms import TASK_TYPES, task_seed
from tests.envs.stock import StockEngine

STEPS = 25


def measure(games_per_type: int = 1, types: Sequence[str] = TASK_TYPES) -> dict[str, float]:
    """Play games of some types on both engines in alternation.

    Returns:
        Medians: ``engine_step_speedup`` (stock over fast, per step), ``engine_reset_ms`` (a new
            episode of a game that
        was met before: load and reset), and what they come from, in milliseconds.
    """
    fast, stock = Engine(), StockEngine()

    def start_again(game: generator.Game) -> None:
        fast.load(game)
        fast.reset()

    def step_and_list(command: str) -> None:
        # A stock step lists what is admissible next, so the fast one has to do it too.
        fast.step(command)
        fast.admissible()

    step_fast, step_stock, reset_fast, reset_stock, first_load = [], [], [], [], []
    for index in range(games_per_type):
        for task_type in types:
            world = generator.generate(
                task_type, task_seed("train", task_type, 5000 + index), "train"
            )
            game = generator.game(world)
            translate.clear_memory()
            first_load.append(_milliseconds(translate.translate_anew, game.domain, game.problem))
            start_again(game)
            reset_fast.append(_milliseconds(start_again, game))
            stock.load(game)
            reset_stock.append(_milliseconds(stock.reset))
            rng = random.Random(index)
            for _ in range(STEPS):
                command = rng.choice(fast.admissible())
                step_stock.append(_milliseconds(stock.step, command))
                step_fast.append(_milliseconds(step_and_list, command))
    fast.close()
    return {
        "engine_step_speedup": statistics.median(step_stock) / statistics.median(step_fast),
        "engine_reset_ms": statistics.median(reset_fast),
        "engine_reset_max_ms": max(reset_fast),
        "engine_first_load_ms": statistics.median(first_load),
        "engine_step_ms": statistics.median(step_fast),
        "stock_step_ms": statistics.median(step_stock),
        "stock_reset_ms": statistics.median(reset_stock),
    }


def _milliseconds(action: Callable[..., Any], *arguments: Any) -> float:
    started = time.perf_counter()
    action(*arguments)
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    """Print a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--games", type=int, default=1, help="games per task type (default: 1, six in all)"
    )
    result = measure(parser.parse_args().games)
    print(f"{'':28}{'stock':>10}{'fast':>10}   milliseconds, median")
    print(f"{'step':28}{result['stock_step_ms']:10.1f}{result['engine_step_ms']:10.2f}")
    stock_reset, engine_reset = result["stock_reset_ms"], result["engine_reset_ms"]
    print(f"{'reset of a known game':28}{stock_reset:10.1f}{engine_reset:10.1f}")
    print(f"{'translation of a new game':28}{'':10}{result['engine_first_load_ms']:10.1f}")
    print(f"step speed-up {result['engine_step_speedup']:.0f}x")
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


if __name__ == "__main__":
    main()
