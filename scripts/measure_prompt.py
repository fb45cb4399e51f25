"""How long demonstrations are, whole and condensed, in tokens of the bundled model.

    python scripts/measure_prompt.py

Demonstrations are the expert's episodes in train rooms. *Whole*: with initial observation and every
step. *Condensed*: as they are shown (`relive.agent.prompt.condense`): visits that led to nothing
and the initial observation are left out. Last line: JSON.
"""

import json
import statistics

from relive.agent.llm.weights import BUNDLED
from relive.agent.policy import ExpertPolicy
from relive.agent.prompt import Demonstration, demonstration
from relive.agent.runner import Runner, play_all, spec_of
from relive.envs import get_suite


def main() -> None:
    """Plays 20 demonstrations of each type and counts."""
    from relive.agent.llm.local import LocalModel

    suite = get_suite("household")
    count = LocalModel(BUNDLED).encoder.count
    expert = ExpertPolicy(suite)
    episodes = play_all(Runner(suite, expert), suite.tasks("train", 120))
    spec, found = spec_of(suite), {}
    for kind in (*suite.types, "all"):
        chosen = [e for e in episodes if kind in (e.task.type, "all")]
        whole = [
            count(e.steps[0].observation)
            + count(
                Demonstration(
                    e.task.goal,
                    True,
                    tuple(zip((s.action for s in e.steps), e.observations[1:], strict=True)),
                ).text
            )
            for e in chosen
        ]
        short = [count(demonstration(spec, e).text) for e in chosen]
        found[kind] = {
            "whole": statistics.mean(whole),
            "whole_max": max(whole),
            "condensed": statistics.mean(short),
        }
        print(
            f"{kind:34s} whole {statistics.mean(whole):6.1f} (max {max(whole)})   condensed "
            f"{statistics.mean(short):6.1f} "
            f"(max {max(short)})   saved {100 * (1 - sum(short) / sum(whole)):.0f} %"
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
