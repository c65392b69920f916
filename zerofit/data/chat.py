"""Dialogues as tokens, and which of them are learnt: what assistants say, to the end of their turns.

Which these are is said by the template itself, by `{% generation %}`. One that does not is replaced by TRL's version of
it that does, where TRL knows it; else each turn is found as what it adds to the turns before it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from zerofit.config.errors import UserError
from zerofit.prepare.rows import Example, Message

MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
THOUGHT = re.compile(r"\s*<think>(.*?)</think>\s*", re.DOTALL)
THINK = "<think>"
FIELD = re.compile(r"""(\.|\[['"])(reasoning_content|thinking)\b""")
"""How templates name what an assistant thinks, where they take it apart from what it says."""
TEMPLATE = "model.chat_template"
REMEDY = "name another one in model.chat_template, for example chatml"

Span = tuple[int, int]
"""Characters, from and to."""


@dataclass(frozen=True)
class Encoded:
    """A dialogue, or a document."""

    tokens: NDArray[np.int32]
    learnt: NDArray[np.bool_]
    """False for the first token, which nothing predicts."""


class Chat:
    """A tokenizer with its chat template. Raises UserError where it has none."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self.name = tokenizer.name_or_path or "bytes"
        self._written = self._own()
        special = {id: one.content for id, one in tokenizer.added_tokens_decoder.items() if one.special}
        self._ends, self._end_ids = tuple(special.values()), frozenset(special)
        probe = [Message("user", "a")]
        asked = self._render(probe, None, self._written, TEMPLATE, begun=True)
        begun = asked.removeprefix(self._render(probe, None, self._written, TEMPLATE))
        self.header = begun.partition(THINK)[0] if begun != asked else ""
        """How a turn of the assistant begins, before anything that it says."""

    @cached_property
    def _taught(self) -> str:
        """The template that dialogues to learn from are written by."""
        marked = MARKED.search(self._written) is not None
        return self._written if marked else self._known() or self._written

    def encode(self, examples: Sequence[Example], where: Sequence[str]) -> list[Encoded]:
        """Dialogues to learn from; `where` is what messages call them. Raises UserError."""
        if not examples:
            return []
        found = [self._spans(*one) for one in zip(examples, where, strict=True)]
        encodings = self.tokenizer(
            [text for text, _ in found],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        return [
            self._encoded(text, spans, tokens, offsets)
            for (text, spans), tokens, offsets in zip(
                found, encodings["input_ids"], encodings["offset_mapping"], strict=True
            )
        ]

    def prompts(self, examples: Sequence[Example], where: Sequence[str]) -> list[NDArray[np.int32]]:
        """The turns before the last of the assistant, and the beginning of that one. Raises UserError."""
        if not examples:
            return []
        texts = [
            self._render(one.prompt, one.tools, self._written, place, begun=True)
            for one, place in zip(examples, where, strict=True)
        ]
        encodings = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return [np.asarray(tokens, dtype=np.int32) for tokens in encodings["input_ids"]]

    def end_of_turn(self) -> int | None:
        """The token that ends what the assistant says; null where the template writes none."""
        probe = Example((Message("user", "a"), Message("assistant", "b")))
        (found,) = self.encode([probe], [TEMPLATE])
        last = int(found.tokens[found.learnt][-1])
        return last if last in self._end_ids else None

    def _own(self) -> str:
        try:
            return str(self.tokenizer.get_chat_template())
        except ValueError:
            raise UserError(
                f"model.chat_template: the tokenizer {self.name} has no chat template; name one, for example chatml"
            ) from None

    def _known(self) -> str | None:
        """TRL's version of the template, for learning; null where it has none."""
        from trl.chat_template_utils import get_training_chat_template  # seconds of import

        try:
            return get_training_chat_template(self.tokenizer)
        except Exception:  # ValueError where it knows none; templates raise what they like at what it tries them with
            return None

    def _spans(self, example: Example, where: str) -> tuple[str, list[Span]]:
        """The text of a dialogue, and where in it is what is learnt."""
        marked = MARKED.search(self._taught) is not None
        text, spans = (self._marks if marked else self._additions)(example, where)
        spans = [span for span in (self._trimmed(text, *span) for span in spans) if span[0] < span[1]]
        last = next(one.content for one in reversed(example.messages) if one.role == "assistant")
        thought = THOUGHT.match(last)
        if thought and not any(thought[1].strip() in text[start:end] for start, end in spans):
            raise UserError(
                f"{where}: the chat template of {self.name} leaves out what the assistant thinks, which is to be "
                f"learnt; {REMEDY}"
            )
        if spans and not text[spans[-1][1] :].strip() and not text[slice(*spans[-1])].endswith(self._ends):
            text = text[: spans[-1][1]]  # an end will be put there
        return text, spans

    def _marks(self, example: Example, where: str) -> tuple[str, list[Span]]:
        spans: list[Span] = []
        text = self._render(example.messages, example.tools, self._taught, where, spans=spans)
        return text, spans

    def _additions(self, example: Example, where: str) -> tuple[str, list[Span]]:
        text = self._render(example.messages, example.tools, self._taught, where)
        spans: list[Span] = []
        before = ""
        for i, message in enumerate(example.messages):
            if message.role != "assistant":
                continue
            if i > 0:
                before = self._render(example.messages[:i], example.tools, self._taught, where)
            after = self._render(example.messages[: i + 1], example.tools, self._taught, where)
            start = after.find(self.header) if i == 0 else len(before)
            if not (after.startswith(before) and text.startswith(after) and after.startswith(self.header, start)):
                raise UserError(
                    f"{where}: turn {i + 1} cannot be told apart in what the chat template of {self.name} writes, "
                    "which has no {% generation %} and writes a turn otherwise when others follow; " + REMEDY
                )
            spans.append((start, len(after)))
        return text, spans

    def _trimmed(self, text: str, start: int, end: int) -> Span:
        """Without the header, and without white space behind a token that ends the turn."""
        for inside in range(len(self.header)):  # TRL's mark some templates' from amid the header on
            if text.startswith(self.header, max(0, start - inside), end):
                start += len(self.header) - inside
                break
        bare = text[start:end].rstrip()
        ends = len(bare) < end - start and bare.endswith(self._ends)
        return start, start + len(bare) if ends else end

    def _encoded(self, text: str, spans: list[Span], tokens: list[int], offsets: list[Span]) -> Encoded:
        starts, ends = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
        learnt = np.zeros(len(tokens), dtype=np.bool_)
        for start, end in spans:
            learnt |= (ends > start) & (starts < end)
        if spans and spans[-1][1] == len(text) and tokens[-1] not in self._end_ids:  # it would never learn to stop
            tokens, learnt = [*tokens, int(self.tokenizer.eos_token_id)], np.append(learnt, True)
        learnt[:1] = False
        return Encoded(np.asarray(tokens, dtype=np.int32), learnt)

    def _render(
        self,
        messages: Sequence[Message],
        tools: str | None,
        template: str,
        where: str,
        *,
        begun: bool = False,
        spans: list[Span] | None = None,
    ) -> str:
        """The turns as the template writes them; `spans` takes what it marks."""
        turns = [_turn(message, FIELD.search(template) is not None) for message in messages]
        asked: dict[str, Any] = {**self.tokenizer.special_tokens_map, "add_generation_prompt": begun}
        try:
            rendered: Any = render_jinja_template(
                [turns],
                tools=_tools(tools),  # type: ignore[arg-type]  # a list is not to be of less
                chat_template=template,
                return_assistant_tokens_mask=spans is not None,
                **asked,
            )
        except Exception as error:  # templates raise what they like: two users in a row, a role that they lack
            reason = " ".join(str(error).split()) or type(error).__name__
            raise UserError(f"{where}: the chat template of {self.name} refuses it: {reason[:200]}; {REMEDY}") from None
        if spans is not None:
            spans.extend((start, end) for start, end in rendered[1][0])
        return str(rendered[0][0])


def _turn(message: Message, apart: bool) -> dict[str, str]:
    """As templates take it; `apart` puts what an assistant thinks into a field of its own."""
    thought = THOUGHT.match(message.content) if apart and message.role == "assistant" else None
    if thought is None:
        return message._asdict()
    said = message.content[thought.end() :]
    return {"role": message.role, "reasoning_content": thought[1].strip("\n"), "content": said}


def _tools(text: str | None) -> list[dict[str, Any]] | None:
    if text is None:
        return None
    try:
        tools = json.loads(text)
    except ValueError:
        return None
    return tools if isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools) else None
