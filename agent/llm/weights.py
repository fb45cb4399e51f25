"""Model and adapter files: where they are, what they hash to, and whether they fit together."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings import json_of
from .gguf import dequantised
from .manifest import AdapterManifest

if TYPE_CHECKING:
    import torch

BUNDLED = Path(__file__).parent / "base_model"
"""The small model that comes with the package, which is called ``bundled``."""

_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]
"""What a model needs of its repository on the hub."""


def find_model(model: str | Path) -> Path:
    """The folder that a model's files are in. ``bundled`` is the package's own; a GGUF file is
    de-quantised into a folder; a hub name is looked up on this machine, then downloaded.

    Raises:
        FileNotFoundError: there is no such folder, file or name.
        ValueError: a GGUF file cannot be read.
        ImportError: the package ``gguf`` is missing.
    """
    if model == "bundled":
        return BUNDLED
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"folder {folder} holds no model: it has no config.json")
        return folder
    if folder.suffix.lower() == ".gguf":
        if not folder.is_file():
            raise FileNotFoundError(f"no GGUF file {folder}: check the path")
        return dequantised(folder.resolve(), hash_weights(folder))
    name = str(model)
    if isinstance(model, Path) or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise FileNotFoundError(
            f"no model folder {name}: check the path, or give a name such as "
            "Qwen/Qwen2.5-0.5B-Instruct"
        )
    from huggingface_hub import snapshot_download  # half a second, and not needed for a folder

    reason = ""
    for local in (True, False):  # what is here already needs no network, and no time
        try:
            found = Path(snapshot_download(name, allow_patterns=_FILES, local_files_only=local))
        except Exception as error:
            # many kinds: no such name, no access, no network, each with a page of explanation
            reason = type(error).__name__
            continue
        if (found / "config.json").is_file() and any(found.glob("*.safetensors")):
            return found
        reason = "no config.json or no *.safetensors in it"
    raise FileNotFoundError(
        f"no model {name!r}: there is no such folder, it is not in this machine's Hugging Face "
        "cache, and "
        f"the hub could not give it ({reason}): check the name and the network, or give a folder"
    )


def with_adapter(base: str, adapter: str) -> str:
    """The hash that stands for a model with an adapter, from both hashes."""
    return hashlib.sha256(f"{base}\n{adapter}\n".encode()).hexdigest()


def hash_weights(folder: Path) -> str:
    """SHA-256 of a folder's weights: of the file itself if there is one, else over the files' names
    and hashes. A file may be given instead of a folder."""
    if folder.is_file():
        return _hash_file(folder)
    for pattern in ("*.safetensors", "*.bin"):
        files = sorted(folder.glob(pattern))
        if files:
            hashes = [_hash_file(file) for file in files]
            if len(files) == 1:
                return hashes[0]
            lines = [f"{file.name} {digest}\n" for file, digest in zip(files, hashes, strict=True)]
            return hashlib.sha256("".join(lines).encode()).hexdigest()
    raise FileNotFoundError(f"folder {folder} holds no weights: no *.safetensors and no *.bin")


def check_adapter(
    folder: Path, model: "torch.nn.Module", model_name: str, base_sha256: str
) -> None:
    """Raises unless a folder holds a LoRA adapter whose matrices fit the model's layers.

    Adapters made by `relive.training.lora` also say which weights they were trained on; these must
    be the model's.

    Raises:
        FileNotFoundError: there is no adapter.
        ValueError: it is of another kind, or for another model.
    """
    config_file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for file in (config_file, weights):
        if not file.is_file():
            raise FileNotFoundError(
                f"no adapter in {folder}: {file.name} is missing; give a folder that PEFT has saved"
            )
    config = json_of(config_file, "adapter's file")
    if config.get("peft_type") != "LORA":
        raise ValueError(
            f"adapter {folder} is of kind {config.get('peft_type')}: only LORA can be used"
        )
    manifest = AdapterManifest.read(folder)
    made_for = manifest.base_sha256 if manifest else base_sha256
    if made_for != base_sha256:
        raise ValueError(
            f"adapter {folder} is for another model: it was trained on weights {made_for[:12]}, "
            f"and {model_name} has "
            f"{base_sha256[:12]}; use the model it was trained on"
        )
    from safetensors import safe_open

    layers = dict(model.named_modules())
    with safe_open(weights, framework="pt") as tensors:
        for key in tensors.keys():  # noqa: SIM118  (not a dictionary)
            found = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", key)
            if not found:
                continue
            name, side = found.groups()
            shape = tensors.get_slice(key).get_shape()
            has = shape[1] if side == "A" else shape[0]
            layer = layers.get(name)
            wanted = getattr(layer, "in_features" if side == "A" else "out_features", None)
            if (layer is not None and wanted is None) or name.endswith(".base_layer"):
                continue  # no plain matrix, such as those of experts: its shape is PEFT's to know
            if wanted != has:
                what = "has no such layer" if layer is None else f"has {wanted} there"
                raise ValueError(
                    f"adapter {folder} is for another model "
                    f"({config.get('base_model_name_or_path')}): it has {has} "
                    f"{'inputs' if side == 'A' else 'outputs'} at {name}, and {model_name} {what}; "
                    "use the model it was trained on"
                )


def first_line(error: BaseException) -> str:
    """What an error of a library says, without its pages of explanation."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def hash_adapter(folder: Path) -> str:
    """Hash of everything that decides what an adapter does: its weights and its config."""
    config = json_of(folder / "adapter_config.json", "adapter's file")
    if isinstance(config, dict):
        config = {k: v for k, v in config.items() if k not in _DECIDES_NOTHING}
    said = json.dumps(config, sort_keys=True)
    return hashlib.sha256(f"{hash_weights(folder)}\n{said}".encode()).hexdigest()


_DECIDES_NOTHING = ("base_model_name_or_path", "revision", "inference_mode", "peft_version")


@contextmanager
def quiet() -> Iterator[None]:
    """Without the libraries' progress bars (one for each kind of file) and their warnings about
    each other."""
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _hash_file(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
