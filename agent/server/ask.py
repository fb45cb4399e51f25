"""One request, tried again until it is answered: errors of the moment are waited out, or tried on
another server at once; errors of the request are not."""

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
from .replicas import PASSING, Replica, Replicas

with needs("server"):
    import openai

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
    cut: bool = False
    """Whether it ended at the most tokens it may have."""


class Asker:
    """Sends requests.

    Args:
        replicas: the servers.
        patience: seconds for which one request is tried again.
        meter: told what each try took, also one whose answer cannot be used.
        restore: gives a server that has forgotten its adapter that adapter; whether it could.
        sleep: waits; for tests.
    """

    def __init__(
        self,
        replicas: Replicas,
        patience: float,
        meter: Meter,
        restore: Callable[[Replica], bool] = lambda replica: False,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._replicas, self._patience, self._meter = replicas, patience, meter
        self._restore, self._sleep = restore, sleep
        self._told = -math.inf
        self._jitter = random.Random()
        self._lock = threading.Lock()
        self.retries = 0
        """Requests that had to be sent again."""

    def ask(self, request: Mapping[str, Any], conversation: int = 0) -> Answer:
        """The answer to one request.

        Args:
            request: arguments of ``chat.completions.create``.
            conversation: a number for what is asked, see `Replicas.lease`.

        Raises:
            ServerRefused: no request can succeed.
            ServerFailed: this one did not, within `patience`.
        """
        began = time.monotonic()
        tries = rounds = 0
        used = Usage()
        restored: set[Replica] = set()
        tried: dict[Replica, float] = {}  # in this round, and how long each asks to be left alone
        ever: dict[str, None] = {}  # their addresses, of all rounds
        while True:
            self._meter.check()
            replica = self._replicas.lease(conversation, tried)
            tries += 1
            try:
                problem, status, asked = "", None, 0.0
                reply = replica.client.chat.completions.create(**request)
                status = 200
                used += self._meter.add(*_tokens(reply))
                answer = _answer(reply, used)
                self._replicas.answered(replica)
                return answer
            except openai.APIStatusError as error:
                status = error.status_code
                if status == 404 and replica not in restored and self._restore(replica):
                    restored.add(replica)  # it was started again, and has forgotten its adapter
                    continue
                if status in _HOPELESS and not replica.answered:
                    raise ServerRefused(_refusal(error, replica)) from None
                if status == 400 and _OVERFLOW.search(f"{_told(error)} {error.code}"):
                    raise ContextOverflow(f"the server answered {_told(error)}") from None
                if status not in PASSING:
                    raise ServerFailed(f"the server answered {_told(error)}") from None
                problem, asked = _told(error), _asked_to_wait(error.response.headers)
            except openai.APIConnectionError as error:  # refused, cut off, or too slow
                problem = f"{type(error).__name__}: {error}{_cause(error)}"
                status = 408 if isinstance(error, openai.APITimeoutError) else None
            except _Nonsense as error:
                problem, status = f"no usable answer: {error}", 200
            except (openai.OpenAIError, json.JSONDecodeError) as error:
                problem = f"no usable answer: {type(error).__name__}: {error}"
                status = 200
            finally:
                self._replicas.release(replica)
            self._replicas.failed(replica, status, asked, problem)
            tried[replica] = asked
            ever[replica.url] = None
            if self._replicas.another(tried):
                self._retry(replica, problem, self._patience - (time.monotonic() - began))
                continue
            rounds += 1
            own = min(_LONGEST, 0.5 * 2 ** min(rounds - 1, 10)) * self._jitter.uniform(0.5, 1.0)
            # A server that asks to wait for nothing is not stormed.
            wait = max(own, min(tried.values()))
            left = self._patience - (time.monotonic() - began)
            if wait > left:
                who = f"server{'s' if len(ever) > 1 else ''} at {', '.join(ever)}"
                asks = min(tried.values())
                raise ServerSilent(
                    f"the {who} gave no answer in {tries} {'try' if tries == 1 else 'tries'} over "
                    f"{time.monotonic() - began:.0f} s; the last time: {problem}"
                    + (
                        f"; asked to wait for {asks:.0f} s (Retry-After)"
                        if asks > max(0.0, left)
                        else ""
                    )
                    + f"; patience is {self._patience:.0f} s"
                )
            self._retry(replica, problem, left)
            tried.clear()
            self._sleep(wait)

    def _retry(self, replica: Replica, problem: str, left: float) -> None:
        """Counts a request that is sent again, and tells the person who waits, now and then."""
        with self._lock:
            self.retries += 1
            if time.monotonic() - self._told > _TELL_EVERY:
                self._told = time.monotonic()
                print(
                    f"relive: {replica.url} did not answer ({problem[:150]}); trying again for "
                    f"{left:.0f} s",
                    file=sys.stderr, flush=True,
                )  # fmt: skip


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
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = getattr(choice, "message", None)
    if message is None:
        raise _Nonsense(_shown(reply))
    text = getattr(message, "content", None)
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if not isinstance(text, str):
        refusal = getattr(message, "refusal", None)
        ended = isinstance(getattr(choice, "finish_reason", None), str)
        if text is not None or not (ended or isinstance(reasoning, str)):
            raise _Nonsense(_shown(reply))
        text = ""  # it declined, said nothing, or thought until it had no tokens left
        if not isinstance(reasoning, str) and isinstance(refusal, str):
            reasoning = refusal
    thoughts, answer = split_thoughts(text)  # of a server that does not take them apart
    thoughts = reasoning if isinstance(reasoning, str) else thoughts
    return Answer(answer, thoughts, used, getattr(choice, "finish_reason", None) == "length")


_OVERFLOW = re.compile(
    r"context[ _](?:length|window|size|limit)"
    r"|(?:maximum|max) (?:model|sequence|input|prompt) length"
    r"|too many tokens|maximum number of tokens"
    r"|(?:prompt|input|sequence|conversation|request|messages?)(?: \w+)? (?:is|are) too long",
    re.IGNORECASE,
)
"""What servers say of a conversation that does not fit: OpenAI and SGLang "maximum context length",
vLLM "maximum model length", llama.cpp "available context size", others "prompt is too long"."""


def _told(error: Any) -> str:
    """Status, and what the server said with it."""
    said = _said(error.body) or getattr(error.response, "reason_phrase", "") or "no more than that"
    return f"{error.status_code}: {' '.join(said.split())[:300]}"


def _said(body: object) -> str:
    """The message in the body of an error, or else all of it."""
    if isinstance(body, str):
        return body
    if isinstance(body, Mapping):
        for name in ("message", "detail", "error"):
            if said := _said(body.get(name)):
                return said
    return json.dumps(body, ensure_ascii=False, default=str) if body else ""


def _shown(reply: Any) -> str:
    """What an answer says that is no chat completion."""
    body = reply.to_dict() if hasattr(reply, "to_dict") else reply
    return " ".join((_said(body) or repr(body)).split())[:300]


def _cause(error: BaseException) -> str:
    """What a failed connection failed of, in brackets; empty where nobody says."""
    cause = error.__cause__
    said = str(cause) if cause else ""
    return f" ({said})" if said and said not in str(error) else ""


def _refusal(error: Any, replica: Replica) -> str:
    hint = {
        401: "give api_key=, or set OPENAI_API_KEY",
        403: "this key may not use the model",
        404: "check base_url (it usually ends in /v1) and the model's name",
    }[error.status_code]
    return f"the server at {replica.url} refuses every request: {_told(error)}; {hint}"


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
