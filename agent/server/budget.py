"""What a run may use of a server that costs money, and what it has used."""

import threading
from dataclasses import dataclass, field

from ..conversation import StopRun, Usage


class BudgetSpent(StopRun):
    """The budget is used up; what is recorded stays, and the same command goes on from there."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What tokens cost, in any one currency per million."""

    prompt: float = 0.0
    completion: float = 0.0

    def __post_init__(self) -> None:
        if self.prompt < 0 or self.completion < 0:
            raise ValueError(f"prices must not be negative, not {self.prompt}, {self.completion}")

    def of(self, prompt: int, completion: int) -> Usage:
        """Tokens with what they cost."""
        cost = (prompt * self.prompt + completion * self.completion) / 1e6
        return Usage(prompt, completion, cost)


@dataclass(slots=True)
class Budget:
    """A limit in tokens, in money or in both; safe to share between threads.

    Requests that are under way when it is reached are still answered and counted, so at most one
    request per connection goes beyond it. What recorded episodes have used counts where a run goes
    on (:func:`relive.evaluate` with ``out=``); otherwise a budget is that of one process.
    """

    tokens: int = 0
    """Of prompts and answers together; 0 for no limit."""
    money: float = 0.0
    """In the currency of the prices; 0 for no limit."""
    used: Usage = field(default_factory=Usage)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.tokens < 0 or self.money < 0:
            raise ValueError(
                f"a budget must not be negative, not {self.tokens} tokens and {self.money}"
            )

    def add(self, usage: Usage) -> None:
        """Counts what was used."""
        with self._lock:
            self.used += usage

    def check(self) -> None:
        """Raises once the budget is used up.

        Raises:
            BudgetSpent: the run is to stop.
        """
        used = self.used
        total = used.prompt + used.completion
        if self.tokens and total >= self.tokens:
            limit = f"{self.tokens} tokens"
        elif self.money and used.cost >= self.money:
            limit = f"{self.money} in money"
        else:
            return
        raise BudgetSpent(
            f"the budget of {limit} is used up ({total} tokens, {used.cost:.4f} in money); what is "
            "finished is recorded: raise the budget and run the same again"
        )


@dataclass(frozen=True, slots=True)
class Priced:
    """A budget that is charged at some prices."""

    budget: Budget
    prices: Prices

    def add(self, prompt: int, completion: int) -> Usage:
        """Counts the tokens of one reply."""
        usage = self.prices.of(prompt, completion)
        self.budget.add(usage)
        return usage

    def check(self) -> None:
        """Raises once the budget is used up."""
        self.budget.check()
