"""The content blocks of a Messages request, and the messages of a chat that they amount to."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Field, Tag

from service.api.openai.fields import Ignored, Only
from service.api.openai.response_items import TEXT_OR_LIST
from service.fail_fast import FAIL_FAST
from service.wire.model import WireModel
from service.wire.tools import FunctionName

CallId = Annotated[str, Len(1, 200)]


class Block(WireModel):
    cache_control: Ignored = None


class TextBlock(Block):
    type: Literal["text"]
    text: str
    citations: Ignored = None

    def chat_part(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


class Base64Source(WireModel):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str

    @property
    def address(self) -> str:
        return f"data:{self.media_type};base64,{self.data}"


class UrlSource(WireModel):
    type: Literal["url"]
    url: str

    @property
    def address(self) -> str:
        return self.url


class ImageBlock(Block):
    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]
    transform: Annotated[Any, Only()] = None

    def chat_part(self) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": self.source.address}}


class ToolUseBlock(Block):
    """A call that an earlier answer made."""

    type: Literal["tool_use"]
    id: CallId
    name: FunctionName
    input: dict[str, Any]
    caller: Ignored = None

    def chat_call(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": json.dumps(self.input, ensure_ascii=False)}
        return {"id": self.id, "type": "function", "function": function}


class ToolResultBlock(Block):
    """What a call gave."""

    type: Literal["tool_result"]
    tool_use_id: CallId
    content: Annotated[
        Annotated[str, Tag("text")] | Annotated[tuple[TextBlock, ...], FAIL_FAST, Tag("list")], TEXT_OR_LIST
    ] = ""
    is_error: Ignored = None

    def chat_message(self) -> dict[str, Any]:
        text = self.content if isinstance(self.content, str) else "".join(block.text for block in self.content)
        return {"role": "tool", "tool_call_id": self.tool_use_id, "content": text}


class ThinkingBlock(WireModel):
    """What the model thought before an earlier answer."""

    type: Literal["thinking"]
    thinking: str
    signature: Ignored = None


ContentBlock = Annotated[
    TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock, Field(discriminator="type")
]


class MessageParam(WireModel):
    role: Literal["user", "assistant", "system"]
    content: Annotated[
        Annotated[str, Tag("text")] | Annotated[tuple[ContentBlock, ...], FAIL_FAST, Tag("list")], TEXT_OR_LIST
    ]


SystemText = Annotated[
    Annotated[str, Tag("text")] | Annotated[tuple[TextBlock, ...], FAIL_FAST, Tag("list")], TEXT_OR_LIST
]


class ChatMessages:
    """The messages of a chat, and where in the request each comes from.

    messages: as a chat completion states them.
    """

    def __init__(self, system: str | Sequence[TextBlock] | None, given: Sequence[MessageParam]) -> None:
        self.messages: list[dict[str, Any]] = []
        self._sources: list[_Source] = []
        if system:
            text = system if isinstance(system, str) else "\n\n".join(block.text for block in system)
            self._add({"role": "system", "content": text}, _Source("system"))
        for index, message in enumerate(given):
            self._add_message(message, f"messages.{index}")

    def name_of(self, field: str) -> str:
        """The caller's name for a field below ``messages``."""
        _, _, rest = field.partition("messages.")
        index, _, inner = rest.partition(".")
        if not index.isdecimal() or int(index) >= len(self._sources):
            return "messages"
        return self._sources[int(index)].name_of(inner)

    def _add(self, message: dict[str, Any], source: "_Source") -> None:
        self.messages.append(message)
        self._sources.append(source)

    def _add_message(self, message: MessageParam, place: str) -> None:
        if isinstance(message.content, str):
            self._add({"role": message.role, "content": message.content}, _Source(place))
            return
        made, source = self._begin(message, place)
        for index, block in enumerate(message.content):
            match block:
                case ToolResultBlock():  # a message of its own; what follows is another one of the user's
                    if source.parts:
                        self._add(made, source)
                    self._add(block.chat_message(), _Source(f"{place}.content.{index}"))
                    made, source = self._begin(message, place)
                case ToolUseBlock():
                    made.setdefault("tool_calls", []).append(block.chat_call())
                    source.calls.append(index)
                case ThinkingBlock():
                    made["reasoning_content"] = made.get("reasoning_content", "") + block.thinking
                case TextBlock() | ImageBlock():
                    made["content"].append(block.chat_part())
                    source.parts.append(index)
        if source.parts or source.calls or not any(isinstance(block, ToolResultBlock) for block in message.content):
            self._add(made, source)

    @staticmethod
    def _begin(message: MessageParam, place: str) -> tuple[dict[str, Any], "_Source"]:
        return {"role": message.role, "content": []}, _Source(place)


class _Source:
    """Where a chat's message comes from: a field of the request, and the blocks that are its parts and its calls."""

    def __init__(self, place: str) -> None:
        self.parts: list[int] = []
        self.calls: list[int] = []
        self._place = place

    def name_of(self, inner: str) -> str:
        """The caller's name for a field of the message."""
        for ours, blocks in (("content", self.parts), ("tool_calls", self.calls)):
            step, _, rest = inner.partition(".")
            index, _, _ = rest.partition(".")
            if step == ours and index.isdecimal() and int(index) < len(blocks):
                return f"{self._place}.content.{blocks[int(index)]}"
        return f"{self._place}.{inner}" if inner and self._place.count(".") == 1 else self._place
