"""Trains the bundled base model (or its control) from scratch; resumable.

    MALLOC_MMAP_THRESHOLD_=4000000000 MALLOC_TRIM_THRESHOLD_=8000000000 \
        python scripts/pretrain_base.py runs/base --export agent/llm/base_model
    python scripts/pretrain_base.py runs/control --no-memory --export runs/control/model

The two malloc settings keep freed memory in the process; without them training on a CPU takes about
twice as long.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from relive.training.pretraining.pretrain import Pretraining, PretrainSettings

DEFAULTS = PretrainSettings()


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the resumable state lives")
    parser.add_argument(
        "--tokens", type=float, default=DEFAULTS.tokens, help="training length, padding included"
    )
    parser.add_argument("--layers", type=int, default=DEFAULTS.layers)
    parser.add_argument("--threads", type=int, default=DEFAULTS.threads)
    parser.add_argument(
        "--no-memory", action="store_true", help="the control: same episodes, never a memory block"
    )
    parser.add_argument("--export", type=Path, help="write a transformers folder here at the end")
    args = parser.parse_args()
    settings = replace(
        DEFAULTS,
        tokens=int(args.tokens),
        layers=args.layers,
        threads=args.threads,
        memory=not args.no_memory,
    )
    run = Pretraining(settings, args.folder)
    if run.resume():
        print(f"resumed at {run.tokens / 1e6:.2f}M tokens")
    run.run()
    if args.export:
        run.export(args.export)
        print(f"exported to {args.export}")


if __name__ == "__main__":
    main()
