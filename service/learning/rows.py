"""Lessons as the rows that trainers read.

- ``trl``: TRL's prompt-completion format for the best texts and its preference format for the pairs
  (https://huggingface.co/docs/trl/dataset_formats)
- ``openai``: OpenAI's formats for supervised fine-tuning and for direct preference optimization
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from service.learning.lessons import BestText, LessonPair
from service.learning.prompts import Prompt

Format = Literal["trl", "openai"]
Row = Mapping[str, Any]


def to_trl(texts: Sequence[BestText], pairs: Sequence[LessonPair]) -> Iterator[Row]:
    for lesson in texts:
        yield {"prompt": _messages(lesson.prompt), "completion": [_reply(lesson.text)]}
    for pair in pairs:
        prompt = _messages(pair.prompt)
        yield {"prompt": prompt, "chosen": [_reply(pair.chosen)], "rejected": [_reply(pair.rejected)]}


def to_openai(texts: Sequence[BestText], pairs: Sequence[LessonPair]) -> Iterator[Row]:
    for lesson in texts:
        yield {"messages": [*_messages(lesson.prompt), _reply(lesson.text)]}
    for pair in pairs:
        yield {
            "input": {"messages": _messages(pair.prompt)},
            "preferred_output": [_reply(pair.chosen)],
            "non_preferred_output": [_reply(pair.rejected)],
        }


FORMATS: Mapping[Format, Callable[[Sequence[BestText], Sequence[LessonPair]], Iterator[Row]]] = MappingProxyType(
    {"trl": to_trl, "openai": to_openai}
)


def _messages(prompt: Prompt) -> list[Mapping[str, str]]:
    return [message.model_dump() for message in prompt.messages]


def _reply(text: str) -> Mapping[str, str]:
    return {"role": "assistant", "content": text}
