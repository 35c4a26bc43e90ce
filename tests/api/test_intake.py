import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from service.api.intake import Intake
from service.errors import BodyTimeout, Overloaded


class Upload:
    """A request whose body comes piece by piece, as the test says."""

    def __init__(self) -> None:
        self.messages = asyncio.Queue[Message]()
        self.request = Request({"type": "http", "method": "POST", "headers": []}, self.messages.get)

    def send(self, piece: bytes, *, more: bool = True) -> None:
        self.messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})


def made(max_bytes: int = 10, seconds: float = 60.0) -> tuple[Intake, list[str]]:
    shed = list[str]()
    return Intake(max_bytes, seconds, on_shed=shed.append), shed


async def held(intake: Intake, size: int) -> None:
    async with asyncio.timeout(5):
        while intake.held != size:
            await asyncio.sleep(0)


async def body_of(intake: Intake, upload: Upload) -> bytes:
    async with intake.body(upload.request) as body:
        return body


async def test_a_body_counts_while_it_is_read_and_used() -> None:
    intake, _ = made()
    upload = Upload()
    upload.send(b"abc")
    upload.send(b"def", more=False)
    async with intake.body(upload.request) as body:
        assert (body, intake.held) == (b"abcdef", 6)
    assert intake.held == 0


async def test_half_a_body_takes_the_room_of_others() -> None:
    intake, shed = made(max_bytes=10)
    half, whole = Upload(), Upload()
    half.send(b"x" * 8)
    reading = asyncio.create_task(body_of(intake, half))
    await held(intake, 8)
    whole.send(b"yy")
    whole.send(b"y", more=False)
    with pytest.raises(Overloaded) as refused:
        await body_of(intake, whole)
    assert refused.value.retry_after is not None
    assert shed == ["overloaded"]
    assert intake.held == 8, "what was refused is let go"

    half.send(b"", more=False)
    assert await reading == b"x" * 8
    assert intake.held == 0


async def test_a_body_that_does_not_arrive_is_let_go() -> None:
    intake, shed = made(seconds=0.01)
    upload = Upload()
    upload.send(b"abc")
    with pytest.raises(BodyTimeout, match=r"within 0\.01 seconds"):
        await body_of(intake, upload)
    assert (intake.held, shed) == (0, [])


async def test_a_client_that_leaves_takes_its_bytes_along() -> None:
    intake, _ = made()
    upload = Upload()
    upload.send(b"abc")
    upload.messages.put_nowait({"type": "http.disconnect"})
    with pytest.raises(ClientDisconnect):
        await body_of(intake, upload)
    assert intake.held == 0
