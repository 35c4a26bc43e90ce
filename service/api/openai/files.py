"""OpenAI's files: what batches read and write."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from fastapi import APIRouter
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from service.api import routes
from service.api.openai.completions import ErrorResponse
from service.api.openai.upload import FORM, Form, read_upload
from service.api.problems import describe_errors
from service.api.queries import read_cursor, read_limit, read_name
from service.api.state import AppState, app_state
from service.batches.batches import Batches
from service.errors import Draining, NotFound, wrong_field
from service.files.file import StoredFile
from service.files.store import FileWriter
from service.programs.ids import make_id

FILES_A_PAGE = 10_000
SHORTEST_SECONDS, LONGEST_SECONDS = 3_600, 2_592_000
"""OpenAI's bounds of how long a file is kept."""
CONTENT_SECURITY = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'; sandbox"}

ERROR: Mapping[str, Any] = {"model": ErrorResponse}
NO_FILE: dict[int | str, dict[str, Any]] = {404: {**ERROR, "description": "There is no such file of this caller."}}
NO_STORE: dict[int | str, dict[str, Any]] = {404: {**ERROR, "description": "This service keeps no files."}}

v1 = APIRouter(
    prefix="/v1/files",
    dependencies=routes.v1.dependencies,
    responses=describe_errors(ERROR, 401, "default"),
)


class FileBody(BaseModel):
    """A file. Times are seconds since the epoch."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"
    status_details: None = None

    @classmethod
    def of(cls, file: StoredFile) -> dict[str, Any]:
        return {
            "id": file.id,
            "object": "file",
            "bytes": file.size,
            "created_at": int(file.created),
            "expires_at": int(file.expires),
            "filename": file.name,
            "purpose": file.purpose,
            "status": "processed",
            "status_details": None,
        }


class FileListBody(BaseModel):
    """A page of files. ``has_more``: whether there are others, which ``after`` and ``last_id`` give."""

    object: Literal["list"] = "list"
    data: list[FileBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFileBody(BaseModel):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


UPLOAD: Mapping[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            FORM: {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"type": "string", "enum": ["batch"]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": SHORTEST_SECONDS,
                            "maximum": LONGEST_SECONDS,
                        },
                    },
                }
            }
        },
    }
}


@v1.post(
    "",
    summary="Upload a file of requests",
    response_model=FileBody,
    responses={**NO_STORE, **describe_errors(ERROR, 400, 408, 413, 503)},
    openapi_extra=dict(UPLOAD),
)
async def upload(request: Request) -> Response:
    """The file is kept for its caller's batches until it expires or is deleted."""
    state, batches = app_state(request), stored_batches(request)
    if state.runner.admission.draining:
        raise Draining("the service is shutting down and takes no new files")
    size = int(request.headers.get("content-length") or state.max_file_bytes)
    async with batches.room(request.state.caller, size):
        return JSONResponse(FileBody.of(await _store_upload(request, state, batches)))


async def _store_upload(request: Request, state: AppState, batches: Batches) -> StoredFile:
    """The file, complete. One that does not arrive whole leaves nothing."""
    now = time.time()
    file = StoredFile(make_id("file"), request.state.caller, "", "batch", now, expires=now + batches.keep)
    writer = await FileWriter.begin(batches.files, file)
    try:
        form = await read_upload(request, writer, state.max_file_bytes, state.max_body_seconds)
        keep = min(_read_form(form) or batches.keep, batches.keep)
        writer.file = replace(writer.file, name=form.name, expires=now + keep)
        return await writer.finish()
    except BaseException:
        await batches.files.delete(file.id)
        raise


@v1.get("", summary="The caller's files, newest first", response_model=FileListBody, responses=NO_STORE)
async def files(request: Request) -> Response:
    """A page of files. `limit`: how many. `after`: the id of the last file of the page before. `order`: `asc` for the
    oldest first. `purpose`: only those of one purpose."""
    batches, query = stored_batches(request), request.query_params
    limit = read_limit(query.get("limit"), default=FILES_A_PAGE, most=FILES_A_PAGE)
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise wrong_field("order", "must be asc or desc")
    after, purpose = read_cursor(query.get("after"), "after", "file-"), read_name(query.get("purpose"), "purpose")
    found = await batches.files.list(
        request.state.caller, limit + 1, after=after, newest_first=order == "desc", purpose=purpose
    )
    return JSONResponse(page([FileBody.of(file) for file in found], limit))


@v1.get("/{file}", summary="One file", response_model=FileBody, responses=NO_FILE)
async def one_file(request: Request, file: str) -> Response:
    return JSONResponse(FileBody.of(await stored_batches(request).get_file(request.state.caller, file)))


@v1.get(
    "/{file}/content",
    summary="The content of a file",
    responses={200: {"content": {"application/octet-stream": {}}}, **NO_FILE},
)
async def content(request: Request, file: str) -> Response:
    batches = stored_batches(request)
    found = await batches.get_file(request.state.caller, file)
    headers = {"Content-Length": str(found.size), "Content-Disposition": "attachment", **CONTENT_SECURITY}
    return StreamingResponse(batches.files.read(found.id), media_type="application/octet-stream", headers=headers)


@v1.delete("/{file}", summary="Delete a file", response_model=DeletedFileBody, responses=NO_FILE)
async def delete(request: Request, file: str) -> Response:
    """Batches that have begun need their input file no longer."""
    found = await stored_batches(request).delete_file(request.state.caller, file)
    return JSONResponse({"id": found.id, "object": "file", "deleted": True})


def stored_batches(request: Request) -> Batches:
    """The service's batches and files. Raises NotFound if it has none."""
    batches = app_state(request).batches
    if batches is None:
        raise NotFound("this service keeps no files and batches: its operator has not set REDRAFT_STORE")
    return batches


def page(items: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of a list. ``items``: one more than ``limit`` if there are others."""
    shown = items[:limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(items) > limit,
    }


def _read_form(form: Form) -> float | None:
    """Check the fields of an upload; gives the seconds for which the file is to be kept, if they say so."""
    if "purpose" not in form.fields:
        raise wrong_field("purpose", "Field required")
    if form.fields["purpose"] != "batch":
        raise wrong_field("purpose", "must be batch: files serve nothing else here")
    anchor, seconds = (form.fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise wrong_field("expires_after.anchor", "must be created_at")
    try:
        return TypeAdapter(Annotated[int, Ge(SHORTEST_SECONDS), Le(LONGEST_SECONDS)]).validate_python(seconds)
    except ValidationError:
        reason = f"must be a number from {SHORTEST_SECONDS} to {LONGEST_SECONDS}"
        raise wrong_field("expires_after.seconds", reason) from None
