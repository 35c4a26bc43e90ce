"""What a server that speaks OpenAI's API says of a failure, as Redraft's errors.

A server that refuses for now, with 429 or with 503 and a time to come back, is busy: nothing is wrong with it.

That a conversation does not fit the context is known by what servers mean for programs: OpenAI's code, llama.cpp's
type, or the sentence that the messages of OpenAI, vLLM (renderers/params.py), llama.cpp (tools/server), Text Generation
Inference (router/src/validation.rs) and others begin with. It has to be their beginning, for a message may repeat what
a caller wrote.
"""

import math
import re
from contextlib import suppress
from email.utils import parsedate_to_datetime
from time import time
from typing import Annotated, Any

import httpx
from pydantic import BaseModel, BeforeValidator
from pydantic_core import from_json

from service.errors import EngineBusy, EngineUnavailable, FormNotKept, InvalidRequest, PromptTooLong, RedraftError

REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.REQUEST_ENTITY_TOO_LARGE, httpx.codes.UNPROCESSABLE_ENTITY)
NOT_OFFERED = (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.NOT_IMPLEMENTED)
KEY_REFUSED = (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
REFUSAL = "the engine's server refuses the request: "
LONGEST_MESSAGE = 500  # characters of what a server says of a failure
LONGEST_TOLD_SECONDS = 3600
LABEL = re.compile(r"[A-Za-z0-9_.-]{1,40}")
"""What a server may call a kind of failure. Anything else may hold a caller's text."""

TOO_LONG_CODES = ("context_length_exceeded", "exceed_context_size_error")
TOO_LONG = re.compile(r"This model's maximum context length is (\d+) tokens\. However, ")
PROMPT_TOKENS = re.compile(r"your (?:prompt contains|messages resulted in|request has) (\d+)(?: input)? tokens")
BOTH_TOKENS = re.compile(r"you requested (\d+) tokens \([^)]*, (\d+) in the completion\)")
"""The prompt and the reply that was asked for."""
NO_ROOM = re.compile(r"max_tokens must be at least 1, got (?:0|-\d+)\b")
"""vLLM of a prompt that fills the context: it cuts what was asked for to what is left, and nobody here asks for 0."""
ABOVE_CONTEXT = re.compile(r"max_(?:completion_)?tokens=\d+ cannot be greater than max_model_len=(\d+)\.")
"""vLLM of a reply longer than the whole context, whatever the prompt. It cuts a shorter one itself."""
PROMPT_THEN_CONTEXT = re.compile(
    r"(?:the )?request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)"
    r"|Trying to keep the first (\d+) tokens when context the overflows\. However, the model is loaded with context "
    r"length of only (\d+) tokens"
)
"""llama.cpp, then LM Studio."""
TGI_PROMPT = re.compile(r"Input validation error: `inputs` must have less than (\d+) tokens\. Given: (\d+)")
TGI_BOTH = re.compile(
    r"Input validation error: `inputs` tokens \+ `max_new_tokens` must be <= (\d+)\. "
    r"Given: (\d+) `inputs` tokens and \d+ `max_new_tokens`"
)


class ServerSaysNo(EngineUnavailable):
    """The server answers, and not with what it was asked for. ``words``: what it says, which may repeat a request."""

    def __init__(self, detail: str, words: str = "") -> None:
        super().__init__(detail)
        self.words = words


class NotOffered(ServerSaysNo):
    """The server has nothing at that path."""


class KeyRefused(ServerSaysNo):
    """The server does not take the key, or wants one."""


class ServerFailed(ServerSaysNo):
    """The server says that it failed."""


class WrongAnswer(ServerSaysNo):
    """The server answers something else than an OpenAI server would."""


class ReplyTooLong(InvalidRequest):
    """The prompt fits the context, and the reply that was asked for does not: ``room`` is left for it."""

    def __init__(self, room: int) -> None:
        super().__init__(f"the model's context has room for {room} more tokens, fewer than were asked for")
        self.room = room


class FailureBody(BaseModel):
    """``message`` may hold what a caller wrote, so no log does. ``kind`` and ``code`` are the server's own words."""

    message: str = ""
    kind: str = ""
    code: str = ""

    @property
    def label(self) -> str:
        """What the server calls the failure; nothing where it has no short name for it."""
        return self.code or self.kind


def _error(said: Any) -> FailureBody | None:
    """The error that a server tells of: an object, or a sentence, as LM Studio and TGI say it. Nothing is no error."""
    if not said:
        return None
    if not isinstance(said, dict):
        return FailureBody(message=str(said)[:LONGEST_MESSAGE])
    message = said.get("message") or said.get("detail") or said.get("error") or ""
    return FailureBody(
        message=str(message)[:LONGEST_MESSAGE],
        kind=_label(said.get("type") or said.get("error_type")),
        code=_label(said.get("code")),
    )


def _label(said: object) -> str:
    """A server's name for a kind of failure, unless it is not one."""
    text = str(said) if isinstance(said, str | int) else ""
    return text if LABEL.fullmatch(text) else ""


def _error_of(document: Any) -> FailureBody | None:
    """The error that a JSON document tells of, or is, as with older vLLM servers and with FastAPI."""
    if not isinstance(document, dict):
        return None
    if error := _error(document.get("error")):
        if not error.kind:
            error = error.model_copy(update={"kind": _label(document.get("error_type"))})
        return error
    if "choices" in document or "data" in document:
        return None
    return _error(document) if document.get("message") or document.get("detail") else None


class Answer(BaseModel):
    """What a server answers; it may tell of an error instead, with status 200 too, and within a stream."""

    error: Annotated[FailureBody | None, BeforeValidator(_error)] = None

    @property
    def empty(self) -> bool:
        """Whether it holds nothing of what was asked for, so that it may tell of an error in some other form."""
        return False


def failure(response: httpx.Response) -> RedraftError:
    """The error for a response whose status is not 200."""
    status, said = response.status_code, read_error(response)
    if status in REFUSED:
        return _too_long(said) or InvalidRequest(REFUSAL + said.message)
    if said.code == FormNotKept.code:  # Redraft's own word, whose status would else mean that it is busy
        return WrongAnswer("the engine's server wrote no text of the form that was asked for", said.message)
    seconds = _retry_after(response)
    if status == httpx.codes.TOO_MANY_REQUESTS or (status == httpx.codes.SERVICE_UNAVAILABLE and seconds is not None):
        return EngineBusy("the engine's server has too much to do", retry_after=seconds or 1)
    detail = f"the engine's server answered with status {status}"
    if status in NOT_OFFERED:
        return NotOffered(detail, said.message)
    if status in KEY_REFUSED:
        return KeyRefused(detail, said.message)
    if response.is_server_error:
        return _too_long(said) or ServerFailed(detail, said.message)
    return EngineUnavailable(detail)


def read_error(response: httpx.Response) -> FailureBody:
    """The error that a body holds, or is; else whatever it says."""
    with suppress(ValueError):
        if error := _error_of(from_json(response.content)):
            return error
    return FailureBody(message=(response.text or response.reason_phrase)[:LONGEST_MESSAGE])


def error_in(data: bytes) -> FailureBody | None:
    """The error that an answer with status 200, or an event of a stream, tells of instead of what was asked for."""
    with suppress(ValueError):
        return _error_of(from_json(data))
    return None


def _too_long(said: FailureBody) -> PromptTooLong | ReplyTooLong | None:
    """With the lengths where both are value: vLLM counts no further than its context."""
    if NO_ROOM.match(said.message):
        return PromptTooLong(None, None)
    if above := ABOVE_CONTEXT.match(said.message):
        return ReplyTooLong(int(above[1]))
    if found := PROMPT_THEN_CONTEXT.match(said.message):
        prompt_tokens, context_tokens = (int(number) for number in found.groups() if number)
        return PromptTooLong(prompt_tokens, context_tokens)
    if found := TGI_PROMPT.match(said.message):
        return PromptTooLong(int(found[2]), int(found[1]))
    if found := TGI_BOTH.match(said.message):
        return _either_too_long(int(found[2]), int(found[1]))
    sentence = TOO_LONG.match(said.message)
    if sentence is None:
        too_long = said.code in TOO_LONG_CODES or said.kind in TOO_LONG_CODES
        return PromptTooLong(None, None) if too_long else None
    context_tokens, rest = int(sentence[1]), said.message[sentence.end() :]
    if both := BOTH_TOKENS.match(rest):
        return _either_too_long(int(both[1]) - int(both[2]), context_tokens)
    if prompt := PROMPT_TOKENS.match(rest):
        return _either_too_long(int(prompt[1]), context_tokens)
    return PromptTooLong(None, context_tokens)


def _either_too_long(prompt_tokens: int, context_tokens: int) -> PromptTooLong | ReplyTooLong:
    """What does not fit: the reply, if the prompt does."""
    if prompt_tokens < context_tokens:
        return ReplyTooLong(context_tokens - prompt_tokens)
    return PromptTooLong(prompt_tokens, context_tokens)


def _retry_after(response: httpx.Response) -> int | None:
    """The seconds of a Retry-After (RFC 9110, section 10.2.3), which may also be a date; 1 to an hour."""
    value = response.headers.get("Retry-After", "")
    try:
        seconds = int(value) if value.isdecimal() else math.ceil(parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return None
    return min(max(1, seconds), LONGEST_TOLD_SECONDS)
