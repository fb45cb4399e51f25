"""Every chat template that trl ships: what is read is what the template gives, and what is learnt
is what would have been produced there."""

from pathlib import Path

import pytest

trl = pytest.importorskip("trl")
FILES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
