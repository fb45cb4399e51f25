"""Importing what people have: conversations and other agents' logs become episodes of a memory.

    from relive.memory import Memory
    from relive.memory.imports import import_file

    with Memory("experience") as memory, open("runs.jsonl", "rb") as file:
        report = import_file(memory, file, "runs.jsonl")
    print("\\n".join(report.summary()))

Each format is a module with one function that makes an episode of one JSON object. None of them
knows an environment or a model.
"""

from .files import FORMATS, import_file, recognise
from .parsed import Labels
from .report import ImportReport, LeftOut

__all__ = ["FORMATS", "ImportReport", "Labels", "LeftOut", "import_file", "recognise"]
