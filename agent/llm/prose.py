"""What a model writes when it goes on where the system turn was broken off: more of what stands
there.

Acting asks a model for a turn of its own; this asks it to continue a text in the place where its
prompts have it, for example a list of past episodes by one more.
"""

from ...extras import needs

with needs("llm"):
    import torch

from ..conversation import Turn
from .local import LocalModel


def continued(
    model: LocalModel, system: str, *, tokens: int, temperature: float = 0.7, seed: int = 0
) -> str:
    """A continuation of a system turn's text.

    Args:
        model: who writes.
        system: the text so far; it should not end in the middle of a word.
        tokens: how many are written at most.
        temperature: above 0.
        seed: decides what is drawn.

    Raises:
        ValueError: the chat template does not write the text as it is, or it leaves no room.
    """
    written = model.encoder.template.render((Turn("system", system), Turn("user", ".")))
    if system not in written:
        raise ValueError(f"the chat template of {model.model_name} rewrites the system turn")
    ids = model.encoder.ids_of(written[: written.index(system) + len(system)])
    if len(ids) + tokens > model.context:
        raise ValueError(
            f"{len(ids)} tokens leave no room for {tokens} in the {model.context} of "
            f"{model.model_name}: show it less"
        )
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        said = model.model.generate(
            torch.tensor([ids], device=model.device), max_new_tokens=tokens, do_sample=True,
            temperature=temperature, top_k=0, pad_token_id=min(model.encoder.stop_ids),
        )  # fmt: skip
    new = said[0][len(ids) :].tolist()
    end = next((i for i, token in enumerate(new) if token in model.encoder.stop_ids), len(new))
    return model.encoder.text_of(new[:end])
