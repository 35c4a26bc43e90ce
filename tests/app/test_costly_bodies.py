"""Bodies made to cost much more than their bytes, against the service as a process of its own.

Every list, object and text of every request is filled with what parsers and validators find dear: very many wrong
members, unknown keys, empty containers, escapes. Peak memory may grow by twenty times a body's bytes.
"""

import http.client
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import BaseModel

from service.api.batches import BatchRequest
from service.api.openai.translate import ChatRequest
from service.wire.requests import CritiqueRequest, GenerateRequest, RefineRequest
from tests.support.attack_places import places

MIB = 1 << 20
MOST_ADDRESSES = 4_000_000 * 1024
MOST_TIMES = 20
ALWAYS_ALLOWED = 6 * MIB
"""What a thread, its stack and the allocator's own rounding may take, whatever the body is."""
MOST_LOOP_SECONDS = 1.0
"""Processor time of the event loop's thread. Seconds on a clock say little on a machine that others use."""

ROUTES: dict[str, type[BaseModel]] = {
    "/v1/generate": GenerateRequest,
    "/v1/critique": CritiqueRequest,
    "/v1/refine": RefineRequest,
    "/v1/chat/completions": ChatRequest,
    "/v1/batch": BatchRequest,
}


def many(value: bytes, size: int) -> bytes:
    return b"[" + (value + b",") * (size // (len(value) + 1)) + b"0]"


def keys(count: int, value: bytes = b"0") -> bytes:
    return b"{" + b",".join(b'"%05d":%s' % (number, value) for number in range(count)) + b"}"


SIZE = MIB - 1000
FILLINGS = {
    "zeros": many(b"0", SIZE),
    "objects": many(b"{}", SIZE),
    "lists": many(b"[]", SIZE),
    "texts": many(b'""', SIZE),
    "keys": keys(SIZE // 10),
    "few zeros": many(b"0", 16_000),
    "few keys": keys(990),
    "few objects": many(keys(60), 80_000),
    "spaced lists": many(b"[]" + b" " * 64, SIZE),
    "spaced objects": many(b'{"a":0}' + b" " * 90, SIZE),
    "spaced keys": keys(500, many(b'""' + b" " * 30, 1_900)),
    "nested": b"[" * 190 + b"]" * 190,
    "escapes": b'"' + rb"\u4e00" * (SIZE // 6) + b'"',
    "emoji": b'"' + "😀".encode() * (SIZE // 4) + b'"',
    "wide": b'"' + b"a" * (SIZE - 4) + "😀".encode() + b'"',
}


@dataclass
class Service:
    """The service's process. ``idle``: its memory in bytes before the first attack."""

    pid: int
    port: int
    idle: int = 0
    latencies: list[float] = field(default_factory=list)

    def post(self, path: str, body: bytes) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def is_alive(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", "/health/live")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def memory(self, name: str) -> int:
        """``VmRSS``, or ``VmHWM`` for the peak since ``forget_peak``, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        [kib] = [line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:")]
        return int(kib) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def loop_seconds(self) -> float:
        """Processor time of the main thread, which runs the event loop."""
        fields = Path(f"/proc/{self.pid}/task/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask for a sign of life again and again meanwhile, and note how long each took."""
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                asked = time.monotonic()
                assert self.is_alive()
                self.latencies.append(time.monotonic() - asked)
                over.wait(0.02)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))


@pytest.fixture
def service() -> Iterator[Service]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # One arena: else what a thread has freed stays with it, and sums up over the attacks of a test.
    settings = {"REDRAFT_ENGINE": "scripted", "REDRAFT_PORT": str(port), "MALLOC_ARENA_MAX": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        env={**os.environ, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_bounded,
    )
    served = Service(process.pid, port)
    try:
        while not served.is_alive():
            assert process.poll() is None
            time.sleep(0.05)
        served.post("/v1/refine", b'{"prompt":"hi"}')
        served.idle = served.memory("VmRSS")
        yield served
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("path", "model"), ROUTES.items())
def test_no_body_costs_much_more_than_its_bytes(service: Service, path: str, model: type[BaseModel]) -> None:
    dear = []
    with service.watched():
        for place in places(model):
            for name, filling in FILLINGS.items():
                body = place.body(filling)
                service.forget_peak()
                before, used = service.memory("VmRSS"), service.loop_seconds()
                status = service.post(path, body)
                grown, used = service.memory("VmHWM") - before, service.loop_seconds() - used
                if grown > max(MOST_TIMES * len(body), ALWAYS_ALLOWED) or used > MOST_LOOP_SECONDS or status >= 500:
                    dear.append((place.name, name, status, len(body), grown, used))
    assert dear == []
    # Nothing of a hundred bodies stays but what the allocator keeps for the next one.
    assert service.memory("VmRSS") - service.idle < 4 * MOST_TIMES * MIB


LINE = b'{"custom_id":"%d","url":"/v1/generate","body":%s}'
BATCH_SIZE = 16 * MIB - 100


def whole_batch(filling: bytes) -> bytes:
    """As many lines as fit, up to the bound."""
    count = min(BATCH_SIZE // (len(filling) + 60), 1_000)
    return b'{"requests":[' + b",".join(LINE % (number, filling) for number in range(count)) + b"]}"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"requests":' + many(b"0", BATCH_SIZE - 20) + b"}", id="zeros"),
        pytest.param(b'{"requests":' + many(b"{}", BATCH_SIZE - 20) + b"}", id="objects"),
        pytest.param(b'{"requests":' + many(b"[]", BATCH_SIZE - 20) + b"}", id="lists"),
        pytest.param(b'{"requests":[' + many(b"[]", BATCH_SIZE - 20) + b"]}", id="one line of lists"),
        pytest.param(many(b"[]", BATCH_SIZE), id="a list of lists"),
        pytest.param(keys(BATCH_SIZE // 12), id="keys"),
        pytest.param(b'{"requests":' + keys(BATCH_SIZE // 12 - 2) + b"}", id="keys of requests"),
        pytest.param(b'{"requests":[' + b" " * (BATCH_SIZE - 20) + b"]}", id="blanks"),
        pytest.param(b'{"requests":["' + b"\\n" * (BATCH_SIZE // 2 - 20) + b'"]}', id="escapes"),
        pytest.param(whole_batch(b'{"prompt":"' + b"a" * 500_000 + b'"}'), id="texts"),
        pytest.param(whole_batch(b'{"stop":"' + b"\\n" * 8_000 + b'"}'), id="lines of escapes"),
        pytest.param(whole_batch(b'{"stop":' + many(b"{}" + b" " * 64, 16_000) + b"}"), id="lines of objects"),
        pytest.param(whole_batch(b'{"prompt":"' + "a😀".encode() * (MIB // 5 - 100) + b'"}'), id="long lines"),
        pytest.param(whole_batch(keys(900, b'"%s"' % (b"x" * 8))), id="lines of keys"),
    ],
)
def test_no_batch_costs_much_more_than_its_bytes(service: Service, body: bytes) -> None:
    assert len(body) <= 16 * MIB
    with service.watched():
        service.forget_peak()
        used = service.loop_seconds()
        status = service.post("/v1/batch", body)
        grown, used = service.memory("VmHWM") - service.idle, service.loop_seconds() - used
    print(f"{len(body)} bytes: {status}, {grown / len(body):.1f} times, {used} s, {max(service.latencies):.3f} s")
    assert status in (200, 413, 422)
    assert grown <= MOST_TIMES * len(body)
    assert used < MOST_LOOP_SECONDS or status == 200, "what is refused costs the event loop nothing"


def test_bodies_that_never_end_are_held_within_a_bound(service: Service) -> None:
    size = 16 * MIB
    head = b"POST /v1/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    uploads = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(16)]
    service.forget_peak()
    try:
        for upload in uploads:
            upload.settimeout(10)
            try:
                upload.sendall(head + b"Content-Length: %d\r\n\r\n{" % size + b" " * (size - 2))
            except OSError:
                continue  # the server has refused it and reads no more
        assert service.is_alive()
        assert service.memory("VmHWM") - service.idle < 128 * MIB + 32 * MIB
    finally:
        for upload in uploads:
            upload.close()
