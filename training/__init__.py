"""Learning: examples under their retrieved context, LoRA, the periodic cycle, and the base model's pretraining."""

from importlib.util import find_spec as _find_spec
from pathlib import Path as _Path

# These names collide easily (a user's own memory.py, another package called envs), so: do the siblings come from here?
for _name in ("agent", "envs", "memory"):
    _found = _find_spec(_name)
    _origin = _found.origin if _found else None
    if _origin is None or _Path(_origin).resolve().parents[1] != _Path(__file__).resolve().parents[1]:
        raise ImportError(
            f"relive needs its own package {_name!r}, but Python finds {_origin or 'none'}: "
            "rename or move that file, or run from another folder"
        )
