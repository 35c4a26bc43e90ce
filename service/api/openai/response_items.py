"""The items of a Responses request's input, and the messages of a chat that they amount to."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from annotated_types import Len
from pydantic import Discriminator, Field, Tag

from service.api.openai.fields import Ignored, Only
from service.fail_fast import FAIL_FAST
from service.wire.model import WireModel
from service.wire.tools import FunctionName

MESSAGE = "message"
NOT_STORED = "nothing is stored here, so send the earlier items again as input"


def _form(given: object) -> str | None:
    if isinstance(given, str):
        return "text"
    return "list" if isinstance(given, list | tuple) else None


TEXT_OR_LIST = Discriminator(
    _form, custom_error_type="text_or_list", custom_error_message="Input should be a text or a list"
)


class InputText(WireModel):
    """A text of the user's, or of the model's in an earlier answer."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: Ignored = None
    logprobs: Ignored = None
    parsed: Ignored = None
    prompt_cache_breakpoint: Ignored = None

    def chat_part(self) -> dict[str, Any]:
        return {"type": "text", "text": self.text}


class InputImage(WireModel):
    """``image_url``: a ``data:`` URL or an https address."""

    type: Literal["input_image"]
    file_id: Annotated[Any, Only(hint="image_url may hold the image")] = None
    image_url: str
    detail: str | None = None
    prompt_cache_breakpoint: Ignored = None

    def chat_part(self) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": self.image_url, "detail": self.detail}}


InputPart = Annotated[InputText | InputImage, Field(discriminator="type")]


class MessageItem(WireModel):
    """A message, as a request states it or as an earlier answer had it."""

    type: Literal["message"] = "message"
    role: Literal["developer", "system", "user", "assistant"]
    content: Annotated[
        Annotated[str, Tag("text")] | Annotated[tuple[InputPart, ...], FAIL_FAST, Tag("list")], TEXT_OR_LIST
    ]
    id: Ignored = None
    phase: Ignored = None
    status: Ignored = None

    def chat_message(self) -> dict[str, Any]:
        content = self.content if isinstance(self.content, str) else [part.chat_part() for part in self.content]
        return {"role": self.role, "content": content}


class FunctionCallItem(WireModel):
    """A call that an earlier answer made. ``arguments``: JSON as the model wrote it."""

    type: Literal["function_call"]
    call_id: Annotated[str, Len(1, 200)]
    name: FunctionName
    arguments: str
    id: Ignored = None
    status: Ignored = None
    async_: Ignored = Field(None, alias="async")
    caller: Ignored = None
    namespace: Ignored = None
    parsed_arguments: Ignored = None

    def chat_call(self) -> dict[str, Any]:
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.call_id, "type": "function", "function": function}


class FunctionOutputItem(WireModel):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Len(1, 200)]
    output: Annotated[
        Annotated[str, Tag("text")] | Annotated[tuple[InputText, ...], FAIL_FAST, Tag("list")], TEXT_OR_LIST
    ]
    id: Ignored = None
    status: Ignored = None
    caller: Ignored = None
    name: Ignored = None
    namespace: Ignored = None

    def chat_message(self) -> dict[str, Any]:
        text = self.output if isinstance(self.output, str) else "".join(part.text for part in self.output)
        return {"role": "tool", "tool_call_id": self.call_id, "content": text}


class ReasoningText(WireModel):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(WireModel):
    """What the model thought before an earlier answer."""

    type: Literal["reasoning"]
    content: Annotated[tuple[ReasoningText, ...], FAIL_FAST] | None = None
    id: Ignored = None
    summary: Ignored = None
    encrypted_content: Ignored = None
    status: Ignored = None

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content or ())


def _kind(item: Any) -> Any:
    """The type that an item states; a message need not."""
    return item.get("type") or MESSAGE if isinstance(item, dict) else MESSAGE


InputItem = Annotated[
    Annotated[MessageItem, Tag(MESSAGE)]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(
        _kind,
        custom_error_type="item_type",
        custom_error_message=(
            "only items of these types are taken: message, function_call, function_call_output, reasoning; "
            f"{NOT_STORED}"
        ),
    ),
]

Input = Annotated[Annotated[str, Tag("text")] | Annotated[tuple[InputItem, ...], FAIL_FAST, Tag("list")], TEXT_OR_LIST]
"""What a request is about: a text of the user's, or items."""


class ChatMessages:
    """The messages of a chat, and where in the request each comes from.

    messages: as a chat completion states them.
    places: the field that each is made of, such as ``input.0``.
    """

    def __init__(self, instructions: str | None, given: str | Sequence[InputItem]) -> None:
        self.messages: list[dict[str, Any]] = []
        self.places: list[str] = []
        self._thoughts = ""
        if instructions:
            self._add({"role": "system", "content": instructions}, "instructions")
        if isinstance(given, str):
            self._add({"role": "user", "content": given}, "input")
            return
        for index, item in enumerate(given):
            self._add_item(item, f"input.{index}")

    def name_of(self, field: str) -> str:
        """The caller's name for a field below ``messages``."""
        _, _, rest = field.partition("messages.")
        index, _, inner = rest.partition(".")
        if not index.isdecimal() or int(index) >= len(self.places):
            return "input"
        place = self.places[int(index)]
        if "." not in place:  # a text, which has no fields
            return place
        inner = inner.replace(".image_url.url", ".image_url")
        return f"{place}.{inner}" if inner else place

    def _add_item(self, item: InputItem, place: str) -> None:
        match item:
            case ReasoningItem():
                self._thoughts += item.text
            case FunctionCallItem():
                self._add_call(item.chat_call(), place)
            case MessageItem() | FunctionOutputItem():
                self._add(item.chat_message(), place)

    def _add_call(self, call: dict[str, Any], place: str) -> None:
        """Calls belong to the assistant's message before them."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self._add({"role": "assistant"}, place)
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _add(self, message: dict[str, Any], place: str) -> None:
        if message["role"] == "assistant" and self._thoughts:
            message["reasoning_content"] = self._thoughts
        self._thoughts = ""
        self.messages.append(message)
        self.places.append(place)
