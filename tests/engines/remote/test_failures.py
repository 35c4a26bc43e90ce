"""What servers say of a failure, in the words that they are known to use, and what is made of it."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from service.engines.remote.failures import (
    LONGEST_MESSAGE,
    KeyRefused,
    NotOffered,
    ReplyTooLong,
    ServerFailed,
    WrongAnswer,
    failure,
)
from service.errors import EngineBusy, EngineUnavailable, InvalidRequest, PromptTooLong

VLLM = (
    "This model's maximum context length is 8192 tokens. However, your prompt contains at least 8193 input tokens, "
    "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
    "(parameter=input_tokens, value=8193)"
)
VLLM_CHARACTERS = (
    "This model's maximum context length is 8192 tokens. However, your prompt contains 900000 characters (more than "
    "131072 characters, which is the upper bound for 8192 input tokens). Please reduce the length of the input prompt."
)
OLDER_VLLM = (
    "This model's maximum context length is 8192 tokens. However, your request has 9000 input tokens. Please reduce "
    "the length of the input messages."
)
OPENAI = (
    "This model's maximum context length is 8192 tokens. However, your messages resulted in 8452 tokens (8415 in the "
    "messages, 37 in the functions). Please reduce the length of the messages or functions."
)
BOTH = (
    "This model's maximum context length is 8192 tokens. However, you requested {} tokens ({} in the messages, 4096 in "
    "the completion). Please reduce the length of the messages or completion."
)

LLAMA_CPP = "request (9000 tokens) exceeds the available context size (8192 tokens), try increasing it"
LM_STUDIO = (
    "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded with context length "
    "of only 8192 tokens, which is not enough."
)
TGI = "Input validation error: `inputs` must have less than 8192 tokens. Given: 9000"
TGI_BOTH = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 8192. "
    "Given: 121 `inputs` tokens and 9000 `max_new_tokens`"
)


def refused(message: str, code: object = 400, status: int = 400) -> httpx.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return httpx.Response(status, json={"error": error})


@pytest.mark.parametrize(
    ("message", "code", "lengths"),
    [
        (VLLM, 400, (None, 8192)),
        (VLLM_CHARACTERS, 400, (None, 8192)),
        ("max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)", 400, (None, None)),
        (OLDER_VLLM, 400, (9000, 8192)),
        (OPENAI, "context_length_exceeded", (8452, 8192)),
        (BOTH.format(13096, 9000), None, (9000, 8192)),
        (BOTH.format(12288, 8192), "invalid_request_error", (8192, 8192)),
        ("Your input exceeds the context window of this model.", "context_length_exceeded", (None, None)),
        (LLAMA_CPP, 400, (9000, 8192)),
        (LM_STUDIO, None, (9000, 8192)),
        (TGI, None, (9000, 8192)),
    ],
)
def test_a_prompt_that_does_not_fit_is_too_long(message: str, code: object, lengths: tuple[int | None, ...]) -> None:
    error = failure(refused(message, code))

    assert isinstance(error, PromptTooLong)
    assert (error.prompt_tokens, error.context_tokens) == lengths
    assert error.errors[0].field == "prompt"


def test_a_reply_that_does_not_fit_leaves_room_for_a_shorter_one() -> None:
    error = failure(refused(BOTH.format(4217, 121), "context_length_exceeded"))

    assert isinstance(error, ReplyTooLong)
    assert error.room == 8192 - 121


def test_text_generation_inference_tells_the_room_too() -> None:
    error = failure(httpx.Response(422, json={"error": TGI_BOTH, "error_type": "validation"}))

    assert isinstance(error, ReplyTooLong)
    assert error.room == 8192 - 121


def test_a_type_alone_says_that_a_prompt_is_too_long() -> None:
    said = {"error": {"code": 400, "message": "the request exceeds it", "type": "exceed_context_size_error"}}
    assert isinstance(failure(httpx.Response(400, json=said)), PromptTooLong)


def test_a_reply_longer_than_the_context_may_be_as_long_as_that() -> None:
    said = "max_tokens=9000 cannot be greater than max_model_len=8192. Please request fewer output tokens."
    error = failure(refused(said))

    assert isinstance(error, ReplyTooLong)
    assert error.room == 8192


@pytest.mark.parametrize(
    "message",
    [
        "The schema is not valid.",
        f"The prompt cannot be parsed: {VLLM}",  # what the caller wrote
        "The maximum context length is exceeded, perhaps.",
    ],
)
def test_any_other_refusal_is_not_a_matter_of_length(message: str) -> None:
    error = failure(refused(message))

    assert isinstance(error, InvalidRequest)
    assert not isinstance(error, PromptTooLong | ReplyTooLong)
    assert message[:40] in error.detail


def test_an_error_that_is_the_body_is_read_too() -> None:
    error = failure(httpx.Response(400, json={"object": "error", "message": OLDER_VLLM, "code": 400}))
    assert isinstance(error, PromptTooLong)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"error": "no"}', b'{"error": {"message": 1}}'])
def test_a_refusal_of_any_form_is_one(body: bytes) -> None:
    assert type(failure(httpx.Response(400, content=body))) is InvalidRequest


def test_no_more_is_told_of_a_refusal_than_its_beginning() -> None:
    error = failure(refused("x" * 10_000))
    assert LONGEST_MESSAGE <= error.detail.count("x") < LONGEST_MESSAGE + 10


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {}, 1),
        (429, {"Retry-After": "7"}, 7),
        (503, {"Retry-After": "7"}, 7),
        (429, {"Retry-After": "0"}, 1),
        (429, {"Retry-After": "soon"}, 1),
        (429, {"Retry-After": "9" * 12}, 3600),
        (429, {"Retry-After": "9" * 5000}, 1),
        (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 1),
    ],
)
def test_a_server_that_refuses_for_now_is_busy(status: int, headers: dict[str, str], seconds: int) -> None:
    error = failure(httpx.Response(status, headers=headers))

    assert isinstance(error, EngineBusy)
    assert error.retry_after == seconds


def test_the_time_to_come_back_may_be_a_date() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    error = failure(httpx.Response(503, headers={"Retry-After": then}))

    assert isinstance(error, EngineBusy)
    assert error.retry_after is not None
    assert 90 <= error.retry_after <= 101


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (500, {"Retry-After": "1"}, ServerFailed),
        (502, {}, ServerFailed),
        (503, {}, ServerFailed),
        (503, {"Retry-After": "soon"}, ServerFailed),
        (404, {}, NotOffered),
        (405, {}, NotOffered),
        (501, {}, NotOffered),
        (302, {}, EngineUnavailable),
        (401, {}, KeyRefused),
        (403, {}, KeyRefused),
    ],
)
def test_any_other_failure_is_the_server_s(status: int, headers: dict[str, str], kind: type[Any]) -> None:
    assert type(failure(httpx.Response(status, headers=headers))) is kind


def test_a_service_like_this_one_whose_model_keeps_no_form_is_not_busy() -> None:
    said = {"status": 503, "code": "form_not_kept", "title": "…", "detail": "the text does not fit"}
    response = httpx.Response(503, headers={"Retry-After": "1"}, json=said)

    assert isinstance(failure(response), WrongAnswer)
