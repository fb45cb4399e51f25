"""Chat templates as text: from turns to what a tokenizer's template makes of them.

Templates differ in what they accept. Found out once, when `ChatTemplate` is made: whether there is
a system role, whether content is a text or a list of parts, and where a template puts what was
thought before an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from ..action_format import CLOSED, OPENED
from ..conversation import Conversation, Turn

if TYPE_CHECKING:  # transformers takes seconds to import, and only the tokenizer's owner needs it
    from transformers import PreTrainedTokenizerBase

Thinking = Literal["off", "on"]

TODAY = datetime(2026, 1, 1)
"""The date that templates are told, or the same conversation would read differently tomorrow."""

PROBE = (
    Turn("system", "Probe seven: act."),
    Turn("user", "You are in a room. There is a door."),
    Turn("assistant", "open the door"),
    Turn("user", "The door is open."),
    Turn("assistant", "go north"),
    Turn("user", "Nothing happens."),
    Turn("assistant", "look"),
)
"""A conversation that shows what a template does."""

_THOUGHT = "First the door, then north."
_DATE = (
    "{%- macro strftime_now(format) -%}{{- format "
    + " ".join(f"| replace('%{c}', '{TODAY.strftime(f'%{c}')}')" for c in "aAbBcdHIjmMpSUwWxXyYZ")
    + " -}}{%- endmacro -%}"
)
"""In front of a template: what it asks for the date, since transformers hands no function over."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What a template writes around an answer, behind its prompt.

    What stands between prompt and answer is never up to the model: it is fed, not sampled.
    """

    opening: str
    """Before the answer."""
    closing: str
    """After the answer."""


@dataclass(frozen=True, slots=True)
class ThoughtFrame:
    """What a template writes around thoughts, behind its prompt."""

    opening: str
    between: str
    """Between thoughts and answer."""


class ChatTemplate:
    """Renders conversations.

    Args:
        tokenizer: any transformers tokenizer.
        source: a Jinja template to use instead of the tokenizer's own.
        arguments: further arguments of the template.
        thinking: whether the model is to think before it answers. Templates that have a switch
            for it get it (``enable_thinking``, ``thinking``), unless `arguments` say otherwise.

    Raises:
        ValueError: there is no template, it cannot be rendered, or it has no place for thoughts.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        source: str | None = None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
        thinking: Thinking = "off",
    ) -> None:
        self._tokenizer: Any = tokenizer  # its call signature is far too wide to be checked
        self.name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
        """What to call it in messages."""
        if source is None and not getattr(tokenizer, "chat_template", None):
            raise ValueError(
                f"tokenizer {self.name} has no chat template: use an instruction-tuned model, or "
                "pass chat_template="
            )
        own = tokenizer.get_chat_template() if source is None else source
        self._source = (_DATE if "strftime_now" in own else "") + own
        if thinking not in ("off", "on"):
            raise ValueError(f"thinking is {thinking!r}; it is 'off' or 'on'")
        switch = thinking == "on"
        self.thinking = thinking
        self._arguments = {
            "enable_thinking": switch,
            "thinking": switch,
            **arguments,
        }
        self.takes_parts = False
        self.folds_system = False
        self._find_out()
        self._check_date()
        self.thoughts = self._find_thoughts() if switch else None
        """Where thoughts go; None where there are to be none."""

    def render(self, turns: Conversation, generation_prompt: bool = False) -> str:
        """The text of a conversation.

        Args:
            turns: system turn, then user and assistant turns.
            generation_prompt: append what tells the model that its turn has come.

        Raises:
            ValueError: the template refuses these turns.
        """
        try:
            return self._apply(self._messages(turns), generation_prompt)
        except Exception as error:  # raise_exception and undefined names have Jinja's own types
            raise ValueError(
                f"chat template of {self.name} cannot write {len(turns)} turns, the last of them a "
                f"{turns[-1].role}'s: {type(error).__name__}: {error}"
            ) from None

    def frame(self, before: Conversation, answer: Turn) -> Frame:
        """What the template writes around an answer that has no thoughts.

        Args:
            before: the conversation up to the user turn that is answered.
            answer: with text.
        """
        prompt = self.render(before, True)
        bare = Turn("assistant", answer.text)
        last = self.render((*before, bare))
        onward = self.render((*before, bare, PROBE[3]))
        text = bare.text if bare.text in last else bare.text.strip()
        at = last.rfind(text)
        opening = last[len(prompt) : at] if last.startswith(prompt) and at >= len(prompt) else ""
        if not opening and _opens_thoughts(prompt):
            # The prompt begins with thoughts and the template leaves no empty ones: end them.
            opening = f"{CLOSED}\n\n"
        closing = last[at + len(text) :] if at >= 0 else ""
        if not closing.strip():  # the end of a turn is the beginning of the next
            closing = onward[onward.rfind(text, 0, onward.rfind(PROBE[3].text)) + len(text) :]
        return Frame(opening, closing)

    def _messages(self, turns: Conversation) -> list[dict[str, Any]]:
        listed: list[Turn] = list(turns)
        if self.folds_system and listed[0].role == "system":
            folded = f"{listed[0].text}\n\n{listed[1].text}" if len(listed) > 1 else listed[0].text
            listed[:2] = [Turn("user", folded)]
        return [self._message(turn) for turn in listed]

    def _message(self, turn: Turn) -> dict[str, Any]:
        content: Any = [{"type": "text", "text": turn.text}] if self.takes_parts else turn.text
        message: dict[str, Any] = {"role": turn.role, "content": content}
        if turn.reasoning:  # families call it by different names and ignore the others
            message |= {"reasoning_content": turn.reasoning, "thinking": turn.reasoning}
        return message

    def _apply(self, messages: Sequence[Mapping[str, Any]], generation_prompt: bool) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages,
            chat_template=self._source,
            tokenize=False,
            add_generation_prompt=generation_prompt,
            **self._arguments,
        )
        return text

    def _find_out(self) -> None:
        """Finds the form of messages in which every text of the probe is written."""
        reasons = []
        for self.takes_parts in (False, True):
            for self.folds_system in (False, True):
                try:
                    text = self._apply(self._messages(PROBE), False)
                except Exception as error:  # as in `render`
                    reasons.append(f"{type(error).__name__}: {error}")
                    continue
                missing = [turn.text for turn in PROBE if turn.text not in text]
                if not missing:
                    return
                reasons.append(f"it leaves out {missing[0]!r}")
        raise ValueError(
            f"chat template of {self.name} cannot write a conversation of system, user and "
            f"assistant turns ({reasons[0]}): pass chat_template= another one"
        )

    def _check_date(self) -> None:
        now, text = datetime.now(), self._apply(self._messages(PROBE), False)
        for pattern in ("%d %b %Y", "%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%d/%m/%Y"):
            if now.strftime(pattern) in text:
                raise ValueError(
                    f"chat template of {self.name} writes today's date into the prompt and does "
                    "not ask strftime_now for it, so that tomorrow the same conversation would "
                    "read differently: pass chat_template= one without, or template arguments "
                    "that set the date"
                )

    def _find_thoughts(self) -> ThoughtFrame:
        asked = self.render(PROBE[:4], True)
        thought = Turn("assistant", PROBE[4].text, reasoning=_THOUGHT)
        last = self.render((*PROBE[:4], thought))
        opened = _opens_thoughts(asked)
        if last.startswith(asked) and _THOUGHT in last[len(asked) :]:
            before, _, after = last[len(asked) :].partition(_THOUGHT)
            return ThoughtFrame(before, after.partition(thought.text)[0])
        if opened or CLOSED in self._source:
            return ThoughtFrame("" if opened else f"{OPENED}\n", f"\n{CLOSED}\n\n")
        raise ValueError(
            f"chat template of {self.name} has no place for thoughts: use thinking = 'off', or a "
            "model that was made to think"
        )


def _opens_thoughts(prompt: str) -> bool:
    """Whether a prompt ends within thoughts."""
    return prompt.rfind(OPENED) > prompt.rfind(CLOSED)
