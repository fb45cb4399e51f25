"""A plain Gymnasium environment of texts, as a visitor has it: this project is not imported."""

from typing import Any

import gymnasium

CODES = (("red", 3), ("blue", 2), ("green", 4))


class Safe(gymnasium.Env[str, str]):
    """A safe of a colour, whose code is always the same."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.colour, self.code = CODES[(seed or 0) % 3]
        return f"A safe.\nYour task is to: open the {self.colour} safe.", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        opened = action == f"dial {self.code}"
        text = "It opens." if opened else "It stays shut."
        return text, float(opened), opened, False, {"success": opened}
