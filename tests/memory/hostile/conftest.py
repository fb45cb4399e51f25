"""The hostile tests: the memory as it is attacked from outside, judged by what was promised."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_sync() -> Iterator[None]:
    """No power is cut in these tests, so nothing has to reach the disk, which is slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
