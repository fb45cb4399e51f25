"""Does an agent act and learn under a chat template exactly as the template says?

For one template file: three turns are played, once scripted and once with answers cut into tokens
in an unusual way, and what `ChatEncoder` gives is compared with `apply_chat_template`.

    python scripts/check_templates.py FILE.jinja … --tokenizer FOLDER
"""

import argparse
import copy
import functools
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from relive.agent.conversation import Conversation, Turn
from relive.agent.llm.chat import ChatEncoder
from relive.agent.llm.template import TODAY, Thinking

MARKERS = re.compile(r"<[|｜][^<>\s'\"]+[|｜]>|</?s>|<\|\w+>|<\w+\|>|</?\w+_of_\w+>")
"""What looks like a special token in a template."""

ACTIONS = ("open the door 1", "go to the shelf 12", "take mug 3 from the shelf 12")
THOUGHTS = ("It is closed.", "Then the shelf.", "There is the mug.")
SEEN = (
    "You are in a room.\n\nYour task: fetch a mug.",
    " The door is open. ",
    "On the shelf you see a mug.",
)


@dataclass(frozen=True)
class Checked:
    """What came of one template."""

    name: str
    acts: bool
    learns: bool
    note: str


@functools.cache
def _loaded(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def tokenizer_for(source: str, folder: Path) -> Any:
    """The tokenizer of a folder that knows a template's markers as special tokens."""
    tokenizer = copy.deepcopy(_loaded(folder))
    markers = sorted(set(MARKERS.findall(source)))
    tokenizer.add_special_tokens({"additional_special_tokens": markers})
    tokenizer.chat_template = source
    if "bos_token" in source:
        tokenizer.bos_token = "<|im_start|>"
    eos = {"deepseek": "<｜end▁of▁sentence｜>", "[/INST]": "</s>"}
    for sign, token in eos.items():
        if sign in source or token in source:
            tokenizer.add_special_tokens({"eos_token": token})
    return tokenizer


def talk(count: int, sampled: Any = None, thinking: bool = False) -> Conversation:
    """The conversation with so many answers, and what was seen after the last one."""
    turns = [Turn("system", "You live in a house. Act."), Turn("user", SEEN[0])]
    for number in range(count):
        tokens = tuple(sampled[number]) if sampled else ()
        reasoning = THOUGHTS[number] if thinking else ""
        turns.append(Turn("assistant", ACTIONS[number], tokens, reasoning))
        turns.append(Turn("user", SEEN[number + 1] if number + 1 < len(SEEN) else "It is done."))
    return tuple(turns)


def expected_prompt(
    tokenizer: Any, encoder: ChatEncoder, conversation: Conversation, thinking: bool
) -> str:
    """What the template itself gives, on the date that the encoder stands for."""
    template = encoder.template
    messages: list[dict[str, Any]] = []
    for turn in conversation:
        message: dict[str, Any] = {"role": turn.role, "content": turn.text}
        if turn.reasoning:
            message |= {"reasoning_content": turn.reasoning, "thinking": turn.reasoning}
        messages.append(message)
    if template.folds_system:
        text = f"{messages[0]['content']}\n\n{messages[1]['content']}"
        messages[:2] = [{"role": "user", "content": text}]
    if template.takes_parts:
        for message in messages:
            message["content"] = [{"type": "text", "text": message["content"]}]

    class Fixed(chat_template_utils.datetime):  # type: ignore[misc]
        @classmethod
        def now(cls, *_: object) -> Any:
            return TODAY

    with patch.object(chat_template_utils, "datetime", Fixed):
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True,
            enable_thinking=thinking, thinking=thinking,
        )  # fmt: skip
    return str(text)


def check(file: Path, folder: Path, thinking: Thinking = "off") -> Checked:
    """Plays and learns under one template."""
    source = file.read_text()
    tokenizer = tokenizer_for(source, folder)
    try:
        encoder = ChatEncoder(tokenizer, thinking=thinking)
    except ValueError as error:
        return Checked(file.stem, False, False, str(error))
    on = thinking == "on"
    notes = ["several sequences per episode"] if encoder.looks_back else []
    acts = _acts(tokenizer, encoder, on, notes)
    learns = _learns(tokenizer, encoder, on, notes)
    return Checked(file.stem, acts, learns, "; ".join(notes))


def _acts(tokenizer: Any, encoder: ChatEncoder, on: bool, notes: list[str]) -> bool:
    good = True
    letters = [tokenizer(list(action), add_special_tokens=False)["input_ids"] for action in ACTIONS]
    odd = [[token for one in action for token in one] for action in letters]
    thoughts = encoder.template.thoughts
    lead = _space_before(tokenizer, encoder, on)
    first = [f"{thoughts.opening}{t}{thoughts.between}" if thoughts else lead for t in THOUGHTS]
    said = [
        [*(tokenizer(text, add_special_tokens=False)["input_ids"] if text else []), *action]
        for text, action in zip(first, odd, strict=True)
    ]
    for count in range(len(ACTIONS)):
        scripted = talk(count, thinking=on)
        text = expected_prompt(tokenizer, encoder, scripted, on)
        ids = encoder.prompt(scripted)
        if ids != tokenizer(text, add_special_tokens=False)["input_ids"]:
            notes.append(f"ids differ after {count} answers")
            good = False
        sampled = encoder.prompt(talk(count, said, on))
        if tokenizer.decode(sampled) != tokenizer.decode(ids):
            notes.append(f"sampled text differs after {count} answers")
            good = False
        if not all(_within(action, sampled) for action in odd[:count]):
            notes.append("sampled ids are not kept")
            good = False
    return good


def _learns(tokenizer: Any, encoder: ChatEncoder, on: bool, notes: list[str]) -> bool:
    good = True
    conversation = talk(len(ACTIONS), thinking=on)
    targets: list[tuple[list[int], list[int]]] = []
    for one in encoder.sequences(conversation[:-1], thoughts=False):
        inside = False
        for index, learnt in enumerate(one.supervised):
            if learnt and not inside:
                targets.append((one.ids[:index], []))
            if learnt:
                targets[-1][1].append(one.ids[index])
            inside = learnt
    if len(targets) != len(ACTIONS):
        notes.append(f"{len(targets)} targets instead of {len(ACTIONS)}")
        return False
    if on:
        good = _learns_without_thoughts(tokenizer, encoder, notes)
    for number, (before, target) in enumerate(targets):
        prompt = encoder.prompt(talk(number, thinking=on))
        said = tokenizer.decode(target[:-1])
        if said.strip() != ACTIONS[number] or target[-1] not in encoder.stop_ids:
            notes.append(f"target {number} is {tokenizer.decode(target)!r}")
            good = False
        opening = before[len(prompt) :]
        if before[: len(prompt)] != prompt or (not on and tuple(opening) != encoder.opening_ids):
            notes.append(f"context of target {number} is not what it reads")
            good = False
        answered = encoder.read([*(opening if on else ()), *target[:-1]])
        if answered[1] != ACTIONS[number] or (on and answered[0] not in (THOUGHTS[number], "")):
            notes.append(f"target {number} would be read as {answered}")
            good = False
    return good


def _learns_without_thoughts(tokenizer: Any, encoder: ChatEncoder, notes: list[str]) -> bool:
    """Expert episodes have none: everything behind the prompt is to be produced then."""
    done = encoder.sequences(talk(len(ACTIONS))[:-1])
    text = "".join(
        tokenizer.decode([i for i, learnt in zip(*one, strict=True) if learnt]) for one in done
    )
    if not all(action in text for action in ACTIONS):
        notes.append("an answer without thoughts is not learnt")
        return False
    for number in range(len(ACTIONS)):
        prompt = encoder.prompt(talk(number))
        fits = [one for one in done if one.ids[: len(prompt)] == prompt]
        if not any(len(o.ids) > len(prompt) and o.supervised[len(prompt)] for o in fits):
            notes.append(f"without thoughts, answer {number} is learnt behind another prompt")
            return False
    return True


def _space_before(tokenizer: Any, encoder: ChatEncoder, on: bool) -> str:
    """Space that the template writes before an answer and that the model has to write itself."""
    asked = expected_prompt(tokenizer, encoder, talk(0), on)
    later = expected_prompt(tokenizer, encoder, talk(1), on)
    between = later[later.find(SEEN[0]) :].partition(ACTIONS[0])[0]
    tail = asked[asked.find(SEEN[0]) :]
    rest = between[len(tail) :] if between.startswith(tail) else ""
    return rest if rest.isspace() and not encoder.opening_ids else ""


def _within(part: list[int], whole: list[int]) -> bool:
    return any(whole[i : i + len(part)] == part for i in range(len(whole)))


def main() -> None:
    """Prints a line for each template."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--thinking", default="off", choices=("off", "on"))
    args = parser.parse_args()
    for file in args.files:
        print(asdict(check(file, args.tokenizer, args.thinking)), flush=True)


if __name__ == "__main__":
    main()
