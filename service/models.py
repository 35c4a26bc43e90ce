"""Models in addition to the main one, as the operator configures them in ``REDRAFT_MODELS``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
from annotated_types import Len
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, StringConstraints, Tag, model_validator

from service.engines.thoughts import Thinking


def check_server_url(text: str) -> str:
    """Return the address of an engine's server. Raises ValueError, without the address in its message, if it is invalid
    or may contain a secret."""
    if any(mark in text for mark in "?#@"):
        raise ValueError(
            "an engine's address must not have a query, a fragment or a user name, because addresses are logged; its "
            "key goes into REDRAFT_ENGINE_KEY, or into the key_file of REDRAFT_MODELS"
        )
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        raise ValueError("an engine's address is not a URL") from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 1) > 65535 or not text.isprintable():
        raise ValueError("an engine's address must be a URL that begins with http:// or https:// and names a host")
    if " " in text:
        raise ValueError("an engine's address must not have blanks; separate several addresses with commas")
    return text


ServerUrl = Annotated[str, AfterValidator(check_server_url)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{1,128}$")]
"""Has no colon, because the part after a colon says how the model works."""

LEARNED = "learned"
"""The name of the model that learns."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where a model is served.

    urls: of the servers.
    model: the servers' name for it.
    key: their bearer key.
    tokenizer: a folder or a name on the hub.
    thinking: whether and how the model thinks.
    """

    urls: tuple[str, ...]
    model: str
    key: str | None = field(default=None, repr=False)
    tokenizer: str | None = None
    thinking: Thinking = field(default_factory=Thinking)


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class RemoteModel(_Settings):
    """A model on one or more servers with OpenAI's API.

    urls: of the servers.
    model: the servers' name for it, by default its name here.
    key_file: contains their bearer key.
    tokenizer: a folder or a name on the hub; by default the folder that a server says it loaded, if it exists here.
    reasoning_parser: ``none`` leaves its texts unchanged.
    chat_template_kwargs: variables for its chat template.
    """

    urls: Annotated[tuple[ServerUrl, ...], Len(1)]
    model: Annotated[str, StringConstraints(min_length=1)] | None = None
    key_file: Path | None = None
    tokenizer: Annotated[str, StringConstraints(min_length=1)] | None = None
    reasoning_parser: Literal["auto", "none"] = "auto"
    chat_template_kwargs: dict[str, Any] = {}

    def servers(self, name: str) -> Servers:
        """Where the model ``name`` is served. Raises ValueError if ``key_file`` does not contain a key."""
        thinking = Thinking(self.reasoning_parser, self.chat_template_kwargs)
        return Servers(tuple(dict.fromkeys(self.urls)), self.model or name, self._load_key(), self.tokenizer, thinking)

    def _load_key(self) -> str | None:
        if self.key_file is None:
            return None
        try:
            key = self.key_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{self.key_file} cannot be read: {type(error).__name__}") from error
        if not key or not key.isprintable() or " " in key:
            raise ValueError(f"{self.key_file} does not contain exactly one bearer key")
        return key

    @model_validator(mode="after")
    def _check_key_file(self) -> "RemoteModel":
        """Report a missing file at startup."""
        self._load_key()
        return self


class Adapter(_Settings):
    """A LoRA adapter of the main model, loaded from a folder into the engine in this process."""

    adapter: Path

    @model_validator(mode="after")
    def _check_folder(self) -> "Adapter":
        if not (self.adapter / "adapter_config.json").is_file():
            raise ValueError(f"{self.adapter} is not the folder of an adapter: it has no adapter_config.json")
        return self


def _kind(stated: Any) -> str:
    return "adapter" if isinstance(stated, Adapter) or (isinstance(stated, dict) and "adapter" in stated) else "remote"


FurtherModel = Annotated[
    Annotated[RemoteModel, Tag("remote")] | Annotated[Adapter, Tag("adapter")], Discriminator(_kind)
]
