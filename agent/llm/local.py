"""A transformers model as a policy, with the keys and values of earlier decisions reused.

Every call finds, for every conversation, what of it has been encoded before: its own past, or the
beginning of another conversation (the same instructions, the same memory). Only the rest is
encoded, for all conversations together, and then all answer together, token by token.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...extras import needs

with needs("llm"):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ...memory.episode import Actor
from ..conversation import Action, Conversation
from .adapters import check_tensors
from .cache import Ids, SlotCache, SlotTable, shared_prefix
from .chat import ChatEncoder
from .weights import check_adapter, find_model, hash_weights, quiet, with_adapter

_LONG = 96
"""More new tokens than this are encoded for one conversation alone: a batch wins nothing then, and
padding costs."""
_CHUNK = 512
"""How many tokens are encoded at once, which bounds the memory that attention needs."""
_REST = 1
"""How many tokens of a long prompt are left for the common pass, where everybody's first answer
token comes from."""


class ContextOverflow(ValueError):
    """A conversation and its answer do not fit into the model's context."""


@dataclass(slots=True)
class _Row:
    """One conversation during one call."""

    prompt: Ids
    uniform: list[float]
    """One number in [0, 1) for each token that may be sampled; empty when greedy."""
    slot: int = -1
    start: int = 0
    """How much of the prompt has been encoded."""
    tokens: list[int] = field(default_factory=list)
    fed: int = 0
    """How many of `tokens` have been encoded."""
    done: bool = False

    @property
    def length(self) -> int:
        """Tokens in the cache, once the prompt is encoded."""
        return len(self.prompt) + self.fed


class LocalModel:
    """Any causal language model of transformers with full attention, as a policy.

    In fp32 an action does not depend on which other conversations are in the call, nor on what is
    in the cache, but for ties within rounding error (about 1e-6 in a logit). In bf16 both can
    decide between close calls.

    Args:
        model: a folder, or a name on the Hugging Face hub; what is on this machine is used first.
        adapter: a folder with a LoRA adapter of PEFT.
        adapter_version: what to call it, the folder's name by default.
        device: "cpu", "cuda", …; by default "cuda" where there is one.
        dtype: of weights, keys and values.
        temperature: 0 for the likeliest token; above, tokens are sampled, and `act` needs seeds.
        max_new_tokens: an action ends there at the latest. It also ends at the first newline after
            some text.
        slots: how many conversations are kept. Choose as many as run at once: with fewer, what was
            encoded is lost before its conversation goes on. Memory grows only as slots come into
            use.
        context: tokens that a conversation and its answer may have together, at most what the model
            was made for.
        attention: implementation of attention in transformers.
        chat_template: a Jinja template to use instead of the tokenizer's.

    Raises:
        FileNotFoundError: there is no such model or adapter.
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
        dtype: Literal["float32", "bfloat16"] = "float32",
        temperature: float = 0.0,
        max_new_tokens: int = 32,
        slots: int = 16,
        context: int | None = None,
        attention: Literal["sdpa", "eager"] = "sdpa",
        chat_template: str | None = None,
    ) -> None:
        if temperature < 0 or max_new_tokens < 1 or slots < 1:
            raise ValueError(
                "temperature must not be negative, max_new_tokens and slots must be at least 1, "
                f"not {temperature}, {max_new_tokens} and {slots}"
            )
        self.model_name = str(model)
        self.temperature, self.dtype = temperature, dtype
        self.max_new_tokens = max_new_tokens
        self.folder = find_model(model)
        """Where the model's files are."""
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._options: dict[str, Any] = {
            "dtype": getattr(torch, dtype),
            "attn_implementation": attention,
        }
        config = _read(AutoConfig, self.folder, self.model_name, "config")
        self._limit = min(_context_of(config, self.model_name), context or 1 << 30)
        self._positions = self._limit
        self._last: torch.Tensor | None = None
        self._model = self._load(None)
        # Its name changed within transformers 5, and a model that knows only one ignores the other.
        takes = inspect.signature(self._model.forward).parameters
        self._cache_argument = "cache" if "cache" in takes else "past_key_values"
        tokenizer = _read(AutoTokenizer, self.folder, self.model_name, "tokenizer")
        eos = self._model.generation_config.eos_token_id
        eos_ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
        self.encoder = ChatEncoder(tokenizer, chat_template=chat_template, eos_ids=eos_ids)
        """How conversations become token ids."""
        self._newline: dict[int, bool] = {}
        self._table = SlotTable(slots)
        self._slots = slots
        self._cache = SlotCache(config.get_text_config().num_hidden_layers)
        self._base_hash: str | None = None
        self._versions: dict[str, str] = {}
        self._adapter: tuple[str, str] | None = None
        self.tokens_encoded = 0
        """Tokens that the model has read so far, answers included and padding not."""
        if adapter is not None:
            self.set_adapter(adapter, adapter_version)

    @property
    def adapter(self) -> str | None:
        """Version of the adapter in use; None for the bare model."""
        return self._adapter[0] if self._adapter else None

    @property
    def actor(self) -> Actor:
        """Who acts as it is now, for the record."""
        return Actor(
            "local",
            model=self.model_name,
            weights=self.weights_sha256,
            adapter=self.adapter or "",
            settings={"temperature": self.temperature, "dtype": self.dtype},
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

    @property
    def model(self) -> Any:
        """The model as it is now, adapter included; for measuring, not for changing."""
        return self._model

    def set_adapter(self, adapter: str | Path | None, version: str | None = None) -> None:
        """Acts with another LoRA adapter from now on, or with none.

        The adapter's weights are added to a fresh copy of the model's, which is as fast as the bare
        model and gives the same logits up to rounding (in bf16 a coarse one: prefer fp32 where it
        matters). Everything cached is forgotten.

        Args:
            adapter: its folder; None for the bare model.
            version: what to call it, the folder's name by default. A version stands for the same
                weights for ever: one may go back to an earlier version, but not load other weights
                under its name.

        Raises:
            FileNotFoundError: there is no adapter in that folder.
            ValueError: it was made for another model, is not whole, or the version's name is taken.
                The policy is then as it was.
        """
        if adapter is None:
            model, loaded = self._load(None), None
        else:
            folder = Path(adapter)
            version = version or folder.resolve().name
            check_adapter(folder, self._model, self.model_name, self.base_sha256)
            check_tensors(folder, self._model)
            content = hash_weights(folder)
            if self._versions.get(version, content) != content:
                raise ValueError(
                    f"adapter version {version!r} has been used for other weights than those in "
                    f"{folder}: "
                    "give the new adapter a version of its own"
                )
            model, loaded = self._load(folder), (version, content)
            self._versions[version] = content
        self._model, self._adapter = model, loaded
        self._table.clear()

    def room(self, conversation: Conversation) -> int:
        """How many more tokens the conversation may grow by and still be answered; negative: it is
        too long already."""
        ids = self.encoder.encode(conversation, conversation[-1].role == "user").ids
        return self._limit - self.max_new_tokens - len(ids)

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
            ids = self.encoder.encode(conversation, True).ids
            if len(ids) + self.max_new_tokens > self._limit:
                raise ContextOverflow(
                    f"conversation {index} has {len(ids)} tokens, which leaves no room for "
                    f"{self.max_new_tokens} more "
                    f"in the {self._limit} of {self.model_name}: show it less memory or end its "
                    "episode (ask fits())"
                )
            rows.append(
                _Row(np.array(ids, dtype=np.int32), self._draw(seeds[index]) if seeds else [])
            )
        # The longest first would balance batches better, but whoever asks knows best who belongs
        # together.
        for first in range(0, len(rows), self._slots):
            with torch.inference_mode():
                self._answer(rows[first : first + self._slots])
        return [Action(self.encoder.decode(row.tokens), tuple(row.tokens)) for row in rows]

    def _answer(self, rows: list[_Row]) -> None:
        """Fills in the rows' tokens; as many rows as there are slots at most."""
        self._place(rows)
        batch = sorted(rows, key=lambda row: row.slot)  # slots side by side need not be copied
        width = max(len(row.prompt) - row.start for row in batch)
        reach = max(max(row.start + width, len(row.prompt) + self.max_new_tokens) for row in batch)
        self._cache.reserve(len(self._table.slots), reach)
        self._cache.open([row.slot for row in batch], reach, self._device)
        tokens = np.zeros((len(batch), width), dtype=np.int64)
        for number, row in enumerate(batch):
            tokens[number, : len(row.prompt) - row.start] = row.prompt[row.start :]
        last = [len(row.prompt) - row.start - 1 for row in batch]
        logits = self._forward(
            tokens, [row.start for row in batch], max(len(row.prompt) for row in batch), last
        )
        self.tokens_encoded += sum(last) + len(last)
        try:
            for step in range(self.max_new_tokens):
                for row, token in zip(batch, self._choose(logits, batch, step), strict=True):
                    if not row.done:
                        row.done = self._ends(token, row)
                        if not row.done:
                            row.tokens.append(token)
                batch = self._drop_done(batch)
                if not batch or step == self.max_new_tokens - 1:
                    break
                # Rows that are done but still between others write what nobody reads, behind their
                # end.
                tokens = np.array([[0 if row.done else row.tokens[-1]] for row in batch])
                logits = self._forward(
                    tokens,
                    [row.length for row in batch],
                    max(row.length for row in batch) + 1,
                    None,
                )
                for row in batch:
                    if not row.done:
                        row.fed += 1
                        self.tokens_encoded += 1
        finally:
            for row in rows:
                slot = self._table.slots[row.slot]
                slot.ids = np.concatenate(
                    [row.prompt, np.array(row.tokens[: row.fed], dtype=np.int32)]
                )
                slot.prompt = len(row.prompt)

    def _place(self, rows: list[_Row]) -> None:
        """Gives every row a slot, and encodes all but the last token of what is long."""
        owners = self._table.begin([row.prompt for row in rows])
        slots = min(self._slots, len(self._table.slots) + owners.count(None))
        self._cache.reserve(slots, max(len(row.prompt) for row in rows) + self.max_new_tokens)
        for row, owner in zip(rows, owners, strict=True):
            if owner is None:
                row.slot, source, shared = self._table.place(row.prompt)
                if source != row.slot and shared:
                    self._cache.copy(source, row.slot, shared)
            else:
                row.slot = owner
                shared = shared_prefix(self._table.slots[owner].ids, row.prompt)
            row.start = min(
                shared, len(row.prompt) - 1
            )  # the last token is always read again, for its logits
            slot = self._table.slots[row.slot]
            slot.ids, slot.prompt = row.prompt[: row.start], 0
            if len(row.prompt) - row.start > _LONG:
                self._encode_alone(row)
                slot.ids = row.prompt[: row.start]  # whoever is placed next may copy it

    def _encode_alone(self, row: _Row) -> None:
        self._cache.open([row.slot], len(row.prompt), self._device)
        end = len(row.prompt) - _REST
        while row.start < end:
            stop = min(end, row.start + _CHUNK)
            part = row.prompt[None, row.start : stop].astype(np.int64)
            self._forward(part, [row.start], stop, [stop - row.start - 1])
            self.tokens_encoded += stop - row.start
            row.start = stop

    def _forward(
        self, tokens: np.ndarray[Any, Any], starts: list[int], length: int, last: list[int] | None
    ) -> torch.Tensor:
        """One pass of the model.

        Args:
            tokens: new tokens, shape (rows, new tokens), padded on the right.
            starts: where each row's begin.
            length: tokens of the longest row, new ones included and padding not.
            last: which new token of each row is to be continued; None where there is only one.

        Returns:
            Logits, shape (rows, vocabulary).
        """
        width = tokens.shape[1]
        ids = torch.from_numpy(tokens).to(self._device)
        positions = torch.tensor(starts, device=self._device)[:, None] + torch.arange(
            width, device=self._device
        )
        # Padding may stick out behind the longest row, and behind the last position that the model
        # knows.
        length = max(length, max(starts) + width) if width > 1 else length
        visible = torch.arange(length, device=self._device) <= positions[:, None, :, None]
        mask = visible
        if self._options["attn_implementation"] == "eager":
            dtype = self._options["dtype"]
            mask = torch.where(visible, 0.0, torch.finfo(dtype).min).to(dtype)
        self._cache.at(positions, starts[0] if min(starts) == max(starts) else None, length)
        self._last = None if last is None else torch.tensor(last, device=self._device)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions.clamp(max=self._positions - 1),
            use_cache=True,
            **{self._cache_argument: self._cache},
        )
        logits: torch.Tensor = output.logits
        return logits[:, -1]

    def _only_last(
        self, module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...] | None:
        """Before the output layer: one position per row is enough. Logits of a whole prompt would
        cost as much as a layer or more, and `logits_to_keep` keeps the same positions of all
        rows."""
        if self._last is None:
            return None
        hidden = inputs[0]
        return (hidden[torch.arange(len(hidden), device=hidden.device), self._last][:, None],)

    def _choose(self, logits: torch.Tensor, batch: list[_Row], step: int) -> list[int]:
        if not self.temperature:
            greedy: list[int] = logits.argmax(-1).tolist()
            return greedy
        # By hand and in float64: torch.multinomial would draw from one generator for the whole
        # batch.
        cumulative = torch.softmax(logits.double() / self.temperature, -1).cumsum(-1)
        drawn = torch.tensor(
            [[row.uniform[step]] for row in batch], dtype=torch.float64, device=self._device
        )
        chosen = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True).squeeze(1)
        sampled: list[int] = chosen.clamp(max=logits.shape[-1] - 1).tolist()
        return sampled

    def _draw(self, seed: int) -> list[float]:
        if not self.temperature:
            return []
        generator = torch.Generator().manual_seed(seed)
        drawn: list[float] = torch.rand(
            self.max_new_tokens, generator=generator, dtype=torch.float64
        ).tolist()
        return drawn

    def _ends(self, token: int, row: _Row) -> bool:
        if token in self.encoder.stop_ids:
            return True
        if token not in self._newline:
            self._newline[token] = "\n" in self.encoder.raw_text(token)
        # Newlines in front of an action are a habit of some models, and stripped.
        return self._newline[token] and any(not self._newline[earlier] for earlier in row.tokens)

    def _drop_done(self, batch: list[_Row]) -> list[_Row]:
        """Rows that are done at either end cost nothing to leave out; those between cost a copy of
        all others, about as much as a step with four times as many."""
        live = [number for number, row in enumerate(batch) if not row.done]
        if not live:
            return []
        keep = live if 4 * len(live) <= len(batch) else list(range(live[0], live[-1] + 1))
        if len(keep) < len(batch):
            self._cache.narrow(keep)
        return [batch[number] for number in keep]

    def _load(self, adapter: Path | None) -> Any:
        model: Any = _read(
            AutoModelForCausalLM, self.folder, self.model_name, "model", **self._options
        )
        if adapter is not None:
            from peft import PeftModel  # a second to import, and only needed here

            with quiet():
                model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        model = model.eval().requires_grad_(False).to(self._device)
        if self._device.type == "cpu":
            _lay_out_for_vectors(model)
        self._last = None
        model.get_output_embeddings().register_forward_pre_hook(self._only_last)
        return model


def _lay_out_for_vectors(model: torch.nn.Module) -> None:
    """Stores the layers' matrices column by column: CPUs then multiply one vector, as in decoding,
    twice as fast."""
    tied = {id(layer.weight) for layer in model.modules() if isinstance(layer, torch.nn.Embedding)}
    for layer in model.modules():
        # An embedding's rows are what is read, so a matrix that serves as one stays as it is.
        if isinstance(layer, torch.nn.Linear) and id(layer.weight) not in tied:
            layer.weight.data = layer.weight.data.t().contiguous().t()


def _read(kind: Any, folder: Path, name: str, what: str, **options: Any) -> Any:
    try:
        with quiet():
            return kind.from_pretrained(str(folder), local_files_only=True, **options)
    except (
        Exception
    ) as error:  # transformers, tokenizers and safetensors each have kinds of their own
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"the {what} of {name} cannot be loaded from {folder}: {first}") from None


def _context_of(config: Any, name: str) -> int:
    """How many tokens a model can attend to with every layer; it must have ordinary attention in
    every layer."""
    config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if limit is None or kinds - {"full_attention", "sliding_attention"}:
        raise ValueError(
            f"model {name} ({config.model_type}) has layers that are not ordinary attention "
            f"({', '.join(sorted(kinds))}), whose state cannot be cut back: use a model such as "
            "Qwen2.5 or Llama"
        )
    window = getattr(config, "sliding_window", None)
    # The masks made here do not slide, so such a model is used only as far as they would not have
    # to.
    uses_window = "sliding_attention" in kinds or getattr(config, "layer_types", None) is None
    return int(min(limit, window) if window and uses_window else limit)
