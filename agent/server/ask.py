"""One request to a server, tried again until it is answered: errors of the moment are waited out,
errors of the request are not."""

import json
import math
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

from ...extras import needs
from ..action_format import split_thoughts
from ..conversation import ContextOverflow, StopRun, Usage

with needs("server"):
    import openai

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Answers that say: later."""
_HOPELESS = {401, 403, 404}
"""Answers that every further request would get too, as long as none has been answered."""
_TELL_EVERY = 10.0
"""Seconds between two words to the person who waits."""
_LONGEST = 60.0
"""Seconds between two tries at most, where the server does not ask for more."""


class ServerRefused(StopRun):
    """The server refuses every request: key, address or name of the model are wrong."""


class ServerFailed(RuntimeError):
    """The server gave no usable answer to one conversation."""


class ServerSilent(ServerFailed):
    """However often it was asked."""


class Meter(Protocol):
    """Counts what is used, and stops the run where it is too much."""

    def add(self, prompt: int, completion: int) -> Usage:
        """Counts the tokens of one reply."""
        ...

    def check(self) -> None:
        """Raises `StopRun` where no more may be used."""
        ...


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    text: str
    reasoning: str
    usage: Usage
    """Of all tries."""


class Asker:
    """Sends requests.

    Args:
        client: of the openai package, without retries of its own.
        patience: seconds for which one request is tried again.
        meter: told what each try took, also one whose answer cannot be used.
        sleep: waits; for tests.
    """

    def __init__(
        self,
        client: Any,
        patience: float,
        meter: Meter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._client, self._patience, self._meter = client, patience, meter
        self._sleep = sleep
        self._answered = False
        self._told = -math.inf
        self._jitter = random.Random()
        self._lock = threading.Lock()
        self.retries = 0
        """Requests that had to be sent again."""

    def ask(self, request: Mapping[str, Any]) -> Answer:
        """The answer to one request.

        Args:
            request: arguments of ``chat.completions.create``.

        Raises:
            ServerRefused: no request can succeed.
            ServerFailed: this one did not, within `patience`.
        """
        began = time.monotonic()
        tries = 0
        used = Usage()
        while True:
            self._meter.check()
            tries += 1
            asked = 0.0
            try:
                reply = self._client.chat.completions.create(**request)
                used += self._meter.add(*_tokens(reply))
                answer = _answer(reply, used)
                self._answered = True
                return answer
            except openai.APIStatusError as error:
                if error.status_code in _HOPELESS and not self._answered:
                    raise ServerRefused(_refusal(error, self._client)) from None
                if error.status_code == 400 and _OVERFLOW.search(str(error.message)):
                    raise ContextOverflow(f"the server answered {_told(error)}") from None
                if error.status_code not in _PASSING:
                    raise ServerFailed(f"the server answered {_told(error)}") from None
                problem, asked = _told(error), _asked_to_wait(error.response.headers)
            except openai.APIConnectionError as error:  # refused, cut off, or too slow
                problem = f"{type(error).__name__}: {error}"
            except (openai.OpenAIError, _Nonsense, json.JSONDecodeError) as error:
                problem = f"no usable answer: {type(error).__name__}: {error}"
            own = min(_LONGEST, 0.5 * 2 ** min(tries - 1, 10)) * self._jitter.uniform(0.5, 1.0)
            wait = max(own, asked)  # a server that asks to wait for nothing is not stormed
            if time.monotonic() - began + wait > self._patience:
                raise ServerSilent(
                    f"the server gave no answer in {tries} tries over "
                    f"{time.monotonic() - began:.0f} s; the last time: {problem}"
                )
            with self._lock:
                self.retries += 1
                if time.monotonic() - self._told > _TELL_EVERY:
                    self._told = time.monotonic()
                    print(
                        f"relive: {self._client.base_url} did not answer ({problem[:150]}); trying "
                        f"again for {self._patience - (self._told - began):.0f} s",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
            self._sleep(wait)


class _Nonsense(Exception):
    """An answer that is no chat completion."""


def _tokens(reply: Any) -> tuple[int, int]:
    """Tokens of prompt and answer, as the server counts them."""
    usage = getattr(reply, "usage", None)
    counts = (getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens"))
    prompt, completion = (n if isinstance(n, int) and n > 0 else 0 for n in counts)
    return prompt, completion


def _answer(reply: Any, used: Usage) -> Answer:
    choices = getattr(reply, "choices", None)
    message = (
        getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    )
    if message is None:
        raise _Nonsense(f"{reply!r:.100}")
    text = getattr(message, "content", None)
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if not isinstance(text, str):
        if text is not None or not isinstance(reasoning, str):
            raise _Nonsense(f"{reply!r:.100}")
        text = ""  # it thought until it had no tokens left
    thoughts, answer = split_thoughts(text)  # of a server that does not take them apart
    return Answer(answer, reasoning if isinstance(reasoning, str) else thoughts, used)


_OVERFLOW = re.compile(r"context|maximum (?:\w+ )?length|too (?:many tokens|long)", re.IGNORECASE)
"""What servers say of a conversation that does not fit."""


def _told(error: Any) -> str:
    return f"{error.status_code}: {' '.join(str(error.message).split())[:300]}"


def _refusal(error: Any, client: Any) -> str:
    hint = {
        401: "give api_key=, or set OPENAI_API_KEY",
        403: "this key may not use the model",
        404: "check base_url (it usually ends in /v1) and the model's name",
    }[error.status_code]
    return f"the server at {client.base_url} refuses every request: {_told(error)}; {hint}"


def _asked_to_wait(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to wait for; 0 where it does not say."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            return max(0.0, float(value) * unit)
        except ValueError:
            pass
        try:
            return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
        except (TypeError, ValueError):
            continue
    return 0.0
