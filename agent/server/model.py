"""A model behind OpenAI-compatible servers as a policy: vLLM, SGLang, llama.cpp, transformers
serve, or a provider."""

import json
import math
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ...extras import needs

with needs("server"):
    import openai

from ...memory.episode import Actor, Episode
from ..action_format import ActionFormat, Read, format_of
from ..conversation import (
    Action,
    Conversation,
    Playing,
    SomeFailed,
    StopRun,
    Usage,
    messages,
)
from .adapters import ServerAdapters
from .ask import Asker, ServerSilent
from .budget import Budget, Priced, Prices
from .replicas import Replicas


class ServerModel:
    """A chat model on a server, or on several.

    Args:
        base_url: of the API, for example ``http://127.0.0.1:8000/v1``; or a list of them, servers
            of the same model that share the work (:mod:`relive.agent.server.replicas`).
        model: its name on the server.
        api_key: by default ``$OPENAI_API_KEY``; servers of one's own need none.
        temperature: 0 for the likeliest token.
        max_new_tokens: an answer ends there at the latest; by default what the action format needs.
            Servers count thoughts too.
        action_format: how an action stands in an answer; see `LocalModel`.
        thinking: ``"on"`` or ``"off"`` is passed to the chat template (``enable_thinking``), as
            vLLM, SGLang and transformers take it; None leaves it to the server.
        concurrency: requests at once, over all servers.
        timeout: seconds for which a request may wait for the server's next byte.
        patience: seconds for which a request is tried again after errors of the moment: 429 and 5xx
            (``Retry-After`` is heeded), cut connections, answers that are none.
        budget: where the run stops.
        prices: what tokens cost.
        extra_body: further fields of every request, such as ``{"top_p": 0.9}``.
        keep_messages: a file that gets each request and its answer as a line of JSON.

    Raises:
        ValueError: an argument is out of range.
        TypeError: one is not of its type.
    """

    def __init__(
        self,
        base_url: str | Sequence[str],
        model: str,
        *,
        api_key: str | None = None,
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        action_format: str | ActionFormat | Read = "plain",
        thinking: Literal["off", "on"] | None = None,
        concurrency: int = 16,
        timeout: float = 120.0,
        patience: float = 600.0,
        budget: Budget | None = None,
        prices: Prices | None = None,
        extra_body: Mapping[str, Any] = MappingProxyType({}),
        keep_messages: str | Path | None = None,
    ) -> None:
        self.action_format = format_of(action_format)
        """How an action stands in an answer."""
        most = self.action_format.tokens if max_new_tokens is None else max_new_tokens
        if not (
            0 <= temperature < math.inf and most >= 1 and concurrency >= 1
            and timeout > 0 and patience >= 0
        ):  # fmt: skip
            raise ValueError(
                "temperature and patience must not be negative, max_new_tokens and concurrency at "
                f"least 1, timeout above 0, not {temperature}, {patience}, {most}, {concurrency}, "
                f"{timeout}"
            )
        if not isinstance(model, str) or not model.strip():
            raise ValueError(f"model must be the model's name on the server, not {model!r:.80}")
        if not isinstance(budget, Budget | None):
            raise TypeError(f"budget must be a Budget(tokens=…, money=…), not {budget!r:.80}")
        if not isinstance(prices, Prices | None):
            raise TypeError(
                f"prices must be Prices(prompt=…, completion=…), per million, not {prices!r:.80}"
            )
        self.base_urls = _addresses(base_url)
        """Addresses of the servers."""
        if thinking not in (None, "off", "on"):
            raise ValueError(f"thinking is {thinking!r}; it is 'off', 'on' or None")
        if not isinstance(extra_body, Mapping):
            raise TypeError(f"extra_body must be a mapping of fields, not {extra_body!r:.80}")
        self.model_name = model
        self.temperature, self.max_new_tokens = temperature, most
        self.thinking = thinking
        self.budget, self.prices = budget or Budget(), prices or Prices()
        self._extra = dict(extra_body)
        self._keep = Path(keep_messages) if keep_messages else None
        if self._keep:
            self._keep.open("a").close()  # an answer that is paid for is not lost for a bad path
        self._lock = threading.Lock()
        self._concurrency = concurrency
        self._replicas = Replicas([
            openai.OpenAI(
                base_url=url,
                api_key=api_key or os.environ.get("OPENAI_API_KEY") or "none",
                max_retries=0,  # ours heed the budget, and are counted
                timeout=timeout,
            )
            for url in self.base_urls
        ])  # fmt: skip
        self._adapters = ServerAdapters(self._replicas)
        self._asker = Asker(
            self._replicas, patience, Priced(self.budget, self.prices), self._adapters.restore
        )
        self._adapter: tuple[str, str] | None = None
        self._since, self._charged = time.time(), set[str]()
        self._versions: dict[str, str] = {}
        self.playing = Playing()
        """Who plays with it now: while somebody does, the adapter stays."""

    @property
    def adapter(self) -> str | None:
        """Version of the adapter in use; None for the bare model."""
        return self._adapter[0] if self._adapter else None

    @property
    def retries(self) -> int:
        """Requests that had to be sent again so far."""
        return self._asker.retries

    @property
    def actor(self) -> Actor:
        """Who acts as it is now, for the record."""
        settings: dict[str, str | int | float | bool] = {
            "temperature": self.temperature,
            "max_new_tokens": self.max_new_tokens,
            **{f"extra_body.{k}": json.dumps(v, sort_keys=True) for k, v in self._extra.items()},
        }
        settings |= self.action_format.settings
        if self.thinking:
            settings["thinking"] = self.thinking
        return Actor("server", self.model_name, adapter=self.adapter or "", settings=settings)

    @property
    def out_of_service(self) -> dict[str, str]:
        """Servers that get no requests now, by address, and why."""
        return {replica.url: replica.reason for replica in self._replicas if replica.down}

    def charge(self, episodes: Iterable[Episode]) -> None:
        """Counts what recorded episodes of earlier processes have used of the budget."""
        for episode in episodes:
            if episode.started < self._since and episode.id not in self._charged:
                self._charged.add(episode.id)
                used = episode.usage
                prompt, completion = (int(used.get(n, 0)) for n in ("prompt", "completion"))
                self.budget.add(Usage(prompt, completion, used.get("cost", 0.0)))

    def set_adapter(self, adapter: str | Path | None, version: str | None = None) -> None:
        """Acts with another LoRA adapter from now on, or with none. When this returns, every server
        that gets requests has it; one that cannot be reached gets it before it gets any.

        Args:
            adapter: its folder, as the servers see it; None for the bare model.
            version: what to call it in the record, the folder's name by default. On the server it
                gets a name that was never used before.

        Raises:
            ValueError: a server does not take it, none can be reached, or the version's name is
                taken; the adapter before stays in force.
            RuntimeError: episodes are being played.
        """
        self.playing.check()
        if adapter is None:
            self._adapter = None
        else:
            folder = Path(adapter)
            version = version or folder.resolve().name
            where = str(folder.resolve())
            if self._versions.get(version, where) != where:
                raise ValueError(
                    f"adapter version {version!r} has been used for {self._versions[version]}: "
                    "give the new adapter a version of its own"
                )
            self._adapter = (version, self._adapters.load(folder, version))
            self._versions[version] = where
        self._adapters.unload_all_but(self._adapter[1] if self._adapter else "")

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """One action per conversation, see `Policy.act`; all are asked for at the same time.

        Raises:
            StopRun: the budget is used up, the server refuses every request, or none of these got
                an answer.
            SomeFailed: some got no answer; those that did are in it.
        """
        if seeds is not None and len(seeds) != len(conversations):
            raise ValueError(
                f"{len(conversations)} conversations need as many seeds, not {len(seeds)}"
            )
        if self.temperature > 0 and seeds is None:
            raise ValueError("a policy with a temperature needs one seed per conversation")
        self.budget.check()
        chosen = seeds or [0] * len(conversations)
        pool = ThreadPoolExecutor(min(self._concurrency, max(1, len(conversations))))
        try:
            asked = [
                pool.submit(self._act, *one) for one in zip(conversations, chosen, strict=True)
            ]
            answers = [self._result(one) for one in asked]
        finally:  # also after Ctrl-C: what has not been sent is not sent any more
            pool.shutdown(wait=False, cancel_futures=True)
        actions = [one for one in answers if isinstance(one, Action)]
        if not actions and all(isinstance(one, ServerSilent) for one in answers):
            raise StopRun(f"{answers[0]}; what is finished is recorded: run the same again later")
        if len(actions) < len(answers):
            raise SomeFailed(answers)
        return actions

    def _result(self, asked: "Future[Action]") -> Action | Exception:
        """What came of a request; what ends the run is raised."""
        error = asked.exception()
        if error is None:
            return asked.result()
        if isinstance(error, StopRun) or not isinstance(error, Exception):
            raise error
        return error

    def _act(self, conversation: Conversation, seed: int) -> Action:
        request = self._request(conversation, seed)
        # What it begins with stays when it goes on: a server that has read it need not do so again.
        answer = self._asker.ask(request, hash(tuple(turn.text for turn in conversation[:2])))
        self._note(request, answer.text, answer.reasoning)
        action = self.action_format.action(answer.text, reasoning=answer.reasoning)
        return replace(action, usage=answer.usage, cut=answer.cut and not action.text)

    def _request(self, conversation: Conversation, seed: int) -> dict[str, Any]:
        extra = dict(self._extra)
        if self.thinking:
            switch = {"enable_thinking": self.thinking == "on"}
            extra["chat_template_kwargs"] = {**switch, **extra.get("chat_template_kwargs", {})}
        request: dict[str, Any] = {
            "model": self._adapter[1] if self._adapter else self.model_name,
            "messages": messages(conversation),
            "temperature": self.temperature,
        }
        if "max_completion_tokens" not in extra:  # the newer name, which some servers insist on
            request["max_tokens"] = self.max_new_tokens
        if self.temperature:
            request["seed"] = seed & 0x7FFFFFFF
        return request | ({"extra_body": extra} if extra else {})

    def _note(self, request: Mapping[str, Any], text: str, reasoning: str) -> None:
        if self._keep is None:
            return
        line = json.dumps({"request": request, "answer": text, "reasoning": reasoning})
        with self._lock, self._keep.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _addresses(base_url: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(base_url, str | Sequence):
        raise TypeError(f"base_url must be an address or a list of them, not {base_url!r:.80}")
    urls = (base_url,) if isinstance(base_url, str) else tuple(base_url)
    for url in urls:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ValueError(f"base_url {url!r} is no address: http://127.0.0.1:8000/v1")
    if not urls or len({url.rstrip("/") for url in urls}) < len(urls):
        raise ValueError(f"base_url must be an address or some that differ, not {list(urls)}")
    return urls
