"""Where things are kept that can be made again: translations, models read from other formats."""

import os
import sys
from pathlib import Path


def made_cache_folder(kind: str) -> Path:
    """As `cache_folder`, and it is there.

    Raises:
        OSError: it cannot be made; the message says what to do.
    """
    folder = cache_folder(kind)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"the cache folder {folder} cannot be made ({error.strerror}): set RELIVE_CACHE to a "
            "folder that can be written to"
        ) from None
    return folder


def cache_folder(kind: str) -> Path:
    """A folder for one kind of thing: below ``$RELIVE_CACHE``, else below the user's cache folder
    of this platform."""
    override = os.environ.get("RELIVE_CACHE")
    if override:
        return Path(override) / kind
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "relive" / kind
