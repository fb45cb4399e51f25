"""One request to a server, tried again until it is answered: errors of the moment are waited out,
errors of the request are not."""

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from ...extras import needs
from ..conversation import StopRun

with needs("server"):
    import openai

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Answers that say: later."""
_HOPELESS = {401, 403, 404}
"""Answers that every further request would get too."""
_LONGEST = 60.0
"""Seconds between two tries at most, where the server does not ask for more."""


class ServerRefused(StopRun):
    """The server refuses every request: key, address or name of the model are wrong."""


class ServerFailed(RuntimeError):
    """The server gave no usable answer to one conversation."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    text: str
    reasoning: str
    prompt_tokens: int
    completion_tokens: int
    tries: int


class Asker:
    """Sends requests.

    Args:
        client: of the openai package, without retries of its own.
        patience: seconds for which one request is tried again.
        sleep: waits; for tests.
    """

    def __init__(
        self, client: Any, patience: float, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        self._client, self._patience, self._sleep = client, patience, sleep
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
        while True:
            tries += 1
            wait: float | None = None
            try:
                return _answer(self._client.chat.completions.create(**request), tries)
            except openai.APIStatusError as error:
                if error.status_code in _HOPELESS:
                    raise ServerRefused(_refusal(error, self._client)) from None
                if error.status_code not in _PASSING:
                    raise ServerFailed(f"the server answered {_told(error)}") from None
                problem, wait = _told(error), _asked_to_wait(error.response.headers)
            except openai.APIConnectionError as error:  # refused, cut off, or too slow
                problem = f"{type(error).__name__}: {error}"
            except (openai.OpenAIError, _Nonsense, ValueError, TypeError, AttributeError) as error:
                problem = f"no usable answer: {type(error).__name__}: {error}"
            if wait is None:
                wait = min(_LONGEST, 0.5 * 2 ** (tries - 1)) * self._jitter.uniform(0.5, 1.0)
            if time.monotonic() - began + wait > self._patience:
                raise ServerFailed(
                    f"the server gave no answer in {tries} tries over "
                    f"{time.monotonic() - began:.0f} s; the last time: {problem}"
                )
            with self._lock:
                self.retries += 1
            self._sleep(wait)


class _Nonsense(Exception):
    """An answer that is no chat completion."""


def _answer(reply: Any, tries: int) -> Answer:
    choices = getattr(reply, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise _Nonsense(f"{reply!r:.100}")
    message = choices[0].message
    text = message.content
    reasoning = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
    if not isinstance(text, str):
        if text is not None or not isinstance(reasoning, str):
            raise _Nonsense(f"{reply!r:.100}")
        text = ""  # it thought until it had no tokens left
    usage = getattr(reply, "usage", None)
    return Answer(
        text,
        reasoning if isinstance(reasoning, str) else "",
        int(getattr(usage, "prompt_tokens", 0) or 0),
        int(getattr(usage, "completion_tokens", 0) or 0),
        tries,
    )


def _told(error: Any) -> str:
    return f"{error.status_code}: {' '.join(str(error.message).split())[:300]}"


def _refusal(error: Any, client: Any) -> str:
    hint = {
        401: "give api_key=, or set OPENAI_API_KEY",
        403: "this key may not use the model",
        404: "check base_url (it usually ends in /v1) and the model's name",
    }[error.status_code]
    return f"the server at {client.base_url} refuses every request: {_told(error)}; {hint}"


def _asked_to_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait for."""
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
    return None
