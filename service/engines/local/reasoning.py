"""Thoughts by vLLM's own reasoning parsers, which know how each family of models marks them.

A parser is looked up by the name that ``--reasoning-parser`` of vLLM's server takes. ``AUTO`` names the one for
``<think>`` where the chat template shows that the model thinks, and trusts its marks alone: a reply that begins with
none, after a prompt that opens none, is an answer as a whole.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from service.engines.base import ReplyEnd, Thought
from service.engines.local.pictures import with_template
from service.engines.thoughts import AUTO, NONE, THINK, Marks, Split, Splitter, Thinking
from service.engines.tokenization import ChatTokenizer

PARSER_OF_THINK = "deepseek_r1"


class Reader(Protocol):
    """Reads one reply: Splitter, or vLLM's parser."""

    def feed(self, piece: str, ids: Sequence[int] = ()) -> list[str | Thought]:
        """What a piece and its token ids make certain."""

    def end(self, finish_reason: ReplyEnd) -> tuple[list[str | Thought], Split]:
        """The rest, and the whole."""


def parser_name(arguments: Any, stated: Thinking) -> str:
    """The name of vLLM's parser for the model of ``AsyncEngineArgs``, empty where it needs none."""
    if stated.parser != AUTO:
        return "" if stated.parser == NONE else stated.parser
    from vllm.tokenizers import cached_tokenizer_from_config

    model_config = arguments.create_model_config()
    tokenizer = cached_tokenizer_from_config(model_config)
    habit = ChatTokenizer(tokenizer, with_template(stated, tokenizer, model_config)).habit
    known = habit.marks == THINK and set(THINK) <= tokenizer.get_vocab().keys()
    return PARSER_OF_THINK if habit.thinks and known else ""


class Reasoning:
    """A model's parser. ``raw``: the text that it reads has special tokens in it. ``marks``: those around thoughts,
    where there are two that are always the same."""

    def __init__(self, name: str, tokenizer: Any, model_config: Any, stated: Thinking) -> None:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.parser import ParserManager

        self._tokenizer = tokenizer
        self._variables = dict(stated.variables)
        self._model_config = model_config
        self._trusting = stated.parser != AUTO
        self._kind: Any = ParserManager.get_parser(
            reasoning_parser_name=name,
            model_name=model_config.model,
            is_harmony=model_config.hf_config.model_type == "gpt_oss",
            tokenizer=tokenizer,
        )
        parser = self._parser()
        self._request = parser.adjust_request(ChatCompletionRequest(messages=[], model=""))
        self.raw = not self._request.skip_special_tokens
        start, end = parser.reasoning_parser.reasoning_start_str, parser.reasoning_parser.reasoning_end_str
        self.marks = Marks(start, end) if start and end else None

    def request_arguments(self, prompt_ids: Sequence[int]) -> Mapping[str, Any]:
        """What the engine has to know where a grammar begins after the thoughts."""
        ended = self._parser().is_reasoning_end(list(prompt_ids))
        return {"reasoning_ended": ended, "reasoning_parser_kwargs": {"chat_template_kwargs": self._variables}}

    def count(self, sampled: Sequence[int]) -> int:
        """The tokens of a reply's thoughts, as the parser counts them."""
        count: int = self._parser().count_reasoning_tokens(list(sampled))
        return count

    def reader(self, prompt_ids: Sequence[int], opened: bool, plain: Splitter, *, whole: bool) -> Reader:
        """For one reply. ``opened``: the prompt has begun its thoughts. ``plain``: reads one that has none. ``whole``:
        the reply comes in one piece, which some parsers split rightly only if they are asked for it."""
        parser = self._parser()
        if parser.is_reasoning_end(list(prompt_ids)):
            return plain
        start = None if opened or self._trusting or self.marks is None else self.marks.start
        kind = _WholeReply if whole else _StreamedReply
        reply = kind(parser, self._request, list(prompt_ids), self.marks or THINK, start, plain)
        reply.unended = opened and self.marks is not None
        return reply

    def _parser(self) -> Any:
        return self._kind(
            self._tokenizer, None, chat_template_kwargs=dict(self._variables), model_config=self._model_config
        )


class _StreamedReply:
    """``start``: the mark with which thoughts have to begin; None where the parser decides. ``unended``: the prompt has
    begun the thoughts, so that a reply without the mark at their end is all thoughts."""

    unended = False

    def __init__(
        self, parser: Any, request: Any, prompt_ids: list[int], marks: Marks, start: str | None, plain: Splitter
    ) -> None:
        self._parser = parser
        self._request = request
        self._prompt_ids = prompt_ids
        self._marks = marks
        self._start = start
        self._plain = plain
        self._thinks = None if start else True
        self._waiting = ""
        self._ids: list[int] = []
        self._sampled = list[int]()
        self._thoughts = ""
        self._answer = Splitter.after(marks, plain.asked)

    def feed(self, piece: str, ids: Sequence[int] = ()) -> list[str | Thought]:
        self._waiting += piece
        self._ids += ids
        if self._thinks is None and not self._decided():
            return []
        piece, self._waiting, ids, self._ids = self._waiting, "", self._ids, []
        return self._parse(piece, ids) if self._thinks else self._plain.feed(piece)

    def end(self, finish_reason: ReplyEnd) -> tuple[list[str | Thought], Split]:
        if not self._thinks:
            pieces = self._plain.feed(self._waiting)
            last, split = self._plain.end(finish_reason)
            return pieces + last, split
        pieces = self._parse("", [], finished=True)
        last, answer = self._answer.end(finish_reason)
        thoughts = self._thoughts.removeprefix(self._start or "").strip()
        if answer.thoughts:
            thoughts = f"{thoughts}\n\n{answer.thoughts}"
        ended = answer.text or self._parser.is_reasoning_end([*self._prompt_ids, *self._sampled])
        return pieces + last, Split(answer.text, thoughts, answer.finish_reason if ended else "length")

    def _decided(self) -> bool:
        start, begun = self._start or "", self._waiting.lstrip()
        if len(begun) < len(start) and start.startswith(begun):
            return False
        self._thinks = begun.startswith(start)
        return True

    def _parse(self, piece: str, ids: Sequence[int], *, finished: bool = False) -> list[str | Thought]:
        self._sampled += ids
        delta = self._parser.parse_delta(piece, list(ids), self._request, self._prompt_ids, finished=finished)
        return [] if delta is None else self._split(delta.reasoning, delta.content)

    def _split(self, thoughts: str | None, content: str | None) -> list[str | Thought]:
        made: list[str | Thought] = []
        if thoughts:
            self._thoughts += thoughts
            made.append(Thought(thoughts))
        return made + self._answer.feed(content or "")


class _WholeReply(_StreamedReply):
    """A reply in one piece."""

    def _parse(self, piece: str, ids: Sequence[int], *, finished: bool = False) -> list[str | Thought]:
        if finished:
            return []
        self._sampled += ids
        if self.unended and self._marks.end not in piece:
            return self._split(piece, None)
        thoughts, content, _ = self._parser.parse(piece, self._request, model_output_token_ids=list(ids))
        return self._split(thoughts, content)
