"""The report as one file: it needs no server and no network, and nothing in it is run but its own
script.

Episodes come in compressed blocks that the page opens when they are looked at. Whatever episodes
say is data, and the page shows data as text; a content security policy allows no other script, no
request and no frame.
"""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...extras import needs
from ...memory.storage.durable import replace_file
from ..rundir import versions
from .episodes import Collected

BLOCK = 50
"""Episodes in one block: what is unpacked to look at one of them."""
TEXTS = 200
"""Texts of past episodes in one block."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Data in blocks, as the page embeds them."""

    name: str
    size: int
    """Items in a block."""
    packed: tuple[str, ...]
    """Each a gzip of JSON, in base64."""


def pack(value: object) -> str:
    """JSON, compressed, as letters that HTML leaves alone. Lone surrogates become question marks:
    no browser can show them."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), mtime=0)).decode()


def blocks(name: str, items: Sequence[object], size: int) -> Blocks:
    """Items in packed blocks."""
    parts = [items[first : first + size] for first in range(0, len(items), size)]
    return Blocks(name, size, tuple(pack(finite(part)) for part in parts))


def finite(value: Any) -> Any:
    """The same without numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def render(
    name: str, data: Mapping[str, Any], parts: Iterable[Blocks], scripts: Sequence[str]
) -> str:
    """A page of the assets: a template, its style, and its scripts.

    Args:
        name: of the template.
        data: what the page reads at once.
        parts: what it reads when it needs it.
        scripts: names of the scripts, in order.

    Raises:
        MissingExtraError: Jinja2 is not installed.
    """
    with needs("report"):
        from jinja2 import Environment, StrictUndefined

    source = "\n".join(asset(script) for script in scripts)
    # Inside a script element nothing ends it but this.
    source = source.replace("</script", "<\\/script")
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    page = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return page.from_string(asset(name)).render(
        title=data["title"], style=asset("style.css"), script=source, hash=digest,
        data=pack(finite(data)), parts=list(parts),
    )  # fmt: skip


def asset(name: str) -> str:
    """A file of the page."""
    return files(__package__).joinpath("assets", name).read_text("utf-8")


def write_report(
    file: Path, title: str, runs: Sequence[Any], collected: Collected, **tables: Any
) -> int:
    """Writes the page, whole or not at all; returns its size in bytes.

    Args:
        file: where to.
        title: of the page.
        runs: what is said of each run.
        collected: all episodes.
        tables: further data by name.
    """
    data = {
        "title": title,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": versions(),
        "runs": list(runs),
        "episodes": _narrow(collected.columns),
        "heads": collected.heads,
        **tables,
    }
    parts = [blocks("body", collected.bodies, BLOCK), blocks("text", collected.texts, TEXTS)]
    text = render(
        "report.html", data, parts, ("d3.min.js", "plot.min.js", "common.js", "report.js")
    )
    written = text.encode("utf-8", "replace")
    replace_file(file, written)
    return len(written)


def _narrow(columns: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Columns in which values repeat name each once: ``{"of": values, "at": indices}``."""
    found: dict[str, Any] = {}
    for name, values in columns.items():
        different = list(dict.fromkeys(values))
        if len(different) > 1 and 4 * len(different) > len(values):
            found[name] = list(values)
        else:
            index = {value: i for i, value in enumerate(different)}
            found[name] = {"of": different, "at": [index[value] for value in values]}
    return found
