"""Tuning the retriever: what raises the policy's likelihood of a success's actions ranks higher.

The second half of RA-DIT (Lin et al., arXiv:2310.01352), with the objective of REPLUG LSR (Shi et
al., arXiv:2301.12652): of the candidates of a query, the distribution that retrieval gives them is
brought close (KL) to the one that the language model gives them, a softmax over the likelihood of
what was right. Here a query is a success that the memory holds, what was right are its actions, and
a candidate is another success of the memory, alone in the context. Only a linear map over the
vectors of an embedder is learnt; the policy stays as it is.
"""

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ...agent.events import OnEvent, Phase, ignore
from ...agent.llm.local import LocalModel
from ...agent.load_policy import PolicySettings
from ...agent.settings import as_stored
from ...envs import Suite
from ...memory import Memory, Retrieval
from ...memory.storage.durable import replace_file
from .linear_map import FitReport, fit_map
from .score import score_candidates
from .settings import RetrieverSettings

MANIFEST = "training.json"


@dataclass(frozen=True, slots=True)
class TuningSettings:
    """Everything that decides what `relive train-retriever` does."""

    suite: str = "household"
    """Whose prompt, and whose episodes."""
    policy: PolicySettings = field(default_factory=PolicySettings)
    """Whose likelihoods."""
    retrieval: Retrieval = field(default_factory=Retrieval)
    """How episodes are found and shown."""
    retriever: RetrieverSettings = field(default_factory=RetrieverSettings)
    """How the map is fitted."""


def tune_retriever(
    model: LocalModel, memory: Memory, suite: Suite, retrieval: Retrieval,
    settings: RetrieverSettings, out: Path, on_event: OnEvent = ignore,
) -> FitReport:  # fmt: skip
    """Tunes the embedder of a memory and writes it into a folder, with a manifest
    (``training.json``): :func:`score_candidates`, then :func:`fit_map`.

    Args:
        model: who acts, adapter included.
        memory: what is learnt from; its embedder is what the map starts from.
        suite: whose prompt.
        retrieval: how episodes are found and shown; one at a time, whatever its ``k``.
        settings: how.
        out: folder of the embedder; must not exist.
        on_event: told about progress.

    Raises:
        FileExistsError: the folder exists.
        ValueError: dynamic retrieval, or the memory holds too little.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists: name a new folder for the embedder")
    started = time.monotonic()
    scored = score_candidates(model, memory, suite, retrieval, settings, on_event)
    on_event(Phase(f"tuning {memory.embedder.identity}"))
    tuned, report = fit_map(memory.embedder, scored, settings, on_event)
    tuned.save(out)
    manifest = {
        "embedder": tuned.identity, "base": memory.embedder.identity,
        "memory_position": memory.position, "weights_sha256": model.weights_sha256,
        "suite": suite.name, "retrieval": as_stored(retrieval), "settings": as_stored(settings),
        **asdict(report), "tasks": [query.task for query in scored],
        "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip
    replace_file(out / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    return report
