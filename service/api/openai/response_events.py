"""A response as OpenAI's events, each with its number."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from service.api.openai.response_bodies import (
    Failure,
    ItemIds,
    OutputCall,
    OutputItem,
    OutputMessage,
    OutputReasoning,
    OutputText,
    ReasoningContent,
    ResponseBody,
    Status,
    finish_body,
)
from service.engines.relay import CallPiece, MessagePiece
from service.refinement.events import Delta, Done, Event, ReasoningDelta, Refined
from service.wire.responses import sse_event
from service.wire.sse import event_frame

Named = tuple[str, dict[str, Any]]
"""An event's type and its other fields, but for its number."""


@dataclass
class OpenItem:
    """An item that is being written. ``written``: its text or its arguments so far."""

    item: OutputItem
    index: int
    written: str = ""

    @property
    def at(self) -> dict[str, Any]:
        return {"item_id": self.item.id, "output_index": self.index}

    @property
    def at_part(self) -> dict[str, Any]:
        return {**self.at, "content_index": 0}

    def begin(self) -> Iterator[Named]:
        yield "response.output_item.added", {"output_index": self.index, "item": self.item.model_dump()}
        if not isinstance(self.item, OutputCall):
            yield "response.content_part.added", {**self.at_part, "part": self._part("")}

    def add(self, piece: str) -> Iterator[Named]:
        self.written += piece
        match self.item:
            case OutputCall():
                yield "response.function_call_arguments.delta", {**self.at, "delta": piece}
            case OutputReasoning():
                yield "response.reasoning_text.delta", {**self.at_part, "delta": piece}
            case OutputMessage():
                yield "response.output_text.delta", {**self.at_part, "delta": piece, "logprobs": []}

    def end(self, status: Status) -> Iterator[Named]:
        match self.item:
            case OutputCall():
                done = {**self.at, "name": self.item.name, "arguments": self.written}
                yield "response.function_call_arguments.done", done
                whole: dict[str, Any] = {"arguments": self.written}
            case OutputReasoning():
                yield "response.reasoning_text.done", {**self.at_part, "text": self.written}
                whole = {"content": [ReasoningContent(text=self.written)]}
            case OutputMessage():
                yield "response.output_text.done", {**self.at_part, "text": self.written, "logprobs": []}
                whole = {"content": [OutputText(text=self.written)]}
        if not isinstance(self.item, OutputCall):
            yield "response.content_part.done", {**self.at_part, "part": self._part(self.written)}
        item = self.item.model_copy(update={**whole, "status": status}).model_dump()
        yield "response.output_item.done", {"output_index": self.index, "item": item}

    def _part(self, text: str) -> dict[str, Any]:
        part = ReasoningContent if isinstance(self.item, OutputReasoning) else OutputText
        return part(text=text).model_dump()


def whole_item(item: OutputItem, index: int) -> Iterator[Named]:
    """The events of an item that was written before, with its text in one piece."""
    if isinstance(item, OutputCall):
        text = item.arguments
        empty: OutputItem = item.model_copy(update={"status": "in_progress", "arguments": ""})
    else:
        text = "".join(part.text for part in item.content)
        empty = item.model_copy(update={"status": "in_progress", "content": []})
    opened = OpenItem(empty, index)
    yield from opened.begin()
    if text:
        yield from opened.add(text)
    yield from opened.end(item.status)


def told_of_response(status: str, response: ResponseBody, **more: Any) -> Named:
    """The event that tells the whole response."""
    return f"response.{status}", {"response": response.model_dump(mode="json"), **more}


def told_of_failure(failed: ResponseBody, error: Mapping[str, Any]) -> Iterator[Named]:
    """The error as an event of its own, and as the end of the response. OpenAI's SDKs look for ``error`` in the first,
    and raise it."""
    yield "error", {**{name: error[name] for name in ("code", "message", "param")}, "error": error}
    failure = Failure(message=error["message"])
    yield told_of_response("failed", failed.model_copy(update={"status": "failed", "error": failure}))


@dataclass
class ResponseFormat:
    """How a Responses request is answered, whole or in events. One serves one answer.

    begun: the response before there is any output.
    trace: whether a refine's account has its rounds.
    reasoning: the model's thoughts are always shown.
    """

    begun: ResponseBody
    trace: bool = False
    reasoning: ClassVar[bool] = True
    _sent: int = 0
    _items: int = 0
    _open: OpenItem | None = None

    def response(self, done: Done) -> ResponseBody:
        """The whole answer."""
        return finish_body(self.begun, done, trace=self.trace)

    def encode(self, event: Event) -> bytes:
        """The event as OpenAI's events; empty for one that is not shown."""
        return b"".join(map(self._frame, self._events(event)))

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        return b"".join(map(self._frame, told_of_failure(self.begun, body["error"])))

    def _frame(self, event: Named) -> bytes:
        name, fields = event
        numbered = {"type": name, "sequence_number": self._sent, **fields}
        self._sent += 1
        return event_frame(name, numbered)

    def _events(self, event: Event) -> Iterator[Named]:
        if self._sent == 0:
            yield told_of_response("created", self.begun)
            yield told_of_response("in_progress", self.begun)
        match event:
            case Done():
                yield from self._last_events(event)
            case ReasoningDelta():
                yield from self._write_thoughts(event.text)
            case Delta():
                yield from self._write_text(event.text)
            case MessagePiece():
                yield from self._write_message(event)
            case _:
                if shown := sse_event(event, reasoning=True):
                    name, data = shown
                    yield told_of_response("in_progress", self.begun, redraft={"event": name, **data})

    def _last_events(self, done: Done) -> Iterator[Named]:
        whole = self.response(done)
        if isinstance(done.outcome, Refined):  # only now is it known which text it is
            completion = done.outcome.selected.completion
            yield from self._write_thoughts(completion.thoughts or "")
            yield from self._write_text(completion.text)
        if self._items == 0:
            yield from self._begin(OutputMessage(id=self._ids.message, status="in_progress", content=[]))
        yield from self._end("completed" if whole.status == "completed" else "incomplete")
        yield told_of_response(whole.status, whole)

    def _write_message(self, piece: MessagePiece) -> Iterator[Named]:
        yield from self._write_thoughts(piece.thoughts)
        yield from self._write_text(piece.content or "")
        for call in piece.calls:
            yield from self._write_call(call)

    def _write_thoughts(self, text: str) -> Iterator[Named]:
        if text:
            yield from self._write(OutputReasoning(id=self._ids.reasoning, status="in_progress", content=[]), text)

    def _write_text(self, text: str) -> Iterator[Named]:
        if text:
            yield from self._write(OutputMessage(id=self._ids.message, status="in_progress", content=[]), text)

    def _write_call(self, call: CallPiece) -> Iterator[Named]:
        item = OutputCall(
            id=self._ids.call(call.index),
            status="in_progress",
            call_id=call.id or "",
            name=call.name or "",
            arguments="",
        )
        yield from self._write(item, call.arguments)

    def _write(self, item: OutputItem, piece: str) -> Iterator[Named]:
        """Write a piece of the item, which is begun if another one is open."""
        if self._open is None or self._open.item.id != item.id:
            yield from self._end()
            yield from self._begin(item)
        if self._open is not None and piece:
            yield from self._open.add(piece)

    def _begin(self, item: OutputItem) -> Iterator[Named]:
        self._open = OpenItem(item, self._items)
        self._items += 1
        yield from self._open.begin()

    def _end(self, status: Status = "completed") -> Iterator[Named]:
        if self._open is not None:
            yield from self._open.end(status)
        self._open = None

    @property
    def _ids(self) -> ItemIds:
        return ItemIds(self.begun.id)
