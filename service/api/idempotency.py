"""``Idempotency-Key``: a request that is sent again is answered again, and worked on once.

The rules are those of draft-ietf-httpapi-idempotency-key-header-07. A request with a key is worked on apart from the
connection that it came by, so that a client that lost its connection can send it again and pays once:

- The answer is recorded while it is made. Clients that send the same request meanwhile read it from its beginning. They
  are refused with StillAtWork if it does not begin within ``wait`` seconds.
- The work goes on for ``grace`` seconds while nobody reads. Then it ends as if its client had left.
- An answer that came to a good end is kept before its end is sent, and replayed. Every other one is forgotten, so that
  the client can try again.
- Where several services share a store, one at a time works under a key. The others wait for it as their clients do.

The same key with another request is refused with KeyReused. Requests without a key pay nothing for all this.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from service.api.disconnect import cancel_on_disconnect
from service.api.recording import Reader, Recording, Start
from service.api.sse import EventStream
from service.errors import KeyReused, RedraftError, StillAtWork, StoreUnavailable, wrong_field
from service.jobs.job import Once
from service.programs.kept_answers import AnswerStore, IdempotencyKey, KeptAnswer
from service.wire.problems import make_public

log = logging.getLogger(__name__)

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
"""Set to true in every answer that was made for an earlier request."""

LONGEST_KEY = 255
KEY_PARAMETER: Mapping[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Makes the request safe to send again: it is worked on once, and the same answer is sent.",
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
}
"""What the OpenAPI document says of the header."""

QUOTED = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')  # a String of RFC 9651, section 3.3.3
BARE = re.compile(r"[!-~]+")
RETRY_SECONDS = 1
POLL_SECONDS = 0.5
"""How soon it is found that another service has answered."""
MAINTAIN_SECONDS = 1.0
"""How often the store is told that the work goes on."""

Outcome = Literal["replayed", "joined", "still_at_work"]
Respond = Callable[[], Awaitable[Response]]


def parse_key(text: str) -> str:
    """The key in a header's value: a String of structured fields, or the same text without quotes, as most send it.

    Raises InvalidRequest.

    >>> parse_key('"a-1"') == parse_key("a-1") == "a-1"
    True
    """
    quoted = QUOTED.fullmatch(text)
    key = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else text
    if not 1 <= len(key) <= LONGEST_KEY or not (quoted or (BARE.fullmatch(key) and '"' not in key)):
        raise wrong_field(
            HEADER.lower(), f"must be a text of 1 to {LONGEST_KEY} ASCII characters, with or without quotes"
        )
    return key


async def note_key(request: Request) -> bool:
    """Note the key of a request whose caller is known; whether work or an answer is under it already.

    Raises InvalidRequest if the key is malformed.
    """
    stated = request.headers.getlist(HEADER)
    if not stated:
        return False
    if len(stated) > 1:
        raise wrong_field(HEADER.lower(), "must be stated once")
    key = IdempotencyKey(request.state.caller, parse_key(stated[0]))
    request.state.idempotency_key = key
    repeats: Repeats = request.state.repeats
    return await repeats.has(key)


def note_body(request: Request, body: bytes) -> None:
    """Note what the request is, if it has a key. Takes a millisecond for a megabyte."""
    if getattr(request.state, "idempotency_key", None) is not None:
        digest = hashlib.sha256(request.scope["path"].encode() + b"\n")
        digest.update(body)
        request.state.fingerprint = digest.hexdigest()


def set_apart(request: Request, preference: str) -> None:
    """Make the request another one than the same body without a preference that its headers state."""
    if getattr(request.state, "idempotency_key", None) is not None:
        request.state.fingerprint += f" {preference}"


def once_of(request: Request) -> Once | None:
    """What a job that the request becomes is kept under."""
    key: IdempotencyKey | None = getattr(request.state, "idempotency_key", None)
    return None if key is None else Once(key.value, request.state.fingerprint)


async def answer_once(request: Request, respond: Respond) -> Response:
    """What ``respond`` makes; of a request with a key only the first time. The body has to be read before."""
    key: IdempotencyKey | None = getattr(request.state, "idempotency_key", None)
    if key is None:
        return await respond()
    repeats: Repeats = request.state.repeats
    return await repeats.answer(key, request, respond)


class Repeats:
    """The requests with keys that are at work, and the answers of earlier ones.

    store: keeps the answers.
    max_answer_bytes: a longer answer is not kept.
    wait: seconds that a repeated request waits for an answer to begin.
    grace: seconds that work goes on while nobody reads its answer.
    on_repeat: called with what became of each request that is not the first under its key.
    """

    def __init__(
        self,
        store: AnswerStore,
        *,
        max_answer_bytes: int,
        wait: float,
        grace: float,
        on_repeat: Callable[[Outcome], None] = lambda outcome: None,
    ) -> None:
        self.store = store
        self.max_answer_bytes = max_answer_bytes
        self.wait = wait
        self.grace = grace
        self.on_repeat = on_repeat
        self._works: dict[IdempotencyKey, _Work] = {}
        self._maintaining: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look after the store."""
        self._maintaining = asyncio.create_task(self._maintain())

    async def has(self, key: IdempotencyKey) -> bool:
        """Whether a request with the key is at work or answered."""
        return key in self._works or await self.store.has(key)

    async def answer(self, key: IdempotencyKey, request: Request, respond: Respond) -> Response:
        """The response to a request: its own, or that of the same request before. Raises KeyReused."""
        fingerprint: str = request.state.fingerprint
        while (work := self._works.get(key)) is not None and work.is_given_up:
            await asyncio.wait((work.task,))
        if work is None:
            work = _Work(self, key, fingerprint, request.scope, respond)
            self._works[key] = work
            work.task.add_done_callback(lambda task: self._works.pop(key))
            return _Reading(work, is_first=True)
        if work.fingerprint != fingerprint:
            raise KeyReused("the key is in use for a request with another body or at another path")
        if work.recording.has_outgrown:  # too late to read it from its beginning
            raise self.make_still_at_work()
        work.note_reader()
        return _Reading(work, is_first=False)

    def make_still_at_work(self) -> StillAtWork:
        """Count and make the refusal of a request that is not answered yet."""
        self.on_repeat("still_at_work")
        return StillAtWork("the same request is still being worked on", retry_after=RETRY_SECONDS)

    async def close(self) -> None:
        """End all work."""
        tasks = [work.task for work in self._works.values()]
        tasks += [self._maintaining] if self._maintaining is not None else []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(MAINTAIN_SECONDS)
            try:
                lost = await self.store.maintain()
            except StoreUnavailable as error:
                log.warning("keys cannot be held", extra={"reason": str(error)})
                continue
            for key in lost:
                if work := self._works.get(key):
                    work.lose()


class _Work:
    """The work for one key, from the first request under it to the end of its answer.

    is_replay: whether the answer is an earlier one. is_given_up: whether it was ended because nobody read it.
    """

    def __init__(self, repeats: Repeats, key: IdempotencyKey, fingerprint: str, scope: Scope, respond: Respond) -> None:
        self.fingerprint = fingerprint
        self.repeats = repeats
        self.recording = Recording(repeats.max_answer_bytes, self._keep)
        self.is_replay = False
        self._is_kept = False
        self._response: Response | None = None
        self._key = key
        self._scope = scope
        self._respond = respond
        self._given_up = asyncio.Event()
        self._giving_up: asyncio.TimerHandle | None = None
        self.task = asyncio.create_task(self._run())

    @property
    def is_given_up(self) -> bool:
        return self._given_up.is_set()

    def note_reader(self) -> None:
        """Somebody reads the answer, so the work goes on."""
        if self._giving_up is not None:
            self._giving_up.cancel()

    def note_reader_left(self) -> None:
        """If nobody reads it any more, the work goes on for a while only; not at all if it can't be read again."""
        if not self.recording.has_readers and not self.task.done():
            grace = 0.0 if self.recording.has_outgrown else self.repeats.grace
            self._giving_up = asyncio.get_running_loop().call_later(grace, self._given_up.set)

    def lose(self) -> None:
        """End the work: another service has begun it."""
        self.recording.fail(self.repeats.make_still_at_work())
        self._given_up.set()

    async def _run(self) -> None:
        """Fill the recording. Never raises."""
        try:
            answer = await self._begin()
        except RedraftError as error:
            self.recording.fail(error)
            return
        except asyncio.CancelledError as error:  # the server ends
            self.recording.fail(error)
            return
        if answer is not None:
            self.is_replay = True
            self.recording.play(answer)
            return
        try:
            self._response = await self._respond()
            await self._response(self._scope, self._receive, self.recording.send)
        except asyncio.CancelledError as error:
            self.recording.fail(error)
        except Exception as error:  # noqa: BLE001 (its readers raise it)
            if not self.recording.has_readers:
                make_public(error, self._scope["state"]["request_id"])  # logs a bug, as nobody else does
            self.recording.fail(error)
        if not self._is_kept:
            await self._release()

    async def _begin(self) -> KeptAnswer | None:
        """The answer that was made before. While another service works on it, wait as a client does."""
        clock = asyncio.get_running_loop().time
        until = clock() + self.repeats.wait
        while True:
            try:
                return await self.repeats.store.begin(self._key, self.fingerprint)
            except StillAtWork:
                if clock() + POLL_SECONDS > until:
                    raise self.repeats.make_still_at_work() from None
            await asyncio.sleep(POLL_SECONDS)

    async def _keep(self, answer: KeptAnswer) -> None:
        """Keep the answer if it has come to a good end. Raises StillAtWork if another service has begun since."""
        response = self._response
        if not 200 <= answer.status < 300 or (isinstance(response, EventStream) and response.has_failed):
            return
        try:
            await self.repeats.store.keep(self._key, self.fingerprint, answer)
        except StillAtWork:
            raise self.repeats.make_still_at_work() from None
        except StoreUnavailable as error:  # the client has its answer nevertheless
            log.warning("an answer cannot be kept", extra={"reason": str(error)})
        else:
            self._is_kept = True

    async def _release(self) -> None:
        try:
            await self.repeats.store.release(self._key)
        except StoreUnavailable as error:  # the key is free after its lease
            log.warning("a key cannot be released", extra={"reason": str(error)})

    async def _receive(self) -> Message:
        """What the response receives: that its client has left, once the work is given up."""
        await self._given_up.wait()
        return {"type": "http.disconnect"}


class _Reading(Response):
    """The response to a request with a key: what the work's recording has."""

    def __init__(self, work: _Work, *, is_first: bool) -> None:
        self.status_code = 200
        self.background = None
        self._work = work
        self._is_first = is_first
        self._has_begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._work.recording.reader() as reader:
                self._work.note_reader()
                await self._respond(Request(scope, receive), reader, send)
        finally:
            self._work.note_reader_left()

    async def _respond(self, request: Request, reader: Reader, send: Send) -> None:
        try:
            await cancel_on_disconnect(request, self._forward(reader, send))
        except asyncio.CancelledError:  # the server ends
            self._work.task.cancel()
            await asyncio.wait((self._work.task,))
            if self._has_begun:  # a stream has said why
                await _forward_body(reader, send)
            raise

    async def _forward(self, reader: Reader, send: Send) -> None:
        start = await self._begin(reader)
        headers = list(start.headers)
        if outcome := self._outcome():
            self._work.repeats.on_repeat(outcome)
            headers.append((REPLAYED.lower().encode(), b"true"))
        self._has_begun = True
        await send({"type": "http.response.start", "status": start.status, "headers": headers})
        await _forward_body(reader, send)

    async def _begin(self, reader: Reader) -> Start:
        if self._is_first:
            return await reader.start()
        try:
            async with asyncio.timeout(self._work.repeats.wait):
                return await reader.start()
        except TimeoutError:
            raise self._work.repeats.make_still_at_work() from None

    def _outcome(self) -> Outcome | None:
        if self._work.is_replay:
            return "replayed"
        return None if self._is_first else "joined"


async def _forward_body(reader: Reader, send: Send) -> None:
    async with aclosing(reader.pieces()) as pieces:
        async for piece, is_last in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
