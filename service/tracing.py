"""Traces by OpenTelemetry, sent to a collector over OTLP/HTTP. Nothing else imports it, and this only where it is on.

Where to, how often and how much is set by OpenTelemetry's own variables (``OTEL_*``), which the SDK reads. Neither its
global provider nor its context is used: the engine in this process has them to itself.
"""

import asyncio
from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span as RecordedSpan
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from service.spans import Attributes, Span

FLUSH_SECONDS = 5.0
"""For the last spans of a service that ends. A request to the collector that is under way by then may still take as
long as OTEL_EXPORTER_OTLP_TIMEOUT says."""

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
"""Of the names without ``gen_ai.``. Those have conventions of their own, whose schema has no stable address yet."""

W3C = TraceContextTextMapPropagator()


class Tracing:
    """A Tracer whose spans go to a collector. ``providers``: what serves each model, for ``gen_ai.provider.name``.

    ValueError where a variable of OpenTelemetry's has no sense.
    """

    def __init__(self, providers: Mapping[str, str]) -> None:
        stated = OTELResourceDetector().detect().attributes
        resource = Resource.create({SERVICE_NAME: stated.get(SERVICE_NAME, "redraft")})
        self._exporter: SpanExporter = OTLPSpanExporter()
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("redraft", schema_url=SCHEMA_URL)
        self._providers = providers

    def request(self, method: str, headers: Mapping[str, str], attributes: Attributes) -> Span:
        """Headers that are no trace context are ignored; the sampler heeds whether the caller's span was sampled."""
        span = self._tracer.start_span(method, W3C.extract(headers, Context()), SpanKind.SERVER, _known(attributes))
        return TracedSpan(span, self._tracer, self._providers)

    async def close(self) -> None:
        flushing = asyncio.ensure_future(asyncio.to_thread(self._provider.shutdown))
        _, late = await asyncio.wait([flushing], timeout=FLUSH_SECONDS)
        if late:
            self._exporter.shutdown()  # no further attempt
        await flushing


class TracedSpan:
    def __init__(self, span: RecordedSpan, tracer: Tracer, providers: Mapping[str, str]) -> None:
        self._span = span
        self._tracer = tracer
        self._providers = providers
        self._context = set_span_in_context(span, Context())

    @property
    def ids(self) -> Mapping[str, str]:
        context = self._span.get_span_context()
        return {"trace_id": format_trace_id(context.trace_id), "span_id": format_span_id(context.span_id)}

    @property
    def headers(self) -> Mapping[str, str]:
        headers: dict[str, str] = {}
        W3C.inject(headers, self._context)
        return headers

    def begin(self, name: str, attributes: Attributes, model: str | None) -> Span:
        kind = SpanKind.INTERNAL
        if model is not None:
            kind = SpanKind.CLIENT
            provider = self._providers.get(model)
            attributes = {"gen_ai.request.model": model, "gen_ai.provider.name": provider, **attributes}
        span = self._tracer.start_span(name, self._context, kind, _known(attributes))
        return TracedSpan(span, self._tracer, self._providers)

    def rename(self, name: str) -> None:
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        self._span.set_attributes(_known(attributes))

    def add_event(self, name: str, attributes: Attributes) -> None:
        self._span.add_event(name, _known(attributes))

    def fail(self, kind: str) -> None:
        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR))

    def end(self) -> None:
        self._span.end()


def _known(attributes: Attributes) -> dict[str, AttributeValue]:
    return {name: value for name, value in attributes.items() if value is not None}
