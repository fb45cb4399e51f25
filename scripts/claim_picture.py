"""The claim in one picture: every published study of one model in one world beside the others.

python scripts/claim_picture.py            # writes docs/results/claim.png
"""

import argparse
from pathlib import Path

from relive.agent.evaluation.records import read
from relive.agent.evaluation.terminal import say
from relive.training.experiments.study.pictures import CLAIM, picture_of_claim
from relive.training.experiments.study.results import summaries

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
STUDIES = {
    "study-household": "bundled 3.7 M, household",
    "study-smollm2-household": "SmolLM2-135M, household",
    "study-smollm2-scienceworld": "SmolLM2-135M, ScienceWorld",
    "study-smollm2-textworld": "SmolLM2-135M, TextWorld cooking",
}


def main() -> None:
    """Draws what is published and prints its numbers."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    there = {
        title: read(RESULTS / f"{name}-episodes.jsonl.gz")
        for name, title in STUDIES.items()
        if (RESULTS / f"{name}.json").exists()
    }
    picture_of_claim(RESULTS / "claim.png", there)
    for title, records in there.items():
        for row in summaries(records):
            if row["condition"] in CLAIM and row["tier"] in ("easy", "hard"):
                low, high = 100 * row["low"], 100 * row["high"]
                say(
                    f"{title}, {row['tier']}, {row['condition']}: {100 * row['success']:.1f} "
                    f"({low:.1f}-{high:.1f}) of {row['n']}"
                )


if __name__ == "__main__":
    main()
