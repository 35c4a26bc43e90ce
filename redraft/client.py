"""The client. It shares everything but the waiting with the one for asyncio: see exchange.py, answers.py, events.py and
batches.py."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Literal, Self, TypeVar, Unpack, overload
from urllib.parse import quote

import httpx

from redraft.adapters import AdapterMethods
from redraft.answers import make_refusal, map_httpx_errors, parse
from redraft.batches import BatchResult, BatchResults
from redraft.errors import ConnectionFailed, ProblemError
from redraft.events import GenerateEvent, GenerateEvents, RefineEvent, RefineEvents
from redraft.exchange import DEFAULT_TIMEOUT_SECONDS, DEFAULT_URL, Exchange, StreamReader, make_client
from redraft.jobs import Job, JobList, JobStatus, job_list_path, prefer_background, read_accepted, result_of
from redraft.learning import LearningMethods
from redraft.requests import BatchLine, CritiqueFields, GenerateFields, RefineFields
from redraft.results import (
    CritiqueResult,
    GenerateResult,
    Model,
    ModelList,
    RefineResult,
    Result,
    TaskList,
    TaskSummary,
)
from redraft.traces import TraceMethods

R = TypeVar("R", bound=Result)
E = TypeVar("E")


class Redraft(AdapterMethods, LearningMethods, TraceMethods):
    """A client of one service. Threads may share it.

    base_url: where the service is, with or without ``/v1``.
    api_key: the bearer key, if the service requires one.
    timeout: how many seconds the service may be silent; None for no limit.
    retries: how often a request is sent again if the service is busy or cannot be reached. With an ``idempotency_key``
        also if the connection was cut.
    http_client: an ``httpx.Client`` to use, for certificates, proxies and the like. It is not closed.
    sleep: waits between two tries.

    Methods raise RedraftError if there is no result; errors.py has the tree of errors. Fields of requests are keyword
    arguments: redraft.requests has their types, and docs/reference/api.md describes them.

    >>> with Redraft("http://127.0.0.1:8000") as client:
    ...     result = client.refine(prompt="Describe a sunrise over the sea.")
    ...     print(result.text)
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
        retries: int = 2,
        http_client: httpx.Client | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._exchange = Exchange(base_url, api_key, timeout, retries)
        self._client = http_client or make_client(httpx.Client, base_url)
        self._owns_client = http_client is None
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. A ``with`` block does it.

        >>> client.close()
        """
        if self._owns_client:
            self._client.close()

    @overload
    def generate(
        self, *, background: Literal[False] = ..., idempotency_key: str | None = ..., **fields: Unpack[GenerateFields]
    ) -> GenerateResult: ...

    @overload
    def generate(
        self,
        *,
        background: Literal[True],
        notify: str | None = ...,
        idempotency_key: str | None = ...,
        **fields: Unpack[GenerateFields],
    ) -> Job[GenerateResult]: ...

    def generate(
        self,
        *,
        background: bool = False,
        notify: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResult | Job[GenerateResult]:
        """Write texts for one prompt or several.

        prompt: a string, or several for independent texts. Or ``messages``: a conversation.
        n: texts for each prompt.
        sampling: temperature, max_tokens, seed and so on.
        response_schema: a JSON Schema that the texts must fit.
        reasoning: whether to return what the model thinks first.
        task, parameters, model: which task, its parameters, and which model.
        store: whether to store the whole account of it, where the operator allows that.
        background: return a job at once, and let the service work.
        notify: with ``background``, a URL to which the service sends a signed notice when the job has ended. The
            service's operator decides which URLs it may be.
        idempotency_key: makes the request safe to send again. The service works on it once, and the client also sends
            it again if the connection was cut. Use a fresh one for each request, such as ``str(uuid4())``.

        >>> result = client.generate(prompt=["Why is the sky blue?", "Why is the sea salty?"], n=2)
        >>> [choice.text for choice in result.choices]
        """
        if background:
            return self._begin(GenerateResult, "generate", fields, idempotency_key, notify)
        return self._request(GenerateResult, "POST", "generate", fields, idempotency_key)

    @overload
    def critique(
        self, *, background: Literal[False] = ..., idempotency_key: str | None = ..., **fields: Unpack[CritiqueFields]
    ) -> CritiqueResult: ...

    @overload
    def critique(
        self,
        *,
        background: Literal[True],
        notify: str | None = ...,
        idempotency_key: str | None = ...,
        **fields: Unpack[CritiqueFields],
    ) -> Job[CritiqueResult]: ...

    def critique(
        self,
        *,
        background: bool = False,
        notify: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[CritiqueFields],
    ) -> CritiqueResult | Job[CritiqueResult]:
        """Evaluate a text and say what should change.

        prompt: the request that the text answers. Or ``messages``: a conversation.
        candidate: the text.
        evaluators, criteria, rubrics: what the text is checked against.
        judge: whether a model judges it by the criteria.
        feedback: whether a model writes feedback.
        sampling: how the feedback is sampled.
        task, parameters, model, models: which task, its parameters, and which models.
        store, background, notify, idempotency_key: as in ``generate``.

        >>> result = client.critique(
        ...     prompt="Capital of France?",
        ...     candidate="London.",
        ...     evaluators=[{"type": "keywords", "include": ["Paris"]}],
        ... )
        >>> result.passed, result.feedback
        """
        if background:
            return self._begin(CritiqueResult, "critique", fields, idempotency_key, notify)
        return self._request(CritiqueResult, "POST", "critique", fields, idempotency_key)

    @overload
    def refine(
        self, *, background: Literal[False] = ..., idempotency_key: str | None = ..., **fields: Unpack[RefineFields]
    ) -> RefineResult: ...

    @overload
    def refine(
        self,
        *,
        background: Literal[True],
        notify: str | None = ...,
        idempotency_key: str | None = ...,
        **fields: Unpack[RefineFields],
    ) -> Job[RefineResult]: ...

    def refine(
        self,
        *,
        background: bool = False,
        notify: str | None = None,
        idempotency_key: str | None = None,
        **fields: Unpack[RefineFields],
    ) -> RefineResult | Job[RefineResult]:
        """Draft a text, and revise it until it is good enough.

        prompt: the request. Or ``messages``: a conversation.
        draft: a text to start from.
        evaluators, criteria, rubrics, principles: what good enough means.
        search: the preset, and how many drafts, rounds and so on.
        stop, budget: when to stop, and what the request may spend.
        sampling: temperature, max_tokens, seed and so on.
        judge, trace, reasoning: whether a model judges; whether to return all rounds; and the model's thoughts.
        task, parameters, model, models: which task, its parameters, and which models.
        store, background, notify, idempotency_key: as in ``generate``.

        >>> result = client.refine(
        ...     prompt="Describe a sunrise over the sea.",
        ...     evaluators=[{"type": "length", "unit": "words", "max": 30}],
        ...     search={"preset": "self_refine", "rounds": 2},
        ... )
        >>> result.text, result.passed, result.stop_reason
        """
        if background:
            return self._begin(RefineResult, "refine", fields, idempotency_key, notify)
        return self._request(RefineResult, "POST", "refine", fields, idempotency_key)

    def stream_generate(
        self, *, idempotency_key: str | None = None, **fields: Unpack[GenerateFields]
    ) -> AbstractContextManager[Iterator[GenerateEvent]]:
        """Stream texts while they are written. Use it in a ``with`` block; leaving the block stops the service's work.

        The parameters are those of ``generate``. Events are Delta, ReasoningDelta if asked for, and last
        GenerateResult.

        >>> with client.stream_generate(prompt="Why is the sky blue?") as events:
        ...     for event in events:
        ...         if isinstance(event, Delta):
        ...             print(event.text, end="")
        """
        return self._stream(GenerateEvents, "generate", {**fields, "stream": True}, idempotency_key)

    def stream_refine(
        self, *, deltas: bool = False, idempotency_key: str | None = None, **fields: Unpack[RefineFields]
    ) -> AbstractContextManager[Iterator[RefineEvent]]:
        """Stream candidates and rounds. Use it in a ``with`` block; leaving the block stops the service's work.

        deltas: whether to stream texts while they are written too, as TextBegun, TextDelta and TextReasoningDelta.

        The other parameters are those of ``refine``. Events are Started, CandidateAdded, CandidateEvaluated, Critiqued,
        RoundEnded, and last RefineResult.

        >>> with client.stream_refine(prompt="Write about the sea.") as events:
        ...     for event in events:
        ...         if isinstance(event, CandidateAdded):
        ...             print(event.id, event.text)
        """
        asked = {**fields, "stream": True, **({"deltas": True} if deltas else {})}
        return self._stream(RefineEvents, "refine", asked, idempotency_key)

    def batch(
        self, lines: Sequence[BatchLine], *, idempotency_key: str | None = None
    ) -> AbstractContextManager[Iterator[BatchResult]]:
        """Send up to 1,000 requests at once. Use it in a ``with`` block; leaving the block stops the service's work.

        lines: the requests, each with a ``custom_id`` of its own. Results come in the order in which they are finished.
        idempotency_key: as in ``generate``. With one, the work goes on for a while after the block is left.

        >>> line = {"custom_id": "sea", "url": "/v1/refine", "body": {"prompt": "Write about the sea."}}
        >>> with client.batch([line]) as results:
        ...     for result in results:
        ...         print(result.custom_id, result.error or result.answer)
        """
        return self._stream(partial(BatchResults, lines=lines), "batch", {"requests": lines}, idempotency_key)

    def job(self, job_id: str) -> Job[GenerateResult | CritiqueResult | RefineResult]:
        """A job by its id, such as one that an earlier process has begun. Raises ProblemError if it is unknown.

        >>> begun = client.refine(prompt="Write about the sea.", background=True)
        >>> client.job(begun.id).wait()
        """
        found = self._request(JobStatus, "GET", f"jobs/{quote(job_id, safe='')}")
        return Job(self, job_id, result_of(found.kind))

    def jobs(self, limit: int = 20, before: str | None = None) -> tuple[JobStatus, ...]:
        """List the jobs of this key, newest first.

        limit: how many, at most 100. before: the id of the last job of the page before.

        >>> [(job.id, job.state) for job in client.jobs()]
        """
        return self._request(JobList, "GET", job_list_path(limit, before)).jobs

    def models(self) -> tuple[Model, ...]:
        """List the models that the service has.

        >>> [model.id for model in client.models()]
        """
        return self._request(ModelList, "GET", "models").data

    def tasks(self) -> tuple[TaskSummary, ...]:
        """List the tasks that the service has.

        >>> [task.name for task in client.tasks()]
        """
        return self._request(TaskList, "GET", "tasks").tasks

    def _begin(
        self, kind: type[R], path: str, body: Mapping[str, object], key: str | None, notify: str | None
    ) -> Job[R]:
        with closing(self._open_response("POST", path, body, key, prefer_background(notify), whole=True)) as response:
            return Job(self, read_accepted(response, response.content).id, kind)

    def _request(
        self,
        kind: type[R],
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        key: str | None = None,
    ) -> R:
        with closing(self._open_response(method, path, body, key, whole=True)) as response:
            return parse(kind, response.content)

    @contextmanager
    def _stream(
        self,
        reader: Callable[[httpx.Response], StreamReader[E]],
        path: str,
        body: Mapping[str, object],
        key: str | None,
    ) -> Iterator[Iterator[E]]:
        with closing(self._open_response("POST", path, body, key)) as response:
            yield self._read_events(response, reader(response))

    def _read_events(self, response: httpx.Response, events: StreamReader[E]) -> Iterator[E]:
        with map_httpx_errors():
            for chunk in response.iter_bytes():
                yield from events.feed(chunk)
                if events.is_finished:
                    return
        raise ConnectionFailed("the answer ended before its last event", sent=True)

    def _open_response(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        key: str | None,
        headers: Mapping[str, str] = MappingProxyType({}),
        *,
        whole: bool = False,
    ) -> httpx.Response:
        """A successful response, which the caller closes. Its body has been read if ``whole``."""
        request = self._exchange.build_request(self._client, method, path, body, key, headers)
        retries = self._exchange.make_retries(key)
        while True:
            try:
                return self._send(request, whole)
            except (ProblemError, ConnectionFailed) as error:
                wait = retries.next_wait(error)
                if wait is None:
                    raise
            self._sleep(wait)

    def _send(self, request: httpx.Request, whole: bool) -> httpx.Response:
        with map_httpx_errors():
            response = self._client.send(request, stream=True)
            if response.is_success and not whole:
                return response
            with closing(response):
                response.read()
        if response.is_success:
            return response
        raise make_refusal(response)
