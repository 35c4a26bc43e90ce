"""Settings from the environment (``REDRAFT_*``), read once and immutable.

``Settings()`` raises ValueError (pydantic's ValidationError or pydantic-settings' SettingsError) with a message for the
operator; no message holds a key or its hash.
"""

import difflib
import ipaddress
import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.deliveries.receivers import ReceiverSettings
from service.engines.local import bundled
from service.engines.thoughts import AUTO, NONE, Thinking
from service.evaluators.external.webhook_client import WebhookSettings
from service.models import LEARNED, Adapter, FurtherModel, ModelName, Servers, check_server_url
from service.outbound import parse_origin
from service.store.places import is_postgres

PREFIX = "REDRAFT_"
KEY_ENTRY = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9A-Fa-f]{64})")
WebhookName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


def _host(text: str) -> str:
    parse_origin(text)
    return text


Host = Annotated[str, AfterValidator(_host)]
HostName = Annotated[str, StringConstraints(pattern=r"^(\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])$", to_lower=True)]
WebOrigin = Annotated[str, StringConstraints(pattern=r"^(\*|[a-z][a-z0-9+.-]*://[^/\s,]+)$")]
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


def _as_list(value: Any) -> Any:
    """What a variable lists, between commas or as JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [item.strip() for item in value.split(",") if item.strip()]


LISTED = (NoDecode, BeforeValidator(_as_list))


def _server_urls(text: str) -> str:
    for url in text.split(","):
        check_server_url(url.strip())
    return text


class Settings(BaseSettings):
    """What an operator may set. An empty variable counts as not set; an unknown ``REDRAFT_*`` one is an error."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )

    host: str = Field(
        "127.0.0.1", min_length=1, description="address to listen on; outside loopback, keys are required"
    )
    port: int = Field(8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one")
    api_keys: str | None = Field(None, repr=False, description="bearer keys, each as name:sha256-hex, comma-separated")
    api_keys_file: Path | None = Field(
        None, description="file of bearer keys, one name:sha256-hex per line; # starts a comment"
    )
    operators: Annotated[list[str], *LISTED] = Field(
        [],
        description="names of the keys that may see and change what learns, comma-separated or as JSON",
    )
    allow_anonymous: bool = Field(False, description="serve outside loopback without keys")
    allowed_hosts: Annotated[list[HostName] | None, *LISTED] = Field(
        None,
        description=(
            "accepted Host headers, comma-separated or as JSON; * for any; "
            "without keys on loopback, its names by default"
        ),
    )
    cors_origins: Annotated[list[WebOrigin], *LISTED] = Field(
        [],
        description="origins whose web pages may use the service, comma-separated or as JSON",
    )
    engine: Literal["vllm", "openai", "scripted"] = Field(
        "vllm", description="vllm in this process, openai for remote servers, or scripted for tests"
    )
    engine_urls: Annotated[str, AfterValidator(_server_urls)] | None = Field(
        None,
        description="URLs of remote servers of one model, comma-separated, with or without a trailing /v1",
    )
    engine_key: str | None = Field(
        None, pattern=r"^[!-~]+$", repr=False, description="bearer key for the remote servers"
    )
    tokenizer: str | None = Field(
        None,
        description="folder or hub name of remote servers' tokenizer; by default their model's folder, if it is here",
    )
    model: str = Field(
        "bundled",
        min_length=1,
        description="bundled (the embedded model), a local folder or a hub name; or remote servers' name for it",
    )
    models: dict[ModelName, FurtherModel] = Field(
        {}, repr=False, description="JSON object of further models by name: remote servers or adapters"
    )
    reasoning_parser: str = Field(
        "auto",
        pattern=r"^[a-z0-9_]+$",
        description="how to separate a model's thoughts from its answer: auto, none, or the name of a vLLM parser",
    )
    chat_template_kwargs: dict[str, Any] = Field(
        {}, description="JSON object of variables for the model's chat template, such as enable_thinking"
    )
    critic: str | None = Field(
        None, description="model that critiques if a request does not name one; by default the request's writer"
    )
    judge: str | None = Field(
        None, description="model that judges if a request does not name one; by default the request's writer"
    )
    judge_both_directions: bool = Field(
        False,
        description="ask a judge each question twice, with Yes and No named in both orders, and average the answers",
    )
    judge_check: bool = Field(
        True, description="measure a judge once, after the start, by a few built-in pairs of right and wrong replies"
    )
    calibration: Path | None = Field(
        None, description="file that calibrate wrote of a judge; by default it is looked for in the cache folder"
    )
    learning_dir: Path | None = Field(
        None, description="folder of `learn`; the adapter that it promotes serves as the model `learned`"
    )
    engine_args: dict[str, Any] = Field({}, description="JSON object passed to vLLM's AsyncEngineArgs unchanged")
    max_programs: int = Field(64, ge=1, description="requests in progress at once")
    max_queued: int = Field(256, ge=0, description="requests in the queue; above it, 503")
    max_programs_per_key: int | None = Field(
        None, ge=1, description="requests in progress or queued under one key; above it, 429; none for no limit"
    )
    max_connections: int = Field(1_000, ge=1, description="open connections; above it, an idle one is closed")
    max_body_bytes: int = Field(1_048_576, ge=1, description="bytes of a request's body; above it, 413")
    max_body_memory: int = Field(134_217_728, ge=1, description="bytes of all bodies being read at once; above it, 503")
    max_body_seconds: float = Field(
        30.0, gt=0, allow_inf_nan=False, description="seconds in which a body must arrive; after that, 408"
    )
    max_batches: int = Field(4, ge=1, description="batches in progress at once; above it, 503")
    max_batch_programs: int = Field(
        8, ge=1, description="lines of all batches in progress at once, behind other requests"
    )
    max_batch_bytes: int = Field(16_777_216, ge=1, description="bytes of a batch's body; above it, 413")
    max_batch_seconds: float = Field(
        86_400.0, gt=0, allow_inf_nan=False, description="seconds after which no more lines of a batch start"
    )
    page: bool = Field(True, description="people may use the page at `/`")
    mcp: bool = Field(False, description="agents may use `/mcp`, the Model Context Protocol")
    store: str | None = Field(
        None,
        min_length=1,
        repr=False,
        description="file or postgresql:// URL of the database for jobs, traces and repeats; without it, no jobs",
    )
    store_password_file: Path | None = Field(None, description="file with the password for store, if it is a URL")
    max_jobs: int = Field(8, ge=1, description="background jobs in progress at once")
    max_queued_jobs: int = Field(1_000, ge=0, description="background jobs in the queue; above it, 503")
    job_keep_seconds: float = Field(
        604_800.0, gt=0, allow_inf_nan=False, description="seconds for which ended background jobs are kept"
    )
    job_lease_seconds: float = Field(
        15.0,
        ge=5,
        allow_inf_nan=False,
        description="seconds after which another replica takes a lost replica's jobs and idempotency keys",
    )
    notice_receivers: dict[WebhookName, ReceiverSettings] = Field(
        {}, repr=False, description="JSON object of webhooks to which notices of the ends of background jobs may go"
    )
    stored_traces: bool = Field(
        False, description="store the traces of programs whose requests say store: true, texts included, in the store"
    )
    stored_traces_days: float = Field(30.0, gt=0, allow_inf_nan=False, description="days for which traces are stored")
    redaction: str = Field(
        "default",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="what is blanked in texts before they are stored: default, off, or an installed hook by its name",
    )
    max_file_bytes: int = Field(209_715_200, ge=1, description="bytes of a file of requests; above it, 413")
    max_files_bytes: int = Field(
        10_737_418_240, ge=1, description="bytes of all files and of the input of unfinished batches; above it, 413"
    )
    max_stored_bytes_per_key: int = Field(
        5_368_709_120, ge=1, description="bytes of jobs, files and stored traces that one key may keep; above it, 413"
    )
    file_keep_seconds: float = Field(
        2_592_000.0, gt=0, allow_inf_nan=False, description="most seconds for which files and ended batches are kept"
    )
    max_candidates: int = Field(16, ge=1, description="most candidates of a request")
    max_rounds: int = Field(10, ge=0, description="most rounds of a request")
    max_tokens: int = Field(32_768, ge=1, description="most completion tokens of each call of a request")
    max_seconds: float = Field(600.0, gt=0, allow_inf_nan=False, description="most seconds of a request")
    idempotency_bytes: int = Field(
        67_108_864,
        ge=0,
        description="bytes of answers that are kept for requests with an Idempotency-Key; the oldest go first",
    )
    idempotency_seconds: float = Field(
        86_400.0, ge=0, allow_inf_nan=False, description="seconds for which such an answer is kept"
    )
    idempotency_wait: float = Field(
        10.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds for which a request sent again waits for the first one's answer; after that, 409",
    )
    idempotency_grace: float = Field(
        60.0,
        ge=0,
        allow_inf_nan=False,
        description="seconds for which the work of such a request goes on after its clients have left",
    )
    tasks_dir: Path | None = Field(None, description="folder of task files, in addition to the built-in ones")
    webhooks: dict[WebhookName, WebhookSettings] = Field(
        {}, repr=False, description="JSON object of webhooks that requests may name"
    )
    webhook_hosts: list[str] = Field(
        [], description="JSON list of hosts at which callers may use webhooks of their own"
    )
    image_hosts: list[Host] = Field([], description="JSON list of hosts from which callers may have images fetched")
    tracing: bool = Field(False, description="send traces, configured by OpenTelemetry's own variables (OTEL_*)")
    drain_seconds: float = Field(
        120.0, ge=0, allow_inf_nan=False, description="seconds that requests in progress may take after SIGTERM"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="lowest severity that is logged"
    )

    @classmethod
    def table(cls) -> list[tuple[str, str, str]]:
        """Name in the environment, default and meaning of every setting, for ``python -m service settings``."""
        return [
            (PREFIX + name.upper(), _shown(field.default), field.description or "")
            for name, field in cls.model_fields.items()
        ]

    @cached_property
    def keys(self) -> tuple[tuple[str, bytes], ...]:
        """Every configured key: its name and the SHA-256 of its secret. A name may have several, to rotate them."""
        return tuple(_parse_key(where, entry) for where, entry in self._key_entries())

    @property
    def operator_names(self) -> frozenset[str] | None:
        """The callers who are operators; None for all, which they are on loopback without keys."""
        return None if not self.keys and _is_loopback(self.host) else frozenset(self.operators)

    @property
    def hosts(self) -> frozenset[str] | None:
        """The names that the service answers to; the address that it listens on is one too. None for any."""
        if self.allowed_hosts is None and not self.keys and _is_loopback(self.host):
            return frozenset(LOOPBACK_NAMES)
        return None if self.allowed_hosts is None or "*" in self.allowed_hosts else frozenset(self.allowed_hosts)

    @property
    def page_origins(self) -> frozenset[str] | None:
        """The origins whose web pages may send requests; None for any. A key is a page's own permission."""
        return None if self.keys or "*" in self.cors_origins else frozenset(self.cors_origins)

    @cached_property
    def store_password(self) -> str | None:
        """The password that the store's URL leaves out."""
        return None if self.store_password_file is None else _read(self.store_password_file).strip()

    @property
    def servers(self) -> Servers:
        """Where the main model is, if it is on remote servers."""
        urls = dict.fromkeys(url.strip() for url in (self.engine_urls or "").split(","))
        return Servers(tuple(urls), self.model, self.engine_key, self.tokenizer, self.thinking)

    @property
    def thinking(self) -> Thinking:
        """How the main model thinks."""
        return Thinking(self.reasoning_parser, self.chat_template_kwargs)

    @property
    def adapters(self) -> list[Path]:
        """The folders of the further models that are adapters of the main one."""
        return [stated.adapter for stated in self.models.values() if isinstance(stated, Adapter)]

    @property
    def model_name(self) -> str:
        """The name by which requests and answers call the main model."""
        if self.engine == "scripted":
            return "scripted"
        if self.model == "bundled":
            return bundled.NAME
        if self.engine == "openai":
            return self.model
        path = Path(self.model)
        return path.name if path.is_dir() else self.model

    @property
    def model_names(self) -> tuple[str, ...]:
        """All models whose weights stay as they are, the main one first."""
        return (self.model_name, *self.models)

    @property
    def served_names(self) -> tuple[str, ...]:
        """All models that requests may name, the main one first."""
        return (*self.model_names, *([LEARNED] if self.learning_dir else []))

    def _key_entries(self) -> Iterator[tuple[str, str]]:
        """Each key as text, and where it was found."""
        if self.api_keys is not None:
            for number, entry in enumerate(self.api_keys.split(","), 1):
                yield f"{PREFIX}API_KEYS, entry {number}", entry.strip()
        if self.api_keys_file is not None:
            for number, line in enumerate(_read(self.api_keys_file).splitlines(), 1):
                if entry := line.partition("#")[0].strip():
                    yield f"{self.api_keys_file}, line {number}", entry

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_variables(cls, values: dict[str, Any]) -> dict[str, Any]:
        known = [PREFIX + name.upper() for name in cls.model_fields]
        for name in map(str.upper, os.environ):
            if name.startswith(PREFIX) and name not in known:
                nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
                raise ValueError(f"unknown setting {name}; did you mean {nearest}?")
        return values

    @model_validator(mode="after")
    def _refuse_half_a_remote_engine(self) -> Self:
        if self.engine == "openai" and (self.engine_urls is None or self.model == "bundled"):
            raise ValueError(
                f"the engine openai needs {PREFIX}ENGINE_URLS, and in {PREFIX}MODEL the server's name for its model"
            )
        if self.engine != "openai" and (self.engine_urls or self.engine_key or self.tokenizer):
            raise ValueError("engine_urls, engine_key and tokenizer only apply to the engine openai")
        if self.engine != "vllm" and self.reasoning_parser not in (AUTO, NONE):
            raise ValueError(
                f"{PREFIX}REASONING_PARSER names a vLLM parser, which only the engine vllm has: start remote "
                "servers with --reasoning-parser"
            )
        return self

    @model_validator(mode="after")
    def _refuse_a_password_without_a_use(self) -> Self:
        if self.store_password is not None and not (self.store and is_postgres(self.store)):
            raise ValueError(f"{PREFIX}STORE_PASSWORD_FILE only applies to a postgresql:// URL in {PREFIX}STORE")
        return self

    @model_validator(mode="after")
    def _refuse_models_that_cannot_be(self) -> Self:
        if self.model_name in self.models:
            raise ValueError(f"{PREFIX}MODELS has a model {self.model_name!r}, which is the main model's name")
        if self.engine != "vllm" and any(isinstance(stated, Adapter) for stated in self.models.values()):
            raise ValueError(f"adapters in {PREFIX}MODELS need the engine vllm in this process")
        if self.engine != "vllm" and self.learning_dir is not None:
            raise ValueError(f"{PREFIX}LEARNING_DIR needs the engine vllm in this process")
        if self.learning_dir is not None and LEARNED in self.model_names:
            raise ValueError(f"with {PREFIX}LEARNING_DIR no other model may be called {LEARNED!r}")
        for setting, name in (("CRITIC", self.critic), ("JUDGE", self.judge)):
            if name is not None and name not in self.model_names:
                known = ", ".join(self.model_names)
                raise ValueError(f"{PREFIX}{setting}: unknown model {name!r}; known are {known}")
        return self

    @model_validator(mode="after")
    def _refuse_notices_of_nothing(self) -> Self:
        if self.notice_receivers and self.store is None:
            raise ValueError(f"{PREFIX}NOTICE_RECEIVERS needs {PREFIX}STORE: without a store there are no jobs")
        return self

    @model_validator(mode="after")
    def _refuse_traces_without_a_store(self) -> Self:
        if self.stored_traces and self.store is None:
            raise ValueError(f"{PREFIX}STORED_TRACES needs {PREFIX}STORE, the database that keeps them")
        return self

    @model_validator(mode="after")
    def _refuse_bodies_that_never_fit(self) -> Self:
        if self.max_body_memory < max(self.max_body_bytes, self.max_batch_bytes):
            raise ValueError(
                f"{PREFIX}MAX_BODY_MEMORY must hold the largest body: at least {PREFIX}MAX_BODY_BYTES and "
                f"{PREFIX}MAX_BATCH_BYTES"
            )
        return self

    @model_validator(mode="after")
    def _refuse_operators_without_a_key(self) -> Self:
        if strangers := set(self.operators) - {name for name, _ in self.keys}:
            raise ValueError(f"{PREFIX}OPERATORS: no key is called {min(strangers)!r}")
        return self

    @model_validator(mode="after")
    def _refuse_to_serve_strangers(self) -> Self:
        if not self.keys and (self.api_keys is not None or self.api_keys_file is not None):
            raise ValueError("a source of keys is set, but it contains no key")
        if not self.keys and not self.allow_anonymous and not _is_loopback(self.host):
            raise ValueError(
                f"host {self.host} can be reached from other machines, and no keys are configured: set "
                f"{PREFIX}API_KEYS or {PREFIX}API_KEYS_FILE, or {PREFIX}ALLOW_ANONYMOUS=true to serve anyone"
            )
        return self


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return "none" if default is None else str(default)


def _parse_key(where: str, entry: str) -> tuple[str, bytes]:
    match = KEY_ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(f"{where}: a key is written name:sha256-hex, with the 64 digits that sha256sum prints for it")
    return match[1], bytes.fromhex(match[2])


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
