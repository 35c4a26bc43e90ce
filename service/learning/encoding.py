"""Lessons as tokens: prompts have those that the engine gives the model, texts those that were sampled, with the end
token."""

from collections.abc import Sequence
from typing import Any

from service.engines.base import Completion
from service.engines.tokenization import ChatTokenizer
from service.learning.exercises import Exercise
from service.learning.lessons import BestText, LessonPair

NOT_SHOWN = -100
"""The label of a token that has no loss."""


class Encoder:
    """Encodes lessons.

    tokenizer: the base's. max_length: of a prompt with its text, in tokens; what is longer is left out.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self._chat = ChatTokenizer(tokenizer)
        self._end = tokenizer.eos_token_id
        self._max_length = max_length

    def prompt(self, lesson: BestText | LessonPair | Exercise) -> list[int]:
        return self._chat.prompt_ids(lesson.prompt.conversation, thinking=False)

    def reply(self, text: str, ids: Sequence[int] | None) -> list[int]:
        return [*(self._chat.encode(text) if ids is None else ids), self._end]

    def attempt(self, completion: Completion) -> list[int]:
        """A text with the end token, unless it was cut."""
        ids = self.reply(completion.text, completion.token_ids)
        return ids if completion.finish_reason == "stop" else ids[:-1]

    def texts(self, lessons: Sequence[BestText]) -> list[dict[str, list[int]]]:
        rows = []
        for lesson in lessons:
            prompt, reply = self.prompt(lesson), self.reply(lesson.text, lesson.token_ids)
            if len(prompt) + len(reply) <= self._max_length:
                rows.append({"input_ids": prompt + reply, "labels": [NOT_SHOWN] * len(prompt) + reply})
        return rows

    def pairs(self, lessons: Sequence[LessonPair]) -> list[dict[str, list[int]]]:
        rows = []
        for lesson in lessons:
            row = {
                "prompt_ids": self.prompt(lesson),
                "chosen_ids": self.reply(lesson.chosen, lesson.chosen_ids),
                "rejected_ids": self.reply(lesson.rejected, lesson.rejected_ids),
            }
            if len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) <= self._max_length:
                rows.append(row)
        return rows

    def exercises(self, exercises: Sequence[Exercise], max_tokens: int) -> Sequence[Exercise]:
        """Those that leave room for a text."""
        return [each for each in exercises if len(self.prompt(each)) + max_tokens <= self._max_length]
