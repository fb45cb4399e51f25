"""Several servers of one model: whose turn it is, and who is left alone until it answers again.

A conversation goes back to the server that has read it before, and that still holds it in its cache
as a rule, unless that one has much more to do than the others; a new one goes to the server with
the least to do, by turns. A server that cannot be reached, or that fails several times in a row,
gets no more requests; it is asked for its health now and then, in the background, and is back once
it says that it is well and has the adapter in force.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ...extras import needs

with needs("server"):
    import httpx
    import openai

PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses that say: later."""
GONE = {502, 503, 504}
"""Those of them that say: nobody is here now."""
BUSY = {408, 409, 425, 429, 529}
"""Those of them that say: not so fast. They are no fault of the server."""
FAULTS = 3
"""Faults in a row after which a server that answers gets no more requests."""
CHECK_TIMEOUT = 5.0
"""Seconds within which a server has to say that it is well."""
FIRST_CHECK, LAST_CHECK = 0.5, 30.0
"""Seconds until the first health check, and between later ones at most; each wait is twice the one
before."""
UNEVEN = 1.25
"""Times its even share of the requests under way that a server may have of conversations that it
knows; then they go elsewhere, and are read anew there."""
REMEMBERED = 10_000
"""Conversations of which it is known who read them; the oldest are forgotten first."""


@dataclass(slots=True, eq=False)
class Replica:
    """One of the servers."""

    client: Any
    """Of the openai package, without retries of its own."""
    under_way: int = 0
    """Requests that have no answer yet."""
    answered: bool = False
    """Whether it has ever given a usable answer."""
    down: bool = False
    """Whether it gets no requests for now."""
    reason: str = ""
    """Why."""
    adapters: list[str] = field(default_factory=list)
    """Names of the adapters that were loaded on it, oldest first."""
    _faults: int = 0  # in a row
    _checks: int = 0  # since it is down
    _due: float = 0.0  # on the monotonic clock: when it may be asked again
    _checking: bool = False
    _asked: float = -math.inf  # on the same clock: when it last got a request

    @property
    def url(self) -> str:
        """Address of its API."""
        return str(self.client.base_url).rstrip("/")


class Replicas:
    """The servers of one model; safe to share between threads.

    Args:
        clients: of the openai package, one for each server.
        clock: seconds; for tests.
    """

    def __init__(self, clients: Sequence[Any], clock: Callable[[], float] = time.monotonic) -> None:
        self._all = tuple(Replica(client) for client in clients)
        self._clock = clock
        self._lock = threading.Lock()
        self._homes: OrderedDict[int, Replica] = OrderedDict()
        self._turn = 0
        self.on_return: Callable[[Replica], bool] = lambda replica: True
        """Asked before a server that is well again gets requests: whether it has all it needs."""

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def lease(self, conversation: int, without: Collection[Replica] = ()) -> Replica:
        """The server that gets a request; it counts as busy with it until `release`.

        Where none of those left is ready, the one that was asked longest ago gets it: the request
        will tell whether it is back.

        Args:
            conversation: a number for what is asked, the same each time it goes on.
            without: servers that were tried just now.
        """
        with self._lock:
            ready = self._ready(without)
            if not ready:
                left = [one for one in self._all if one not in without] or list(self._all)
                up = [one for one in left if not one.down]
                chosen = min(up or left, key=lambda one: one._asked)
            else:
                chosen = self._choose(self._homes.get(conversation), ready)
            self._homes[conversation] = chosen
            self._homes.move_to_end(conversation)
            if len(self._homes) > REMEMBERED:
                self._homes.popitem(last=False)
            chosen.under_way += 1
            chosen._asked = self._clock()
            due = [one for one in self._all if self._to_check(one)]
            for one in due:
                one._checking = True
        for one in due:
            threading.Thread(target=self._check, args=(one,), daemon=True).start()
        return chosen

    def release(self, replica: Replica) -> None:
        """A request has ended, well or not."""
        with self._lock:
            replica.under_way -= 1

    def another(self, without: Collection[Replica]) -> bool:
        """Whether a server that was not tried just now can be asked at once."""
        with self._lock:
            return bool(self._ready(without))

    def answered(self, replica: Replica) -> None:
        """It gave a usable answer."""
        with self._lock:
            replica.answered = True
            self._up(replica)

    def failed(self, replica: Replica, status: int | None, wait: float, reason: str) -> None:
        """It gave no usable answer.

        Args:
            replica: who.
            status: of HTTP; None where the connection failed, 200 where the answer was none.
            wait: seconds for which it asks to be left alone.
            reason: for people.
        """
        with self._lock:
            replica._due = max(replica._due, self._clock() + wait)
            if status in BUSY:
                return
            replica._faults += 1
            if status is None or status in GONE or replica._faults >= FAULTS:
                self._down(replica, reason)

    def put_down(self, replica: Replica, reason: str) -> None:
        """It gets no requests until it is well."""
        with self._lock:
            self._down(replica, reason)

    def _up(self, replica: Replica) -> None:
        if replica.down:  # otherwise it may be one that asked to be left alone for a while
            replica.down, replica.reason, replica._due = False, "", -math.inf
        replica._faults = 0

    def _down(self, replica: Replica, reason: str) -> None:
        replica.reason = reason
        if not replica.down:
            replica.down, replica._checks = True, 0
            replica._due = max(replica._due, self._clock() + FIRST_CHECK)

    def _ready(self, without: Collection[Replica]) -> list[Replica]:
        now = self._clock()
        return [one for one in self._all if not one.down and one._due <= now and one not in without]

    def _choose(self, home: Replica | None, ready: Sequence[Replica]) -> Replica:
        share = (1 + sum(one.under_way for one in ready)) / len(ready)
        if home in ready and home is not None and home.under_way < math.ceil(UNEVEN * share):
            return home
        count = len(self._all)
        places = {one: (place - self._turn) % count for place, one in enumerate(self._all)}
        chosen = min(ready, key=lambda one: (one.under_way, places[one]))
        self._turn = (self._all.index(chosen) + 1) % count
        return chosen

    def _to_check(self, replica: Replica) -> bool:
        # The only one there is gets every request anyway.
        waits = replica.down and not replica._checking and replica._due <= self._clock()
        return waits and len(self._all) > 1

    def _check(self, replica: Replica) -> None:
        """Asks one that is down whether it is well; in a thread of its own."""
        back = False
        try:
            back = is_well(replica.client) and self.on_return(replica)
        finally:
            with self._lock:
                replica._checking = False
                if back:
                    self._up(replica)
                else:
                    replica._checks += 1
                    wait = min(LAST_CHECK, FIRST_CHECK * 2 ** min(replica._checks, 10))
                    replica._due = self._clock() + wait


def is_well(client: Any) -> bool:
    """Whether a server answers. vLLM, SGLang, llama.cpp and transformers have ``/health``, beside
    the API; whoever has not is asked for its models.

    Args:
        client: of the openai package.
    """
    where = urlsplit(str(client.base_url))
    quick = client.with_options(timeout=CHECK_TIMEOUT, max_retries=0)
    for address in (f"{where.scheme}://{where.netloc}/health", "/models"):
        try:
            quick.get(address, cast_to=httpx.Response)
            return True
        except openai.APIStatusError as error:
            if error.status_code in PASSING:
                return False
        except openai.OpenAIError:
            return False
    return True  # it answers, if only to refuse: requests will tell why
