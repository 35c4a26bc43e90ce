"""An OTLP/HTTP receiver on loopback: decodes the spans that it is sent, and keeps the bytes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SentSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.support.listener import Answer, Listener, answered, listening


@dataclass(frozen=True)
class ReceivedSpan:
    """``parent``: an id, empty for a trace's first span. ``failed``: whether the status says so."""

    name: str
    trace: str
    id: str
    parent: str
    client: bool
    failed: bool
    message: str
    attributes: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any]]]
    began: int
    ended: int


@dataclass(frozen=True)
class Collector:
    listener: Listener

    @property
    def bodies(self) -> Sequence[bytes]:
        return [request.body for request in self.listener.requests]

    @property
    def spans(self) -> Sequence[ReceivedSpan]:
        """All that were sent, in the order in which they began."""
        found = [
            _span(span)
            for message in self._messages()
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        return sorted(found, key=lambda span: span.began)

    @property
    def resource(self) -> Mapping[str, Any]:
        """Who sent."""
        return _attributes(self._messages()[0].resource_spans[0].resource.attributes)

    @property
    def schema_url(self) -> str:
        """That of the names of the attributes."""
        return str(self._messages()[0].resource_spans[0].scope_spans[0].schema_url)

    def named(self, name: str) -> Sequence[ReceivedSpan]:
        return [span for span in self.spans if span.name == name]

    def below(self, parent: ReceivedSpan) -> Sequence[ReceivedSpan]:
        return [span for span in self.spans if span.parent == parent.id]

    def _messages(self) -> Sequence[ExportTraceServiceRequest]:
        return [ExportTraceServiceRequest.FromString(body) for body in self.bodies]


@asynccontextmanager
async def collecting(monkeypatch: pytest.MonkeyPatch, answer: Answer | None = None) -> AsyncIterator[Collector]:
    """A collector that apps made meanwhile send to. Once an app has ended, all of its spans are here."""
    async with listening(answer or answered(b"", 200, "Content-Type: application/x-protobuf")) as listener:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{listener.port}")
        yield Collector(listener)


def _span(sent: SentSpan) -> ReceivedSpan:
    return ReceivedSpan(
        name=sent.name,
        trace=sent.trace_id.hex(),
        id=sent.span_id.hex(),
        parent=sent.parent_span_id.hex(),
        client=sent.kind == SentSpan.SPAN_KIND_CLIENT,
        failed=sent.status.code == Status.STATUS_CODE_ERROR,
        message=sent.status.message,
        attributes=_attributes(sent.attributes),
        events=[(event.name, _attributes(event.attributes)) for event in sent.events],
        began=sent.start_time_unix_nano,
        ended=sent.end_time_unix_nano,
    )


def _attributes(pairs: Sequence[KeyValue]) -> Mapping[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind or "string_value")
