"""GGUF files as models: de-quantised once, into a cached folder that transformers reads.

The folder says where it came from, and its name holds the file's hash, so that another file of the
same name never gets the same folder.
"""

import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from ...caches import cache_folder
from ..settings import json_of

SOURCE = "source.json"
"""In the folder: the file that it was made of."""


def dequantised(file: Path, sha256: str) -> Path:
    """The folder of a GGUF file's model, made if it is not there; it appears complete or not at
    all.

    Args:
        file: ending in ``.gguf``.
        sha256: its hash.

    Raises:
        ValueError: it cannot be read, or is of an architecture that transformers does not know.
        ImportError: the package ``gguf`` is not installed.
    """
    folder = cache_folder("models") / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', file.stem)}-{sha256[:16]}"
    if (folder / SOURCE).is_file():
        return folder
    if importlib.util.find_spec("gguf") is None:
        raise ImportError(
            f"reading {file} needs the package gguf, which is not installed: pip install gguf"
        )
    print(f"relive: de-quantising {file.name} into {folder} (once)", file=sys.stderr, flush=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    half = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
    try:
        _convert(file, half)
        source = {"file": file.name, "sha256": sha256}
        (half / SOURCE).write_text(json.dumps(source, indent=2) + "\n")
        try:
            os.replace(half, folder)
        except OSError:  # another process was faster
            if not (folder / SOURCE).is_file():
                raise
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def source_of(folder: Path) -> str:
    """Hash of the GGUF file that a folder was made of; empty for any other folder."""
    file = folder / SOURCE
    if not file.is_file():
        return ""
    source: Any = json_of(file, "note of where a model comes from")
    return str(source.get("sha256", "")) if isinstance(source, dict) else ""


def _convert(file: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from .weights import first_line, quiet

    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    try:
        with quiet():
            read: Any = AutoModelForCausalLM.from_pretrained(
                str(file.parent), dtype=torch.float32, **where
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), **where)
    except Exception as error:  # transformers and gguf have many kinds of their own
        raise ValueError(
            f"GGUF file {file} cannot be read as a model: {first_line(error)}"
        ) from None
    config = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # or transformers refuses to save what it has read
    plain = type(read)(config)
    plain.load_state_dict(read.state_dict())
    if read.generation_config is not None:
        plain.generation_config = read.generation_config
    with quiet():
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
