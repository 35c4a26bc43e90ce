"""OpenAI's batches: files of requests, answered line by line with spare capacity."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.api import routes
from service.api.body import json_body, read_json
from service.api.idempotency import answer_once, note_key
from service.api.jobs import CALLBACK, NoticeBody, notice_body, read_callback
from service.api.openai.fields import Metadata
from service.api.openai.files import (
    ERROR,
    LONGEST_SECONDS,
    NO_STORE,
    SHORTEST_SECONDS,
    page,
    stored_batches,
)
from service.api.problems import describe_errors
from service.api.queries import read_cursor, read_limit
from service.api.state import app_state
from service.batches.batch import Batch, BatchState
from service.engines.base import Usage
from service.errors import Draining
from service.wire.model import BodyModel, WireModel

BATCHES_A_PAGE = 20
MOST_BATCHES_A_PAGE = 100
NO_NOTICE: dict[int | str, dict[str, Any]] = {
    404: {**ERROR, "description": "There is no such batch of this caller, or no notice of it is wanted."}
}
NO_BATCH: dict[int | str, dict[str, Any]] = {404: {**ERROR, "description": "There is no such batch of this caller."}}

v1 = APIRouter(
    prefix="/v1/batches",
    dependencies=routes.v1.dependencies,
    responses=describe_errors(ERROR, 401, "default"),
)


class ExpiresAfter(WireModel):
    """How long the files with results are kept."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=SHORTEST_SECONDS, le=LONGEST_SECONDS)


class BatchFileRequest(BodyModel):
    """A batch as OpenAI's clients ask for it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"input_file_id": "file-0192", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
            ],
        }
    )

    input_file_id: str
    endpoint: Literal["/v1/chat/completions", "/v1/responses", "/v1/generate", "/v1/critique", "/v1/refine"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class InputTokensDetails(BaseModel):
    cached_tokens: int


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int


class BatchUsageBody(BaseModel):
    """Of all calls for the lines that were answered with 200 so far."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> "BatchUsageBody":
        return cls(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
            total_tokens=usage.tokens,
        )


class BatchErrorBody(BaseModel):
    """``line``: from 1; null for what is wrong with the file as a whole."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrorListBody(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchErrorBody]


class RequestCountsBody(BaseModel):
    total: int
    completed: int
    failed: int


class BatchBody(BaseModel):
    """A batch. Times are seconds since the epoch; null if it has not come so far. ``model``: as the lines name it; null
    if they name several."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrorListBody | None
    input_file_id: str
    completion_window: Literal["24h"] = "24h"
    status: BatchState
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCountsBody
    usage: BatchUsageBody
    metadata: dict[str, str] | None

    @classmethod
    def of(cls, batch: Batch) -> "BatchBody":
        def at(state: BatchState) -> int | None:
            return int(batch.times[state]) if state in batch.times else None

        faults = [
            BatchErrorBody(code=fault.code, line=fault.line, message=fault.message, param=fault.param)
            for fault in batch.faults
        ]
        counts = batch.counts
        return cls(
            id=batch.id,
            endpoint=batch.endpoint,
            model=batch.model,
            errors=BatchErrorListBody(data=faults) if faults else None,
            input_file_id=batch.input_file,
            status=batch.state,
            output_file_id=batch.output_file,
            error_file_id=batch.error_file,
            created_at=int(batch.created),
            in_progress_at=at("in_progress"),
            expires_at=int(batch.expires),
            finalizing_at=at("finalizing"),
            completed_at=at("completed"),
            failed_at=at("failed"),
            expired_at=at("expired"),
            cancelling_at=at("cancelling"),
            cancelled_at=at("cancelled"),
            request_counts=RequestCountsBody(total=counts.total, completed=counts.completed, failed=counts.failed),
            usage=BatchUsageBody.of(counts.usage),
            metadata=None if batch.metadata is None else dict(batch.metadata),
        )


class BatchListBody(BaseModel):
    """A page of batches. ``has_more``: whether there are older ones, which ``after`` and ``last_id`` give."""

    object: Literal["list"] = "list"
    data: list[BatchBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


async def require_capacity(request: Request) -> None:
    """Refuse a batch that would not be taken on now, before its body is read."""
    batches = stored_batches(request)
    if await note_key(request):
        return
    if app_state(request).runner.admission.draining:
        raise Draining("the service is shutting down and takes no new batches")
    await batches.check()


@v1.post(
    "",
    summary="Answer a file of requests that nobody waits for",
    response_model=BatchBody,
    responses={**NO_STORE, **describe_errors(ERROR, 400, 409, 413, 503)},
    openapi_extra=json_body(BatchFileRequest),
    dependencies=[Depends(require_capacity)],
)
async def create(request: Request) -> Response:
    """Each line of the input file is a request to `endpoint`, answered behind all other requests. A restart of the
    service does no harm."""
    notify = read_callback(request)
    stated = await read_json(request, BatchFileRequest)
    expiry = stated.output_expires_after

    async def respond() -> Response:
        batch = await stored_batches(request).create(
            request.state.caller,
            request.state.request_id,
            endpoint=stated.endpoint,
            input_file=stated.input_file_id,
            keep=None if expiry is None else expiry.seconds,
            metadata=stated.metadata,
            notify=notify,
        )
        return _answer(batch, None if notify is None else {"Preference-Applied": CALLBACK})

    return await answer_once(request, respond)


@v1.get("", summary="The caller's batches, newest first", response_model=BatchListBody, responses=NO_STORE)
async def batches(request: Request) -> Response:
    """A page of batches. `limit`: how many. `after`: the id of the last batch of the page before."""
    limit = read_limit(request.query_params.get("limit"), default=BATCHES_A_PAGE, most=MOST_BATCHES_A_PAGE)
    after = read_cursor(request.query_params.get("after"), "after", "batch_")
    found: Sequence[Batch] = await stored_batches(request).list(request.state.caller, limit + 1, after)
    return JSONResponse(page([BatchBody.of(batch).model_dump() for batch in found], limit))


@v1.get("/{batch}", summary="One batch, and how far it has come", response_model=BatchBody, responses=NO_BATCH)
async def one_batch(request: Request, batch: str) -> Response:
    return _answer(await stored_batches(request).get(request.state.caller, batch))


@v1.post("/{batch}/cancel", summary="Cancel a batch", response_model=BatchBody, responses=NO_BATCH)
async def cancel(request: Request, batch: str) -> Response:
    """No further line is begun, and those at work end with what they have. What was answered before is in the files
    with results. A batch that has ended stays as it is."""
    return _answer(await stored_batches(request).cancel(request.state.caller, batch))


@v1.get("/{batch}/notice", summary="What became of a batch's notice", response_model=NoticeBody, responses=NO_NOTICE)
async def notice(request: Request, batch: str) -> Response:
    delivery = await stored_batches(request).notice(request.state.caller, batch)
    return JSONResponse(notice_body(delivery))


@v1.post(
    "/{batch}/notice",
    status_code=202,
    summary="Send a batch's notice again",
    response_model=NoticeBody,
    responses=NO_NOTICE,
)
async def send_again(request: Request, batch: str) -> Response:
    """The attempts begin again, whatever became of earlier ones. Before the batch's end nothing changes."""
    delivery = await stored_batches(request).send_again(request.state.caller, batch)
    return JSONResponse(notice_body(delivery), status_code=202)


def _answer(batch: Batch, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse(BatchBody.of(batch).model_dump(), headers=headers)
