"""Errors as problem documents (RFC 9457), and what of an error a caller may know."""

import logging
from typing import Any

from service.errors import InvalidRequest, RedraftError

logger = logging.getLogger(__name__)


def problem_body(error: RedraftError) -> dict[str, Any]:
    """The members of the problem document. Its type leads to a page of this service (api/pages.py), by a relative
    reference with its full path, as RFC 9457, section 3.1.1, advises."""
    body: dict[str, Any] = {
        "type": f"/problems#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    if isinstance(error, InvalidRequest):
        body["errors"] = [{"field": item.field, "message": item.message} for item in error.errors]
    return body


def make_public(error: Exception, request_id: str) -> RedraftError:
    """What the caller may know of ``error``: our own errors as they are, of any other nothing but that it happened.

    The other kind is a bug, so it is logged with its traceback.
    """
    if isinstance(error, RedraftError):
        return error
    logger.error("request %s failed", request_id, exc_info=error, extra={"request_id": request_id})
    return RedraftError("the request failed inside the service; its X-Request-ID finds the cause in the log")
