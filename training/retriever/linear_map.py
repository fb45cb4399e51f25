"""The linear map: retrieval's distribution over candidates brought close to the policy's."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.events import OnEvent, TrainingStep, ignore
from ...extras import needs
from ...memory.search.embed import Embedder
from ...memory.search.encode import unit_vectors
from ...memory.search.tuned import TunedEmbedder
from .settings import RetrieverSettings, ScoredQuery

with needs("llm"):
    import torch

_BATCH = 64  # queries of an optimiser step
_THIRD = 1 / 3  # of words that are left out, and of those that are misspelt
_VOWELS, _CONSONANTS = "aeiou", "bcdfghklmnprstvz"


@dataclass(frozen=True, slots=True)
class FitReport:
    """What tuning came to. Losses are KL divergences in nats, of queries that were held out unless
    said otherwise."""

    queries: int
    """Learnt from."""
    held_out: int
    """Only measured."""
    held_out_groups: tuple[str, ...]
    """Rooms (or tasks) that they are of."""
    spread: float
    """Standard deviation of the likelihood between the candidates of a query, in nats per token."""
    loss_before: float
    loss_after: float
    train_losses: tuple[float, ...]
    """After each epoch, of the queries that are learnt from, as they were asked in it."""
    losses: tuple[float, ...]
    """After each epoch."""
    best_epoch: int
    """From 1; 0: no epoch was better than the identity, which was kept."""
    agreement_before: float
    """Share of held-out queries whose closest candidate is the one with which the policy's
    likelihood is highest."""
    agreement_after: float
    regret_before: float
    """How far the closest candidate's likelihood is below the highest, in nats per token."""
    regret_after: float


@dataclass(frozen=True, slots=True)
class _Lists:
    """Queries with their candidates, padded: Q queries, C candidates, V views, D dimensions."""

    asked: torch.Tensor
    """What is asked with, shape (Q, V, D): the goal, the actions, disturbed goals."""
    keys: torch.Tensor
    """Shape (Q, C, D)."""
    there: torch.Tensor
    """Which candidates there are, shape (Q, C)."""
    target: torch.Tensor
    """The policy's distribution, shape (Q, C)."""
    likelihoods: torch.Tensor
    """Shape (Q, C)."""
    weights: torch.Tensor
    """How much each query counts, in [0, 1], shape (Q,)."""

    def of(self, rows: torch.Tensor) -> "_Lists":
        """Those of some queries."""
        return _Lists(*(getattr(self, field.name)[rows] for field in fields(self)))

    def loss(self, matrix: torch.Tensor, view: torch.Tensor, temperature: float) -> Any:
        """KL divergence of retrieval's distribution from the policy's, and the similarities.

        Args:
            matrix: the map, shape (D, D).
            view: which way each query is asked, shape (Q,).
            temperature: of the softmax over similarities.
        """
        rows = torch.arange(len(self.asked))
        q = torch.nn.functional.normalize(self.asked[rows, view] @ matrix, dim=-1)
        k = torch.nn.functional.normalize(self.keys @ matrix, dim=-1)
        near = torch.einsum("qd,qcd->qc", q, k).masked_fill(~self.there, -torch.inf)
        log = torch.log_softmax(near / temperature, -1).masked_fill(~self.there, 0)
        own = torch.where(self.target > 0, self.target, 1).log()
        each = (self.target * (own - log)).sum(-1)
        return (self.weights * each).sum() / self.weights.sum().clamp_min(1e-9), near


def fit_map(
    base: Embedder,
    scored: Sequence[ScoredQuery],
    settings: RetrieverSettings,
    on_event: OnEvent = ignore,
) -> tuple[TunedEmbedder, FitReport]:
    """Learns the linear map; the same for the same arguments.

    Args:
        base: whose vectors are mapped; also another one than the candidates were found with.
        scored: what the policy thinks, of at least two groups.
        settings: how.
        on_event: told about progress.

    Raises:
        ValueError: all queries are of one group, so that nothing can be held out.
    """
    groups = sorted({query.group for query in scored})
    if len(groups) < 2:
        raise ValueError(
            "a retriever is measured in rooms of its own: score queries of two or more"
        )
    aside = max(1, min(round(settings.held_out * len(groups)), len(groups) - 1))
    apart = set(random.Random(f"{settings.seed}/held out").sample(groups, aside))
    learnt = [query for query in scored if query.group not in apart]
    spread = _spread(learnt)
    train = _lists(base, learnt, spread, settings)
    held = _lists(base, [query for query in scored if query.group in apart], spread, settings)

    size, rank = base.dimension, settings.rank
    draw = torch.Generator().manual_seed(settings.seed)
    identity = torch.eye(size, dtype=torch.float64)
    if rank:  # the product is 0 at first, and only one of its factors may be
        left = torch.randn(size, rank, generator=draw, dtype=torch.float64) / size**0.5
        parts = [left, torch.zeros(rank, size, dtype=torch.float64)]
    else:
        parts = [torch.zeros(size, size, dtype=torch.float64)]
    for part in parts:
        part.requires_grad_(True)

    def change() -> torch.Tensor:
        added: torch.Tensor = parts[0] @ parts[1] if rank else parts[0]
        return added

    shares = [1 - settings.actions - settings.disturbed, settings.actions]
    shares += [settings.disturbed / settings.views] * settings.views
    odds = torch.tensor(shares, dtype=torch.float64)

    def measured(matrix: torch.Tensor) -> tuple[float, float, float]:
        """Loss, agreement and regret of the held-out queries."""
        total = 0.0
        for view, share in enumerate(shares):
            views = torch.full((len(held.asked),), view)
            loss, near = held.loss(matrix, views, settings.temperature)
            total += share * float(loss)
            if view == 0:
                top, best = near.argmax(-1), held.likelihoods.argmax(-1)
                picked = held.likelihoods.gather(1, top[:, None])[:, 0]
                regret = held.likelihoods.max(-1).values - picked
                agreement, below = float((top == best).double().mean()), float(regret.mean())
        return total, agreement, below

    optimiser = torch.optim.Adam(parts, lr=settings.learning_rate)
    with torch.no_grad():
        before = best = measured(identity)
    kept, best_epoch, losses, train_losses = identity, 0, [], []
    for epoch in range(1, settings.epochs + 1):
        order = torch.randperm(len(learnt), generator=draw)
        views = torch.multinomial(odds, len(learnt), replacement=True, generator=draw)
        total = 0.0
        for some in torch.split(order, _BATCH):
            added = change()
            loss, _ = train.of(some).loss(identity + added, views[some], settings.temperature)
            optimiser.zero_grad()
            (loss + settings.anchor * added.square().sum()).backward()
            optimiser.step()
            total += float(loss.detach()) * len(some)
        train_losses.append(total / len(learnt))
        with torch.no_grad():
            now = measured(identity + change())
            losses.append(now[0])
            if now[0] < best[0]:
                best, kept, best_epoch = now, (identity + change()).clone(), epoch
        on_event(TrainingStep(epoch, settings.epochs, now[0]))
        if epoch - best_epoch >= settings.patience:
            break
    report = FitReport(
        queries=len(learnt),
        held_out=len(held.asked),
        held_out_groups=tuple(sorted(apart)),
        spread=spread,
        loss_before=before[0],
        loss_after=best[0],
        train_losses=tuple(train_losses),
        losses=tuple(losses),
        best_epoch=best_epoch,
        agreement_before=before[1],
        agreement_after=best[1],
        regret_before=before[2],
        regret_after=best[2],
    )
    return TunedEmbedder(base, kept.numpy()), report


def _spread(scored: Sequence[ScoredQuery]) -> float:
    """Standard deviation of likelihoods within queries, pooled."""
    within = [np.asarray(query.likelihoods) - np.mean(query.likelihoods) for query in scored]
    return float(np.sqrt(np.mean(np.concatenate(within) ** 2))) or 1.0


def _lists(
    base: Embedder, scored: Sequence[ScoredQuery], spread: float, settings: RetrieverSettings
) -> _Lists:
    rng = random.Random(f"{settings.seed}/disturbed")
    asked = [
        [query.text, query.actions or query.text]
        + [_disturbed(query.text, rng) for _ in range(settings.views)]
        for query in scored
    ]
    texts = {text: 0 for query, views in zip(scored, asked, strict=True)
             for text in (*views, *query.keys)}  # fmt: skip
    vectors = unit_vectors(base, list(texts), base.dimension).astype(np.float64)
    places = {text: place for place, text in enumerate(texts)}
    most = max(len(query.keys) for query in scored)
    keys = np.zeros((len(scored), most), dtype=np.int64)
    likelihoods: NDArray[np.float64] = np.full((len(scored), most), -np.inf)
    for row, query in enumerate(scored):
        keys[row, : len(query.keys)] = [places[text] for text in query.keys]
        likelihoods[row, : len(query.keys)] = query.likelihoods
    score = torch.from_numpy(likelihoods)
    # A query whose candidates all help alike says nothing about which is to be found: taken at its
    # word, it would have everything equally close.
    weights = [min(1.0, float(np.std(query.likelihoods)) / spread) for query in scored]
    return _Lists(
        torch.from_numpy(vectors[[[places[text] for text in views] for views in asked]]),
        torch.from_numpy(vectors[keys]),
        torch.isfinite(score),
        torch.softmax(score / (spread * settings.beta), -1),
        score,
        torch.tensor(weights, dtype=torch.float64),
    )


def _disturbed(text: str, rng: random.Random) -> str:
    """A text as somebody else might have put it, without knowing any other word for it: some words
    are missing, some have other vowels (as English has in forms of one word: hot and heat), some
    are ones that nobody knows, and the order may be another."""
    words = [word for word in text.split() if rng.random() > _THIRD] or text.split()
    words = [
        "".join(rng.choice(_VOWELS) if letter in _VOWELS else letter for letter in word)
        if rng.random() < _THIRD
        else word
        for word in words
    ]
    if rng.random() < 1 / 2:
        rng.shuffle(words)
    for _ in range(rng.randrange(4)):
        invented = "".join(rng.choice(_CONSONANTS) + rng.choice(_VOWELS) for _ in range(3))
        words.insert(rng.randint(0, len(words)), invented)
    return " ".join(words)
