"""A transformers model as a policy: its weights, its chat template, an adapter that can be changed.

How it continues a conversation, and what it need not encode again, is in
:mod:`relive.agent.llm.decoding`.
"""

import copy
import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from ...extras import needs

with needs("llm"):
    import torch
    from transformers import AutoConfig, AutoTokenizer

from ...memory.episode import Actor
from ..action_format import ActionFormat, Read, format_of
from ..conversation import Action, ContextOverflow, Conversation, Playing, Usage
from ..settings import text_of
from .adapters import check_tensors
from .attach import Attachable
from .chat import ChatEncoder
from .decoding.sampling import Row, Sampler
from .decoding.slots import Decoder, SlotDecoder
from .decoding.snapshots import SnapshotDecoder
from .gguf import source_of
from .load import context_of, load_base, read
from .template import Thinking
from .weights import (
    check_adapter,
    find_model,
    first_line,
    hash_adapter,
    hash_weights,
    with_adapter,
)

_LOG = logging.getLogger(__name__)


class LocalModel:
    """Any causal language model of transformers, as a policy.

    In fp32 an action does not depend on which other conversations are in the call, nor on what is
    in the cache, but for ties within rounding error (about 1e-6 in a logit). In bf16 both can
    decide between close calls.

    Args:
        model: a folder, a GGUF file, or a name on the Hugging Face hub; what is on this machine is
            used first.
        adapter: a folder with a LoRA adapter of PEFT.
        adapter_version: what to call it, the folder's name by default.
        device: "cpu", "cuda", …; by default "cuda" where there is one.
        dtype: of weights, keys and values; "4bit" quantises the weights with bitsandbytes.
        temperature: 0 for the likeliest token; above, tokens are sampled, and `act` needs seeds.
        max_new_tokens: an answer ends there at the latest; by default what the action format needs
            (32 where the turn is the action). Thoughts are not counted.
        slots: how many conversations are kept. Choose as many as run at once: with fewer, what was
            encoded is lost before its conversation goes on. Memory grows only as slots come into
            use.
        context: tokens that a conversation and its answer may have together, at most what the model
            was made for.
        attention: implementation of attention in transformers; by default the one it chooses.
        chat_template: a Jinja template to use instead of the tokenizer's, or a file with one.
        template_arguments: further arguments of the template.
        thinking: whether the model thinks before it answers.
        thinking_tokens: thoughts end there at the latest.
        action_format: how an action stands in an answer: ``plain``, ``react``, ``tagged``, or a
            function from an answer to the action in it (None where there is none).

    Raises:
        FileNotFoundError: there is no such model, adapter or template file.
        ValueError: the model, its chat template or the adapter cannot be used, or an argument is
            out of range.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        adapter: str | Path | None = None,
        adapter_version: str | None = None,
        device: str | None = None,
        dtype: Literal["float32", "bfloat16", "4bit"] = "float32",
        temperature: float = 0.0,
        max_new_tokens: int | None = None,
        slots: int = 16,
        context: int | None = None,
        attention: Literal["sdpa", "eager"] | None = None,
        chat_template: str | Path | None = None,
        template_arguments: Mapping[str, Any] = MappingProxyType({}),
        thinking: Thinking = "off",
        thinking_tokens: int = 512,
        action_format: str | ActionFormat | Read = "plain",
    ) -> None:
        self.action_format = format_of(action_format)
        """How an action stands in an answer."""
        most = self.action_format.tokens if max_new_tokens is None else max_new_tokens
        if (
            not 0 <= temperature < math.inf
            or min(most, slots, thinking_tokens) < 1
            or (context or 1) < 1
        ):
            raise ValueError(
                "temperature must not be negative, and context, max_new_tokens, thinking_tokens "
                f"and slots must be at least 1, not {temperature}, and {context}, {most}, "
                f"{thinking_tokens} and {slots}"
            )
        self.model_name = str(model)
        self.dtype = dtype
        self.folder = find_model(model)
        """Where the model's files are."""
        here = os.environ.get("LOCAL_RANK", "0")  # of several processes, one GPU each
        best = f"cuda:{here}" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device or best)
        """Where it runs."""
        config = read(AutoConfig, self.folder, self.model_name, "config")
        self._limit = min(context_of(config), context or 1 << 30)
        base = load_base(self.folder, self.model_name, self.device, dtype, attention)
        tokenizer = read(AutoTokenizer, self.folder, self.model_name, "tokenizer")
        known, most_tokens = base.get_input_embeddings().num_embeddings, len(tokenizer)
        if most_tokens > known:
            raise ValueError(
                f"the tokenizer of {self.model_name} has {most_tokens} tokens and the model knows "
                f"{known}: resize its embeddings, or use the tokenizer it was made with"
            )
        eos = base.generation_config.eos_token_id if base.generation_config else None
        self.encoder = ChatEncoder(
            tokenizer,
            chat_template=template_text(chat_template),
            template_arguments=template_arguments,
            thinking=thinking,
            eos_ids=eos if isinstance(eos, list) else [] if eos is None else [eos],
        )
        """How conversations become token ids."""
        self._sampler = Sampler(
            self.encoder, self.action_format, temperature, most, thinking_tokens
        )
        self._attachable = Attachable(base, merges=dtype != "4bit")
        self._slots = slots
        self._decoder = _decoder(base, self._sampler, slots, self._limit)
        self._gguf = source_of(self.folder)
        self._unusual: dict[str, str | int | float | bool] = {}
        if chat_template is not None:
            own = template_text(chat_template) or ""
            self._unusual["chat_template"] = hashlib.sha256(own.encode()).hexdigest()
        if template_arguments:
            told = json.dumps(dict(template_arguments), sort_keys=True, default=str)
            self._unusual["template_arguments"] = told
        if context:
            self._unusual["context"] = self._limit
        self._base_hash: str | None = None
        self._versions: dict[str, str] = {}
        self._checked: dict[str, Path] = {}
        self.playing = Playing()
        """Who plays with it now: while somebody does, the adapter stays."""
        self._adapter: tuple[str, str, str] | None = None
        """Version, hash of its weights, and hash of all that decides what it does."""
        if adapter is not None:
            self.set_adapter(adapter, adapter_version)

    @property
    def temperature(self) -> float:
        """0 for the likeliest token."""
        return self._sampler.temperature

    @temperature.setter
    def temperature(self, temperature: float) -> None:
        self._sampler.temperature = temperature

    @property
    def context(self) -> int:
        """Tokens that a conversation and its answer may have together."""
        return self._limit

    @property
    def max_new_tokens(self) -> int:
        """Tokens of an answer at most, thoughts not counted."""
        return self._sampler.max_new_tokens

    @property
    def answer_tokens(self) -> int:
        """Tokens that are kept free for an answer, thoughts included."""
        return self._sampler.most + len(self.encoder.opening_ids)

    @property
    def tokens_encoded(self) -> int:
        """Tokens that the model has read so far, answers included and padding not."""
        return self._decoder.tokens_encoded

    @property
    def adapter(self) -> str | None:
        """Version of the adapter in use; None for the bare model."""
        return self._adapter[0] if self._adapter else None

    @property
    def adapter_folder(self) -> Path | None:
        """Where the adapter in use was loaded from; None for the bare model."""
        return self._checked[self._adapter[2]] if self._adapter else None

    @property
    def actor(self) -> Actor:
        """Who acts as it is now, for the record."""
        return Actor(
            "local",
            model=self.model_name,
            weights=self.weights_sha256,
            adapter=self.adapter or "",
            settings=self._settings(),
        )

    def count_tokens(self, text: str) -> int:
        """Number of tokens of a text."""
        return self.encoder.count(text)

    @property
    def base_sha256(self) -> str:
        """Hash over the bare model's weights."""
        if self._base_hash is None:
            self._base_hash = hash_weights(self.folder)
        return self._base_hash

    @property
    def weights_sha256(self) -> str:
        """What acts: a hash over the weights' files, the adapter's included. Without adapter and
        with the weights in one file it is what `sha256sum model.safetensors` prints."""
        if self._adapter is None:
            return self.base_sha256
        return with_adapter(self.base_sha256, self._adapter[1])

    def _settings(self) -> dict[str, str | int | float | bool]:
        """What decides its answers beside its weights; what is as always is left out."""
        settings: dict[str, str | int | float | bool] = {
            "temperature": self.temperature, "dtype": self.dtype,
        }  # fmt: skip
        settings |= self._unusual
        if self._gguf:
            settings["gguf_sha256"] = self._gguf
        settings |= self.action_format.settings
        if self.max_new_tokens != self.action_format.tokens:
            settings["max_new_tokens"] = self.max_new_tokens
        if self.encoder.template.thinking == "on":
            settings |= {"thinking": "on", "thinking_tokens": self._sampler.thinking_tokens}
        return settings

    @property
    def model(self) -> Any:
        """The model as it is now, adapter included; for measuring, not for changing."""
        return self._attachable.model

    @contextmanager
    def lent(self) -> Iterator[Any]:
        """The bare model, for training adapters on it; meanwhile the policy must not act. What is
        put on it has to be taken off again. Everything cached is forgotten."""
        self.playing.check()
        before = self._adapter
        self._attachable.forget_others()
        self._attachable.detach()
        self._decoder.forget()
        try:
            yield self.model
        finally:
            self._attachable.detach()
            self.model.eval().requires_grad_(False)
            if before is not None:  # from memory: its folder may have gone
                self._attachable.attach(self._checked[before[2]], before[2])

    def set_adapter(self, adapter: str | Path | None, version: str | None = None) -> None:
        """Acts with another LoRA adapter from now on, or with none.

        The adapter's weights are added to the model's, which is as fast as the bare model and gives
        the same logits up to rounding (in bf16 a coarse one: prefer fp32 where it matters); the
        model's own are kept beside them. Everything cached is forgotten.

        Args:
            adapter: its folder; None for the bare model.
            version: what to call it, the folder's name by default. A version stands for the same
                weights for ever: one may go back to an earlier version, but not load other weights
                under its name.

        Raises:
            FileNotFoundError: there is no adapter in that folder.
            ValueError: it was made for another model, is not whole, or the version's name is taken.
                The policy is then as it was.
            RuntimeError: episodes are being played.
        """
        self.playing.check()
        if adapter is not None and self.dtype == "4bit" and self.device.type == "cpu":
            raise ValueError(
                "weights in 4 bits take no adapter on a CPU: bitsandbytes packs them there for "
                "acting only; use a GPU, or dtype 'bfloat16'"
            )
        if adapter is None:
            self._attachable.detach()
            self._adapter = None
        else:
            folder = Path(adapter)
            version = version or folder.resolve().name
            content = self._content_of(folder)
            if self._versions.get(version, content) != content:
                raise ValueError(
                    f"adapter version {version!r} has been used for other weights than those in "
                    f"{folder}: "
                    "give the new adapter a version of its own"
                )
            try:
                self._attachable.attach(folder, content)
            except Exception as error:  # PEFT has many kinds
                raise ValueError(f"adapter {folder} cannot be used: {first_line(error)}") from error
            self._versions[version] = content
            self._checked[content] = folder
            self._adapter = (version, hash_weights(folder), content)
        self._decoder.forget()

    def twin(self, adapter: str | Path | None = None, version: str | None = None) -> "LocalModel":
        """Another policy on the same base weights, which are in memory once, with an adapter, a
        cache, temperature and conversations of its own. What it takes is what its adapter takes:
        the matrices that it changes.

        Args:
            adapter: its folder; None for the bare model.
            version: what to call it, the folder's name by default.

        Raises:
            FileNotFoundError, ValueError: as `set_adapter`.
        """
        other, base = copy.copy(self), self._attachable.bare_copy()
        other.playing, other._sampler = Playing(), copy.copy(self._sampler)
        other._attachable = Attachable(base, merges=self.dtype != "4bit")
        other._decoder = _decoder(base, other._sampler, self._slots, self._limit)
        other._adapter = None
        other._versions, other._checked = {}, {}
        if adapter is not None:
            other.set_adapter(adapter, version)
        return other

    def _content_of(self, folder: Path) -> str:
        """Hash of an adapter that fits this model."""
        try:
            content = hash_adapter(folder)
        except (OSError, ValueError):  # the check says what is the matter
            content = ""
        if content not in self._checked:
            bare = self._attachable
            before = self._adapter
            bare.detach()
            try:
                check_adapter(folder, bare.model, self.model_name, self.base_sha256)
                check_tensors(folder, bare.model)
            finally:
                if before is not None:
                    bare.attach(self._checked[before[2]], before[2])
        return content or hash_adapter(folder)

    def forget(self) -> None:
        """Empties the cache: the next answers encode everything anew, and say the same."""
        self._decoder.forget()

    def room(self, conversation: Conversation) -> int:
        """How many more tokens the conversation may grow by and still be answered; negative: it is
        too long already."""
        ids = self._prompt(conversation)
        return self._limit - self._sampler.most - len(ids)

    def fits(self, conversation: Conversation) -> bool:
        """Whether `act` takes the conversation. Ask before: one that does not fit stops the whole
        call."""
        return self.room(conversation) >= 0

    def act(
        self, conversations: Sequence[Conversation], seeds: Sequence[int] | None = None
    ) -> list[Action]:
        """One action per conversation, see `Policy.act`. Nothing is done at all when one of them
        cannot be answered.

        Raises:
            ContextOverflow: a conversation is too long, see `fits`.
            ValueError: a conversation does not end with a user turn, or seeds are missing.
        """
        if seeds is not None and len(seeds) != len(conversations):
            raise ValueError(
                f"{len(conversations)} conversations need as many seeds, not {len(seeds)}"
            )
        if self.temperature > 0 and seeds is None:
            raise ValueError("a policy with a temperature needs one seed per conversation")
        rows = []
        for index, conversation in enumerate(conversations):
            ids = self._prompt(conversation)
            if len(ids) + self._sampler.most > self._limit:
                raise ContextOverflow(
                    f"conversation {index} has {len(ids)} tokens, which leaves no room for "
                    f"{self._sampler.most} more "
                    f"in the {self._limit} of {self.model_name}: show it less memory or end its "
                    "episode (ask fits())"
                )
            rows.append(self._sampler.row(ids, seeds[index] if seeds else None))
        self._decoder.run(rows)
        return [
            self._action(row).with_usage(Usage(len(row.prompt), len(row.tokens))) for row in rows
        ]

    def _prompt(self, conversation: Conversation) -> list[int]:
        return [*self.encoder.prompt(conversation), *self.encoder.opening_ids]

    def _action(self, row: Row) -> Action:
        tokens = tuple(row.tokens)
        thoughts, answer = self.encoder.read(tokens)
        action = self.action_format.action(answer, tokens, thoughts)
        cut = not action.text and len(tokens) - row.answer >= self.max_new_tokens
        return replace(action, cut=True) if cut else action


def template_text(template: str | Path | None) -> str | None:
    """A chat template, from itself or from a file that holds it.

    Raises:
        FileNotFoundError: there is no such file.
    """
    if template is None or (isinstance(template, str) and "{" in template):
        return template
    file = Path(template).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"no chat template {file}: check the path, or give the template")
    return text_of(file, "chat template")


def _decoder(model: Any, sampler: Sampler, slots: int, positions: int) -> Decoder:
    """The fastest way of decoding that says what the model says."""
    try:
        batched = SlotDecoder(model, sampler, slots, positions)
        if batched.agrees():
            return batched
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever such a model raises with a cache that it does not know
        _LOG.debug("one conversation at a time: %s: %s", type(error).__name__, error)
    return SnapshotDecoder(model, sampler, slots)
