"""How a retriever is tuned, and what there is to know about a query."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RetrieverSettings:
    """How a retriever is tuned."""

    queries: int = 300
    """Successes that are asked with at most, drawn evenly from the memory; 0 for all."""
    candidates: int = 12
    """Episodes that the policy is shown with each of them, one at a time."""
    near: float = 0.5
    """Share of the candidates that retrieval ranks first today; the others are drawn."""
    rank: int = 64
    """Of what is added to the identity; 0 for a full matrix."""
    learning_rate: float = 0.001
    """Of Adam."""
    epochs: int = 200
    """Times that every query is learnt from at most."""
    patience: int = 20
    """Epochs without a better held-out loss after which training stops."""
    temperature: float = 0.1
    """Of the softmax over similarities, which are in [-1, 1]."""
    beta: float = 1.0
    """Of the softmax over likelihoods, in standard deviations between the candidates of a query:
    how much one demonstration helps more than another differs from model to model."""
    anchor: float = 0.001
    """Weight of the squared distance between the map and the identity, which keeps what the memory
    says nothing about as it was."""
    actions: float = 0.2
    """Share of queries that are asked with the words of the success's own actions in place of its
    goal: the only other wording of what was wanted that a memory holds."""
    disturbed: float = 0.8
    """Share of queries whose goal lacks words, has misspelt or unknown ones or another order, so
    that no single word, and not the form of the sentence, decides."""
    views: int = 32
    """Disturbed goals of each query that are drawn from."""
    held_out: float = 0.2
    """Share of rooms (of tasks, where there are no rooms) with whose queries is only measured."""
    seed: int = 0
    """Decides all that is drawn."""

    def __post_init__(self) -> None:
        if min(self.queries, self.rank) < 0 or self.candidates < 2:
            raise ValueError("queries and rank must not be negative, and candidates at least 2")
        if min(self.epochs, self.patience, self.views) < 1:
            raise ValueError("epochs, patience and views must be at least 1")
        if not 0 <= self.near <= 1 or not 0 < self.held_out < 1:
            raise ValueError("near must be in [0, 1], held_out between 0 and 1")
        if min(self.temperature, self.beta, self.learning_rate) <= 0 or self.anchor < 0:
            raise ValueError(
                "temperature, beta and learning_rate must be above 0, anchor not below it"
            )
        if min(self.actions, self.disturbed) < 0 or self.actions + self.disturbed > 1:
            raise ValueError("actions and disturbed must be at least 0 and at most 1 together")


@dataclass(frozen=True, slots=True)
class ScoredQuery:
    """What the policy thinks of the candidates of a query."""

    task: str
    """Identity of the query's task."""
    group: str
    """Its room, or the task where there is none; groups are held out as a whole."""
    text: str
    """What retrieval asks with."""
    actions: str
    """The actions that led to the success, as one text."""
    keys: tuple[str, ...]
    """What each candidate is found by."""
    likelihoods: tuple[float, ...]
    """Mean log-likelihood per token of the query's actions with that candidate in context, in nats.
    What it is without any is the same for all of them, and so cancels."""
