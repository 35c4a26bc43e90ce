"""What a server that speaks OpenAI's API says of a failure, as Redraft's errors.

A server that refuses for now, with 429 or with 503 and a time to come back, is busy: nothing is wrong with it.

That a conversation does not fit the context is known by what servers mean for programs: OpenAI's code, or the sentence
that OpenAI's, vLLM's (renderers/params.py) and others' messages begin with. It has to be their beginning, for a message
may repeat what a caller wrote.
"""

import math
import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from time import time
from typing import Annotated

import httpx
from pydantic import AfterValidator, BaseModel, ValidationError

from service.errors import EngineBusy, EngineUnavailable, InvalidRequest, PromptTooLong, RedraftError

REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.UNPROCESSABLE_ENTITY)
NOT_OFFERED = (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.NOT_IMPLEMENTED)
LONGEST_MESSAGE = 500  # characters of what a server says of a failure
LONGEST_TOLD_SECONDS = 3600

TOO_LONG_CODE = "context_length_exceeded"
TOO_LONG = re.compile(r"This model's maximum context length is (\d+) tokens\. However, ")
PROMPT_TOKENS = re.compile(r"your (?:prompt contains|messages resulted in|request has) (\d+)(?: input)? tokens")
BOTH_TOKENS = re.compile(r"you requested (\d+) tokens \([^)]*, (\d+) in the completion\)")
"""The prompt and the reply that was asked for."""
NO_ROOM = re.compile(r"max_tokens must be at least 1, got (?:0|-\d+)\b")
"""vLLM of a prompt that fills the context: it cuts what was asked for to what is left, and nobody here asks for 0."""
ABOVE_CONTEXT = re.compile(r"max_(?:completion_)?tokens=\d+ cannot be greater than max_model_len=(\d+)\.")
"""vLLM of a reply longer than the whole context, whatever the prompt. It cuts a shorter one itself."""


class NotOffered(EngineUnavailable):
    """The server has nothing at that path."""


class ServerFailed(EngineUnavailable):
    """The server answers, and says that it failed."""


class ReplyTooLong(InvalidRequest):
    """The prompt fits the context, and the reply that was asked for does not: ``room`` is left for it."""

    def __init__(self, room: int) -> None:
        super().__init__(f"the model's context has room for {room} more tokens, fewer than were asked for")
        self.room = room


class ErrorBody(BaseModel):
    message: Annotated[str, AfterValidator(lambda text: text[:LONGEST_MESSAGE])]
    code: int | str | None = None


class Answer(BaseModel):
    """What a server answers; it may tell of an error instead, also within a stream."""

    error: ErrorBody | None = None


def failure(response: httpx.Response) -> RedraftError:
    """The error for a response whose status is not 200."""
    status, said = response.status_code, said_by(response)
    if status in REFUSED:
        return _too_long(said) or InvalidRequest(f"the engine's server refuses the request: {said.message}")
    seconds = _retry_after(response)
    if status == httpx.codes.TOO_MANY_REQUESTS or (status == httpx.codes.SERVICE_UNAVAILABLE and seconds is not None):
        return EngineBusy("the engine's server has too much to do", retry_after=seconds or 1)
    kind = EngineUnavailable
    if status in NOT_OFFERED:
        kind = NotOffered
    elif response.is_server_error:
        kind = ServerFailed
    return kind(f"the engine's server answered with status {status}")


def said_by(response: httpx.Response) -> ErrorBody:
    """The error that a body holds, or is, as with older vLLM servers; else whatever it says."""
    with suppress(ValidationError):
        if error := Answer.model_validate_json(response.content).error:
            return error
    with suppress(ValidationError):
        return ErrorBody.model_validate_json(response.content)
    return ErrorBody(message=response.text or response.reason_phrase)


def _too_long(said: ErrorBody) -> PromptTooLong | ReplyTooLong | None:
    """With the lengths where both are told: vLLM counts no further than its context."""
    if NO_ROOM.match(said.message):
        return PromptTooLong(None, None)
    if above := ABOVE_CONTEXT.match(said.message):
        return ReplyTooLong(int(above[1]))
    sentence = TOO_LONG.match(said.message)
    if sentence is None:
        return PromptTooLong(None, None) if said.code == TOO_LONG_CODE else None
    context_tokens, rest = int(sentence[1]), said.message[sentence.end() :]
    prompt_tokens = None
    if both := BOTH_TOKENS.match(rest):
        prompt_tokens = int(both[1]) - int(both[2])
    elif prompt := PROMPT_TOKENS.match(rest):
        prompt_tokens = int(prompt[1])
    if prompt_tokens is not None and prompt_tokens < context_tokens:
        return ReplyTooLong(context_tokens - prompt_tokens)
    return PromptTooLong(prompt_tokens, context_tokens)


def _retry_after(response: httpx.Response) -> int | None:
    """The seconds of a Retry-After (RFC 9110, section 10.2.3), which may also be a date; 1 to an hour."""
    told = response.headers.get("Retry-After", "")
    try:
        seconds = int(told) if told.isdecimal() else math.ceil(parsedate_to_datetime(told).timestamp() - time())
    except ValueError:
        return None
    return min(max(1, seconds), LONGEST_TOLD_SECONDS)
