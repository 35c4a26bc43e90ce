"""Images in requests over HTTP: what reaches the engine, and what is refused by the name of its part."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redraft import AsyncRedraft
from redraft.requests import ImagePart, Message
from service.engines.conversation import Image
from service.engines.scripted import IMAGE_TOKENS, Script
from service.images.fetch import RemoteImages
from service.images.headers import MOST_BYTES
from service.outbound import PublicTransport, is_public
from tests.api.openai.test_sdk import client_of
from tests.support.listener import Answer, Listener, answered, listening, raw
from tests.support.listener import connects as connects  # a fixture
from tests.support.serving import Served, reply, serving
from tests.test_outbound import Authority, is_loopback


def bytes_of(text: str) -> bytes:
    return base64.b64decode(text)


PNG = bytes_of(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAGCAIAAABxZ0isAAAAFElEQVR4nGM8ISfHgA0wYRWlkwQAmxQBECiKgAAAAAAASUVORK5CYII="
)
JPEG = bytes_of(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDACgcHiMeGSgjISMtKygwPGRBPDc3PHtYXUlkkYCZlo+AjIqgtObDoKrarYqMyP/L2u71"
    "////m8H////6/+b9//j/2wBDASstLTw1PHZBQXb4pYyl+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4+Pj4"
    "+Pj4+Pj4+Pj/wAARCAAGAAgDASIAAhEBAxEB/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUF"
    "BAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVW"
    "V1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi"
    "4+Tl5ufo6erx8vP09fb3+Pn6/8QAHwEAAwEBAQEBAQEBAQAAAAAAAAECAwQFBgcICQoL/8QAtREAAgECBAQDBAcFBAQAAQJ3AAEC"
    "AxEEBSExBhJBUQdhcRMiMoEIFEKRobHBCSMzUvAVYnLRChYkNOEl8RcYGRomJygpKjU2Nzg5OkNERUZHSElKU1RVVldYWVpjZGVm"
    "Z2hpanN0dXZ3eHl6goOEhYaHiImKkpOUlZaXmJmaoqOkpaanqKmqsrO0tba3uLm6wsPExcbHyMnK0tPU1dbX2Nna4uPk5ebn6Onq"
    "8vP09fb3+Pn6/9oADAMBAAIRAxEAPwCtRRRWR6B//9k="
)
GIF = bytes_of("R0lGODdhCAAGAIEAAMgeHgAAAAAAAAAAACwAAAAACAAGAAAIDgABCBxIsKDBgwgTDgwIADs=")
WEBP = bytes_of("UklGRjoAAABXRUJQVlA4IC4AAACwAQCdASoIAAYAAUAmJaACdLoABDAAAP7x3I/4DdfFtMv/vYL/3YL/3YL/WwAA")
"""Red, 8 pixels wide and 6 high, in each kind."""

HOST = "pictures.example.com"
URL = "messages.0.content.1.image_url.url"
SEEING = Script(reply=reply, takes_images=True)


def data_url(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def part(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


def asking(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]}


def pictured(data: bytes) -> dict[str, Any]:
    return asking(part(data_url(data)))


@pytest.fixture
async def seeing() -> AsyncIterator[Served]:
    async with serving(SEEING) as served:
        yield served


async def refused(served: Served, body: dict[str, Any], path: str = "/v1/generate") -> tuple[str, str]:
    """The field that is named first, and why."""
    response = await served.post(path, body)
    assert response.status_code == 422, response.text
    [error, *_] = response.json()["errors"]
    return error["field"], error["message"]


async def test_an_image_reaches_every_call_of_a_refine(seeing: Served) -> None:
    asked = {**pictured(PNG), "search": {"rounds": 1}}
    response = await seeing.post("/v1/refine", asked)

    assert response.status_code == 200, response.text
    assert response.json()["usage"]["by_role"].keys() == {"draft", "judge", "critique", "revise"}
    assert len(seeing.engine.calls) > 3
    assert {tuple(call.conversation.images()) for call in seeing.engine.calls} == {(Image("image/png", PNG),)}
    assert all("What is it?" in next(call.conversation.turns()).text for call in seeing.engine.calls)


async def test_an_image_costs_tokens(seeing: Served) -> None:
    seen = (await seeing.post("/v1/generate", pictured(PNG))).json()["usage"]["prompt_tokens"]
    plain = (await seeing.post("/v1/generate", {"prompt": "What is it?"})).json()["usage"]["prompt_tokens"]

    assert seen == plain + IMAGE_TOKENS


async def test_texts_are_joined_and_images_keep_their_order_before_them(seeing: Served) -> None:
    parts = [{"type": "text", "text": "A "}, part(data_url(PNG)), {"type": "text", "text": "B"}]
    parts.append(part(data_url(GIF), detail="low"))
    await seeing.post("/v1/generate", {"messages": [{"role": "user", "content": parts}]})

    [call] = seeing.engine.calls
    assert call.conversation.turn.text == "A B"
    assert [image.media_type for image in tuple(call.conversation.images())] == ["image/png", "image/gif"]


async def test_a_critique_sees_earlier_images(seeing: Served) -> None:
    asked = pictured(PNG)["messages"] + [
        {"role": "assistant", "content": [{"type": "text", "text": "A square."}]},
        {"role": "user", "content": "Sure?"},
    ]
    response = await seeing.post("/v1/critique", {"messages": asked, "candidate": "Yes."})

    assert response.status_code == 200, response.text
    assert {tuple(call.conversation.images()) for call in seeing.engine.calls} == {(Image("image/png", PNG),)}


@pytest.mark.parametrize("path", ["/v1/generate", "/v1/refine", "/v1/chat/completions"])
async def test_a_model_that_takes_none_names_the_part_and_does_nothing(path: str, served: Served) -> None:
    response = await served.post(path, {"model": "scripted", **pictured(PNG)})

    named = response.json()["error"]["param"] if "chat" in path else response.json()["errors"][0]["field"]
    assert (response.status_code, named) == (400 if "chat" in path else 422, URL)
    assert "takes no images" in response.text
    assert served.engine.calls == []


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ([part("data:text/html;base64,AAAA")], URL),
        ([part("data:image/png;base64,????")], URL),
        ([part("data:image/png,AAAA")], URL),
        ([part(data_url(b"GIF8 not really"))], URL),
        ([part(data_url(PNG[:20]))], URL),
        ([part(data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml"))], URL),
        ([part("http://pictures.example.com/a.png")], URL),
        ([part("file:///etc/passwd")], URL),
        ([part("https://pictures.example.com/a.png")], URL),
        ([part("https://127.0.0.1/a.png")], URL),
        ([part("https://pictures.example.com/" + "a" * 3000)], URL),
        ([{"type": "image_url", "image_url": "https://pictures.example.com/a.png"}], "messages.0.content.1.image_url"),
        ([{"type": "image_url", "image_url": {"url": 5}}], URL),
        ([{"type": "input_audio"}], "messages.0.content.1.type"),
        ([part(data_url(PNG))] * 9, "messages.0.content.9"),
    ],
)  # fmt: skip
async def test_what_is_no_image_is_refused_by_the_name_of_its_part(
    parts: Sequence[dict[str, Any]], field: str, seeing: Served, connects: list[Any]
) -> None:
    before = len(connects)

    assert (await refused(seeing, asking(*parts)))[0] == field
    assert seeing.engine.calls == []
    assert {address[1] for address in connects[before:]} <= {seeing.client.base_url.port}


@pytest.mark.parametrize("role", ["system", "assistant"])
async def test_only_the_user_shows_images(role: str, seeing: Served) -> None:
    last = {"role": "user", "content": "Well?"}
    shown = [{"role": role, "content": [part(data_url(PNG))]}]
    messages = [*shown, last] if role == "system" else [last, *shown, last]

    field, reason = await refused(seeing, {"messages": messages})

    assert field == f"messages.{messages.index(shown[0])}.content.0.type"
    assert "user" in reason


async def test_an_image_alone_asks_nothing(seeing: Served) -> None:
    field, _ = await refused(seeing, {"messages": [{"role": "user", "content": [part(data_url(PNG))]}]})

    assert field == "messages.0.content"


async def test_the_sdk_sends_an_image(seeing: Served) -> None:
    async with client_of(seeing) as client:
        for model in ("scripted", "scripted:refine"):
            answer = await client.chat.completions.create(model=model, messages=pictured(PNG)["messages"])
            assert answer.choices[0].message.content

    assert {tuple(call.conversation.images()) for call in seeing.engine.calls} == {(Image("image/png", PNG),)}


async def test_the_client_sends_an_image(seeing: Served) -> None:
    image: ImagePart = {"type": "image_url", "image_url": {"url": data_url(PNG)}}
    shown: Message = {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}
    async with AsyncRedraft(str(seeing.client.base_url)) as client:
        result = await client.refine(messages=[shown])

    assert result.text == "Waves."
    assert {tuple(call.conversation.images()) for call in seeing.engine.calls} == {(Image("image/png", PNG),)}


async def test_messages_of_one_role_in_a_row_keep_their_images(seeing: Served) -> None:
    messages = [{"role": "user", "content": "First."}, *pictured(PNG)["messages"]]
    await seeing.post("/v1/chat/completions", {"model": "scripted", "messages": messages})

    [call] = seeing.engine.calls
    assert (call.prompt, tuple(call.conversation.images())) == ("First.\n\nWhat is it?", (Image("image/png", PNG),))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@asynccontextmanager
async def fetching(
    authority: Authority, *answers: Answer, address: str = "127.0.0.1", allowed: Any = is_loopback, **settings: Any
) -> AsyncIterator[tuple[Served, Listener, dict[str, Any]]]:
    """A service that may fetch from a host, the host, and a request for an image there."""

    async def resolve(_: str) -> Sequence[str]:
        return [address]

    async with listening(*answers, tls=authority.server(HOST)) as listener:
        public = PublicTransport(authority.client(), resolve=resolve, allowed=allowed)
        images = RemoteImages([f"{HOST}:{listener.port}"], public=public)
        async with serving(SEEING, images=images, **settings) as served:
            yield served, listener, asking(part(f"https://{HOST}:{listener.port}/a.png?b=1"))


async def test_an_image_at_an_allowed_host_is_fetched_and_handed_on_as_its_bytes(authority: Authority) -> None:
    async with fetching(authority, answered(JPEG, 200, "Content-Type: text/plain")) as (served, listener, asked):
        response = await served.post("/v1/refine", asked)
        calls = served.engine.calls

    assert response.status_code == 200, response.text
    assert {tuple(call.conversation.images()) for call in calls} == {(Image("image/jpeg", JPEG),)}
    [received] = listener.requests
    assert received.head.startswith("GET /a.png?b=1 HTTP/1.1\r\n")
    assert "authorization" not in received.headers


async def test_an_image_of_a_response_in_the_background_is_fetched_once(authority: Authority, tmp_path: Path) -> None:
    store = str(tmp_path / "jobs.db")
    async with fetching(authority, answered(JPEG, 200, "Content-Type: image/jpeg"), store=store) as (
        served,
        host,
        asked,
    ):
        address = asked["messages"][-1]["content"][-1]["image_url"]["url"]
        content = [{"type": "input_image", "image_url": url} for url in (data_url(PNG), address)]
        content.append({"type": "input_text", "text": "What is it?"})
        messages = [{"role": "user", "content": "Look."}, {"role": "user", "content": content}]
        body = {"model": "scripted", "input": messages, "background": True}
        begun = (await served.post("/v1/responses", body)).json()
        async with asyncio.timeout(10):
            while (await served.client.get(f"/v1/responses/{begun['id']}")).json()["status"] != "completed":
                await asyncio.sleep(0.005)

    [call] = served.engine.calls
    assert tuple(call.conversation.images()) == (Image("image/png", PNG), Image("image/jpeg", JPEG))
    assert len(host.requests) == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (answered(b"", 302, "Location: https://pictures.example.com/b.png"), "status 302"),
        (answered(b"gone", 404), "status 404"),
        (answered(b"<html>", 200, "Content-Type: image/png"), "PNG, JPEG, WebP or GIF"),
        (answered(b"\0" * (MOST_BYTES + 1)), "at most"),
        (raw(b"HTTP/1.1 200 -\r\nContent-Length: 999\r\n\r\nGIF", then_close=True), "broke"),
    ],
)
async def test_an_image_that_does_not_come_is_refused(authority: Authority, answer: Answer, reason: str) -> None:
    async with fetching(authority, answer) as (served, listener, asked):
        field, said = await refused(served, asked)

    assert field == URL
    assert reason in said
    assert len(listener.requests) == 1


async def test_an_allowed_host_at_a_private_address_is_not_asked(authority: Authority) -> None:
    async with fetching(authority, answered(PNG), allowed=is_public) as (served, listener, asked):
        field, said = await refused(served, asked)

    assert (field, said) == (URL, "the host has an address that is not public")
    assert listener.connections == 0


async def test_another_port_of_an_allowed_host_is_not_asked(authority: Authority) -> None:
    async with fetching(authority, answered(PNG)) as (served, listener, _):
        field, said = await refused(served, asking(part(f"https://{HOST}/a.png")))

    assert field == URL
    assert "the operator does not allow images" in said
    assert listener.connections == 0


async def test_a_host_that_does_not_answer_is_not_waited_for(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.images.fetch.FETCH_SECONDS", 0.2)
    async with fetching(authority, raw(b"")) as (served, _, asked):
        field, said = await refused(served, asked)

    assert field == URL
    assert "did not arrive within" in said
