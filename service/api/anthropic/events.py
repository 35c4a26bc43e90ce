"""A message as Anthropic's events."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.api.anthropic.bodies import BlockBody, MessageBody, TextBody, ThinkingBody, ToolUseBody, finish_body
from service.engines.relay import CallPiece, MessagePiece
from service.refinement.events import Delta, Done, Event, ReasoningDelta, Refined
from service.wire.responses import sse_event
from service.wire.sse import event_frame

Named = tuple[str, dict[str, Any]]
"""An event's type and its other fields."""


@dataclass
class MessageFormat:
    """How a Messages request is answered, whole or in events. One serves one answer.

    begun: the message before there is any content.
    trace: whether a refine's account has its rounds.
    thoughts: whether the model's thoughts are shown.
    """

    begun: MessageBody
    trace: bool = False
    thoughts: bool = False
    _has_begun: bool = False
    _blocks: int = 0
    _open: object = None  # what the block that is open is a block of

    def response(self, done: Done) -> MessageBody:
        """The whole answer."""
        return finish_body(self.begun, done, trace=self.trace, thoughts=self.thoughts)

    def encode(self, event: Event) -> bytes:
        """The event as Anthropic's events; empty for one that is not shown."""
        return b"".join(event_frame(name, {"type": name, **data}) for name, data in self._events(event))

    def encode_error(self, body: Mapping[str, Any]) -> bytes:
        return event_frame("error", body)

    def _events(self, event: Event) -> Iterator[Named]:
        if not self._has_begun:
            self._has_begun = True
            yield "message_start", {"message": self.begun.model_dump(mode="json")}
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
                if shown := sse_event(event, reasoning=self.thoughts):
                    name, data = shown
                    yield "ping", {"redraft": {"event": name, **data}}  # which the SDKs skip

    def _last_events(self, done: Done) -> Iterator[Named]:
        whole = self.response(done)
        if isinstance(done.outcome, Refined):  # only now is it known which text it is
            completion = done.outcome.selected.completion
            yield from self._write_message(MessagePiece(content=completion.text, thoughts=completion.thoughts or ""))
        yield from self._end()
        redraft = {} if whole.redraft is None else {"redraft": {"event": "done", **whole.redraft}}
        stopped = {"stop_reason": whole.stop_reason, "stop_sequence": None}
        yield "message_delta", {"delta": stopped, "usage": whole.usage.model_dump(), **redraft}
        yield "message_stop", {}

    def _write_message(self, piece: MessagePiece) -> Iterator[Named]:
        yield from self._write_thoughts(piece.thoughts)
        yield from self._write_text(piece.content or "")
        for call in piece.calls:
            yield from self._write_call(call)

    def _write_thoughts(self, text: str) -> Iterator[Named]:
        if text and self.thoughts:
            yield from self._write("thinking", ThinkingBody(thinking=""), {"type": "thinking_delta", "thinking": text})

    def _write_text(self, text: str) -> Iterator[Named]:
        if text:
            yield from self._write("text", TextBody(text=""), {"type": "text_delta", "text": text})

    def _write_call(self, call: CallPiece) -> Iterator[Named]:
        body = ToolUseBody(id=call.id or "", name=call.name or "", input={})
        yield from self._write(call.index, body, {"type": "input_json_delta", "partial_json": call.arguments})

    def _write(self, kind: object, block: BlockBody, delta: Mapping[str, Any]) -> Iterator[Named]:
        """Write a piece of a block, which is begun if another one is open."""
        if self._open != kind:
            yield from self._end()
            self._open = kind
            yield "content_block_start", {"index": self._blocks, "content_block": block.model_dump()}
        yield "content_block_delta", {"index": self._blocks, "delta": delta}

    def _end(self) -> Iterator[Named]:
        if self._open is not None:
            self._open = None
            self._blocks += 1
            yield "content_block_stop", {"index": self._blocks - 1}
