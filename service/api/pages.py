"""Pages to read: what each type of problem means, and an introduction for language models (https://llmstxt.org)."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from service.errors import CallerLimit, RedraftError, RequestError, Unavailable

GROUPS = (RequestError, Unavailable)
"""Nothing raises these themselves."""

router = APIRouter(tags=["documentation"])


def problem_types(root: type[RedraftError] = RedraftError) -> Iterator[type[RedraftError]]:
    """Every error that a problem document may describe, in the order of the tree."""
    if root not in GROUPS:
        yield root
    for kind in root.__subclasses__():
        if kind.__module__ == root.__module__:
            yield from problem_types(kind)


def _advice(kind: type[RedraftError]) -> str:
    if issubclass(kind, (CallerLimit, Unavailable)):
        return "Send the request again after the seconds in Retry-After."
    if issubclass(kind, RequestError):
        return "Change the request before you send it again."
    return "This is a bug in the service. The X-Request-ID of the response finds it in the log."


def _problems_page() -> str:
    sections = (
        f'<h2 id="{kind.code}">{kind.code}</h2>\n<p>Status {kind.status}. {escape(kind.title)}. {_advice(kind)}</p>\n'
        for kind in problem_types()
    )
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Redraft: problem types</title>\n'
        "<h1>Problem types</h1>\n"
        "<p>The <code>detail</code> of a problem document says what happened in this case.</p>\n"
        f"{''.join(sections)}</html>\n"
    )


PROBLEMS_PAGE = _problems_page()
LLMS_TXT = (Path(__file__).parent / "llms.txt").read_text()


@router.get("/problems", summary="What each type of problem means", response_class=HTMLResponse)
async def problems() -> Response:
    """The `type` of a problem document leads here."""
    return HTMLResponse(PROBLEMS_PAGE)


@router.get("/llms.txt", summary="An introduction for language models", response_class=PlainTextResponse)
async def llms() -> Response:
    """What the service does, an example for each endpoint, and where to read more."""
    return PlainTextResponse(LLMS_TXT)
