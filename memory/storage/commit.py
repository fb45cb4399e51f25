"""Group commit: threads that wait for the disk at the same time share one synchronisation.

The classic of DeWitt et al. (SIGMOD 1984): the first thread that gets its turn writes for everyone
who is waiting by then.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Work = TypeVar("Work")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Work, Result]):
    work: Work
    done: bool = False
    result: list[Result] = field(default_factory=list)
    error: BaseException | None = None


class GroupCommit(Generic[Work, Result]):
    """Hands pieces of work to `commit`, all that wait at once; every caller gets the result, or the
    error, of its own.

    Args:
        commit: does some pieces of work together and returns for each its result or its error. If
            it raises, that is everyone's error.
    """

    def __init__(self, commit: Callable[[Sequence[Work]], Sequence[Result | Exception]]) -> None:
        self._commit = commit
        self._waiting: list[_Waiting[Work, Result]] = []
        self._list = threading.Lock()
        self._turn = threading.Lock()

    def __call__(self, work: Work) -> Result:
        """Do a piece of work, with others if there are; returns when it is done."""
        mine: _Waiting[Work, Result] = _Waiting(work)
        with self._list:
            self._waiting.append(mine)
        with self._turn:
            if not mine.done:
                with self._list:
                    group, self._waiting = self._waiting, []
                self._lead(group)
        if mine.error is not None:
            raise mine.error
        return mine.result[0]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While nothing is committed: for work that must not meet any."""
        with self._turn:
            yield

    @property
    def busy(self) -> bool:
        """Whether something is being committed."""
        return self._turn.locked()

    @property
    def waiting(self) -> int:
        """How many pieces of work wait for their turn."""
        return len(self._waiting)

    def _lead(self, group: Sequence[_Waiting[Work, Result]]) -> None:
        try:
            results = self._commit([one.work for one in group])
        except BaseException as error:
            for one in group:
                one.done, one.error = True, error
            return
        for one, result in zip(group, results, strict=True):
            one.done = True
            if isinstance(result, Exception):
                one.error = result
            else:
                one.result.append(result)
