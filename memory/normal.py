"""Stand-in until the merge."""

import re
import unicodedata


def normal_text(text: str) -> str:
    """Normal form."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def normal_goal(goal: str) -> str:
    """Normal form."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", goal).casefold()))
