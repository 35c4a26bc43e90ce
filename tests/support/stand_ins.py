"""Servers that answer as others do which are OpenAI's only nearly, each after what is public of it.

They write no texts of their own: a chat is answered with one sentence, cut to what was asked for. They differ in what
they have, in what they make of what they do not have, and in how they refuse.
"""

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL = "some-model"
WORDS = ("The", " sea", " has", " salt", " waves", ".")
METHODS = ["GET", "POST"]


@dataclass
class StandIn:
    """``key``: what it wants as a bearer key, if anything. ``asked``: the paths that it was asked for."""

    model: str = MODEL
    key: str | None = None
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    name: ClassVar[str]
    open_paths: ClassVar[Sequence[str]] = ()
    """What needs no key."""

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self._answer, methods=METHODS)])

    async def _answer(self, request: Request) -> Response:
        path = request.url.path
        self.asked.append(path)
        given = request.headers.get("authorization")
        if self.key is not None and path not in self.open_paths and given != f"Bearer {self.key}":
            return self.unauthorized()
        match request.method, path:
            case "GET", "/v1/models":
                return self.models()
            case "POST", "/v1/chat/completions":
                body = await request.json()
                self.bodies.append(body)
                return self.chat(body)
            case "POST", "/v1/completions":
                return self.completion(await request.json())
            case "POST", "/tokenize":
                return self.tokenize(await request.json())
        return self.unknown(request)

    def unauthorized(self) -> Response:
        return error(401, "Invalid API Key", "authentication_error", 401)

    def models(self) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": self.model, "object": "model"}]})

    def unknown(self, request: Request) -> Response:
        raise NotImplementedError

    def tokenize(self, body: dict[str, Any]) -> Response:
        raise NotImplementedError

    def completion(self, body: dict[str, Any]) -> Response:
        raise NotImplementedError

    def refusal(self, body: dict[str, Any]) -> Response | None:
        """What a chat is refused with, if it is."""
        return None

    def logprobs(self, body: dict[str, Any]) -> dict[str, Any] | None:
        return None

    def chat(self, body: dict[str, Any]) -> Response:
        if (refused := self.refusal(body)) is not None:
            return refused
        most = body.get("max_tokens") or body.get("max_completion_tokens") or len(WORDS)
        words = self.words(body)[:most]
        finish = "stop" if len(words) < most or len(words) == len(WORDS) else "length"
        usage = {"prompt_tokens": 9, "completion_tokens": len(words), "total_tokens": 9 + len(words)}
        if body.get("stream"):
            return StreamingResponse(self.events(words, finish, usage), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(words)}, "finish_reason": finish}
        if (logprobs := self.logprobs(body)) is not None:
            choice["logprobs"] = logprobs
        return JSONResponse({"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": usage})

    def words(self, body: dict[str, Any]) -> Sequence[str]:
        return ('{"reply": "Yes"}',) if "response_format" in body else WORDS

    async def events(self, words: Sequence[str], finish: str, usage: dict[str, int]) -> AsyncIterator[bytes]:
        yield event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
        for word in words:
            yield event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]})
        yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        yield event({"choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"


@dataclass
class LMStudio(StandIn):
    """LM Studio 0.3 and 0.4, which is closed: after its users' reports (lmstudio-ai/lmstudio-bug-tracker).

    Unknown paths, /tokenize among them: 200 with a sentence as the error (#618, #1323). A chat without a loaded model:
    400 with a sentence as the error (assafelovic/gpt-researcher#1556). Other response formats than json_schema are
    refused (#169, #307), images too where the model sees none (#908), log-probabilities asked for are left out
    (lmstudio-ai/lms#60), a wrong token is described at length (agustif/opencode-lmstudio#41).
    """

    name = "LM Studio"
    loaded: bool = True

    def unauthorized(self) -> Response:
        said = "An LM Studio API token is required to make requests to this server, but none was provided"
        return JSONResponse({"error": {"type": "invalid_request", "code": "invalid_api_key", "message": said}}, 401)

    def unknown(self, request: Request) -> Response:
        return JSONResponse({"error": f"Unexpected endpoint or method. ({request.method} {request.url.path})"})

    def tokenize(self, body: dict[str, Any]) -> Response:
        return JSONResponse({"error": "Unexpected endpoint or method. (POST /tokenize)"})

    def completion(self, body: dict[str, Any]) -> Response:
        return JSONResponse({"error": "'prompt' field must be a string"}, 400)

    def refusal(self, body: dict[str, Any]) -> Response | None:
        if not self.loaded:
            said = "No models loaded. Please load a model in the developer page or use the 'lms load' command."
            return JSONResponse({"error": said}, 400)
        if body.get("response_format", {}).get("type", "text") not in ("json_schema", "text"):
            return JSONResponse({"error": "'response_format.type' must be 'json_schema' or 'text'"}, 400)
        if has_images(body):
            return JSONResponse({"error": "Model does not support images. Please use a model that does."}, 400)
        return None


@dataclass
class LlamaCpp(StandIn):
    """llama.cpp's server (ggml-org/llama.cpp, tools/server/server-http.cpp, server-common.cpp and server-context.cpp).

    Its /tokenize wants ``content``, and answers 200 and no tokens without. Its list of models needs no key. While the
    model loads everything is 503 without a Retry-After. Images fail with 500. Log-probabilities are OpenAI's. A chat
    has whatever model is loaded, under any name.
    """

    name = "llama.cpp"
    open_paths = ("/v1/models", "/health")
    loading: bool = False

    async def _answer(self, request: Request) -> Response:
        if self.loading:
            self.asked.append(request.url.path)
            return error(503, "Loading model", "unavailable_error", 503)
        return await super()._answer(request)

    def models(self) -> Response:
        card = {"id": self.model, "object": "model", "owned_by": "llamacpp", "meta": {"n_vocab": 49152}}
        return JSONResponse({"models": [{"name": self.model}], "object": "list", "data": [card]})

    def unknown(self, request: Request) -> Response:
        return error(404, "File Not Found", "not_found_error", 404)

    def tokenize(self, body: dict[str, Any]) -> Response:
        return JSONResponse({"tokens": list(range(len(body.get("content", "").split())))})

    def completion(self, body: dict[str, Any]) -> Response:
        choice = {"index": 0, "text": WORDS[0], "finish_reason": "length", "logprobs": None}
        return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 1}})

    def refusal(self, body: dict[str, Any]) -> Response | None:
        if has_images(body):
            said = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
            return error(500, said, "server_error", 500)
        return None

    def logprobs(self, body: dict[str, Any]) -> dict[str, Any] | None:
        return top_logprobs(body["top_logprobs"]) if body.get("logprobs") else None


@dataclass
class Ollama(StandIn):
    """Ollama (ollama/ollama, openai/openai.go, middleware/openai.go and server/routes.go).

    Its names have tags in its list, and ``:latest`` may be left out of a request. Without models the list is null.
    Unknown paths are gin's, in plain text. A prompt of token ids is refused as JSON of the wrong type.
    """

    name = "Ollama"
    empty: bool = False

    def models(self) -> Response:
        card = {"id": f"{self.model}:latest", "object": "model", "created": 1, "owned_by": "library"}
        return JSONResponse({"object": "list", "data": None if self.empty else [card]})

    def unknown(self, request: Request) -> Response:
        return PlainTextResponse("404 page not found", 404)

    def tokenize(self, body: dict[str, Any]) -> Response:
        return PlainTextResponse("404 page not found", 404)

    def completion(self, body: dict[str, Any]) -> Response:
        said = "json: cannot unmarshal array into Go struct field CompletionRequest.prompt of type string"
        return error(400, said, "invalid_request_error", None)

    def refusal(self, body: dict[str, Any]) -> Response | None:
        if body["model"].removesuffix(":latest") != self.model:
            return error(404, f'model "{body["model"]}" not found, try pulling it first', "not_found_error", None)
        if has_images(body):
            return error(500, "this model is missing data required for image input", "api_error", None)
        return None

    def logprobs(self, body: dict[str, Any]) -> dict[str, Any] | None:
        return top_logprobs(body["top_logprobs"]) if body.get("logprobs") else None


@dataclass
class TextGenerationInference(StandIn):
    """Hugging Face's TGI (huggingface/text-generation-inference, router/src/server.rs, lib.rs and validation.rs).

    Its /tokenize wants ``inputs``; axum refuses a body without, in plain text. Its list of models needs no key, and a
    wrong key is an empty 401. At most 5 probable tokens may be asked for.
    A ``top_p`` of 1 is refused. The usage comes in an event with no choice.
    """

    name = "Text Generation Inference"
    open_paths = ("/v1/models", "/health", "/info")

    def unauthorized(self) -> Response:
        return Response(status_code=401)

    def unknown(self, request: Request) -> Response:
        return Response(status_code=404)

    def tokenize(self, body: dict[str, Any]) -> Response:
        said = "Failed to deserialize the JSON body into the target type: missing field `inputs` at line 1 column 99"
        return PlainTextResponse(said, 422)

    def completion(self, body: dict[str, Any]) -> Response:
        said = "Failed to deserialize the JSON body into the target type: data did not match any variant"
        return PlainTextResponse(said, 422)

    def refusal(self, body: dict[str, Any]) -> Response | None:
        if body.get("top_p") is not None and not 0.0 < body["top_p"] < 1.0:
            return invalid("`top_p` must be > 0.0 and < 1.0")
        if body.get("top_logprobs", 0) > 5:
            return invalid(f"`top_n_tokens` must be >= 0 and <= 5. Given: {body['top_logprobs']}")
        if has_images(body):
            return invalid("image modality is not supported")
        return None

    def logprobs(self, body: dict[str, Any]) -> dict[str, Any] | None:
        return top_logprobs(body["top_logprobs"]) if body.get("logprobs") else None


@dataclass
class BareProxy(StandIn):
    """A proxy before OpenAI's own models, with its chat completions and nothing else (openai/openai-openapi).

    There is no list of models. Everything else is nginx's page. The newest models refuse ``max_tokens``
    (``unsupported_parameter``). Its streams end in an event with the usage and a choice that says nothing
    (BerriAI/litellm#8450) and are kept alive by comments.
    """

    name = "a bare proxy"

    def unauthorized(self) -> Response:
        said = (
            f"Incorrect API key provided: {self.key or ''}. You can find your API key at https://platform.openai.com."
        )
        return error(401, said, "invalid_request_error", "invalid_api_key")

    def models(self) -> Response:
        return page(404)

    def unknown(self, request: Request) -> Response:
        return page(404)

    def tokenize(self, body: dict[str, Any]) -> Response:
        return page(404)

    def completion(self, body: dict[str, Any]) -> Response:
        return page(405)

    def refusal(self, body: dict[str, Any]) -> Response | None:
        if "max_tokens" in body:
            said = "Unsupported parameter: 'max_tokens' is not supported with this model."
            return error(400, said, "invalid_request_error", "unsupported_parameter")
        if body["model"] != self.model:
            return error(404, f"The model `{body['model']}` does not exist", "invalid_request_error", "model_not_found")
        if has_images(body):
            return error(400, "Invalid content type. image_url is only supported by certain models.", "x", None)
        return None

    def logprobs(self, body: dict[str, Any]) -> dict[str, Any] | None:
        return top_logprobs(body["top_logprobs"]) if body.get("logprobs") else None

    async def events(self, words: Sequence[str], finish: str, usage: dict[str, int]) -> AsyncIterator[bytes]:
        yield b": PROCESSING\n\n"
        for word in words:
            yield event({"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": ""}], "usage": None})
        yield event({"choices": [{"index": 0, "delta": None, "finish_reason": finish}], "usage": None})
        yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": None}], "usage": usage})
        yield b"data: [DONE]\n\n"


STAND_INS: Sequence[type[StandIn]] = (LMStudio, LlamaCpp, Ollama, TextGenerationInference, BareProxy)


def error(status: int, message: str, kind: str, code: int | str | None) -> Response:
    return JSONResponse({"error": {"message": message, "type": kind, "param": None, "code": code}}, status)


def invalid(message: str) -> Response:
    return JSONResponse({"error": f"Input validation error: {message}", "error_type": "validation"}, 422)


def page(status: int) -> Response:
    return Response(f"<html><body><h1>{status}</h1><hr>nginx</body></html>", status, media_type="text/html")


def event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document)}\n\n".encode()


def has_images(body: dict[str, Any]) -> bool:
    return any(isinstance(message["content"], list) for message in body["messages"])


def top_logprobs(count: int) -> dict[str, Any]:
    """Yes and No, which are equally likely."""
    likely = [{"token": answer, "logprob": -0.7, "bytes": None} for answer in ("Yes", "No")]
    return {"content": [{**likely[0], "top_logprobs": likely[:count]}]}
