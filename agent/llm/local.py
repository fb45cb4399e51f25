"""A transformers model as a policy: its weights, its chat template, an adapter that can be changed.

How it continues a conversation, and what it need not encode again, is in
:mod:`relive.agent.llm.decoder`.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ...extras import needs

with needs("llm"):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ...memory.episode import Actor
from ..conversation import Action, Conversation
from .adapters import check_tensors
from .chat import ChatEncoder
from .decoder import Decoder
from .weights import check_adapter, find_model, hash_weights, quiet, with_adapter


class ContextOverflow(ValueError):
    """A conversation and its answer do not fit into the model's context."""


class LocalModel(Decoder):
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
        self.dtype = dtype
        self.folder = find_model(model)
        """Where the model's files are."""
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._options: dict[str, Any] = {
            "dtype": getattr(torch, dtype),
            "attn_implementation": attention,
        }
        config = _read(AutoConfig, self.folder, self.model_name, "config")
        self._limit = min(_context_of(config, self.model_name), context or 1 << 30)
        bare = self._load(None)
        # Its name changed within transformers 5, and a model that knows only one ignores the other.
        takes = inspect.signature(bare.forward).parameters
        tokenizer = _read(AutoTokenizer, self.folder, self.model_name, "tokenizer")
        eos = bare.generation_config.eos_token_id
        eos_ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
        super().__init__(
            bare,
            cache_argument="cache" if "cache" in takes else "past_key_values",
            encoder=ChatEncoder(tokenizer, chat_template=chat_template, eos_ids=eos_ids),
            device=self._device,
            layers=config.get_text_config().num_hidden_layers,
            positions=self._limit,
            mask_dtype=getattr(torch, dtype) if attention == "eager" else None,
            slots=slots,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
        )
        self._base_hash: str | None = None
        self._versions: dict[str, str] = {}
        self._adapter: tuple[str, str] | None = None
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
        self._use(model)
        self._adapter = loaded

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
        prompts = []
        for index, conversation in enumerate(conversations):
            ids = self.encoder.encode(conversation, True).ids
            if len(ids) + self.max_new_tokens > self._limit:
                raise ContextOverflow(
                    f"conversation {index} has {len(ids)} tokens, which leaves no room for "
                    f"{self.max_new_tokens} more "
                    f"in the {self._limit} of {self.model_name}: show it less memory or end its "
                    "episode (ask fits())"
                )
            prompts.append(ids)
        answers = self._continue(prompts, seeds)
        return [Action(self.encoder.decode(tokens), tuple(tokens)) for tokens in answers]

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
