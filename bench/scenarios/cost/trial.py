"""One request, measured."""

import time
from dataclasses import dataclass, field
from http.client import HTTPConnection

from bench.scenarios.cost.server import Idle, MeasuredServer
from bench.scenarios.cost.shapes import Attack

REQUEST_SECONDS = 120.0
SETTLE_SECONDS = 0.2
"""What is left to do when the answer is there, such as freeing memory, is a part of the cost."""


@dataclass(frozen=True)
class Trial:
    """What a request has cost. ``status`` is 0 where there was no answer in two minutes."""

    attack: Attack = field(repr=False)
    status: int
    seconds: float
    loop_seconds: float
    process_seconds: float
    live_seconds: float
    memory_ratio: float

    def __str__(self) -> str:
        return (
            f"{self.attack.name}: {len(self.attack.body):,} bytes, status {self.status}, {self.seconds:.2f} s, "
            f"loop {self.loop_seconds:.3f} s, process {self.process_seconds:.2f} s, live {self.live_seconds:.3f} s, "
            f"memory {self.memory_ratio:.1f}"
        )


def measure_request(server: MeasuredServer, attack: Attack, idle: Idle) -> Trial:
    """The request's own cost: that of the probes while it runs, as in ``idle``, is left out."""
    server.forget_peak()
    before = server.cost()
    with server.prober.probing() as probe:
        begun = time.perf_counter()
        status = _send(server, attack)
        seconds = time.perf_counter() - begun
        time.sleep(SETTLE_SECONDS)
    after = server.cost()
    return Trial(
        attack,
        status,
        seconds,
        max(0.0, after.loop_seconds - before.loop_seconds - probe.answers * idle.loop_seconds),
        after.process_seconds - before.process_seconds,
        probe.longest,
        max(0, after.peak - before.resident) / max(len(attack.body), MEMORY_FLOOR),
    )


MEMORY_FLOOR = 65_536
"""Bytes that a smaller body counts as: what any request needs is not its own doing."""


def _send(server: MeasuredServer, attack: Attack) -> int:
    connection = HTTPConnection(server.host, server.port, timeout=REQUEST_SECONDS)
    try:
        connection.request("POST", attack.path, attack.body, {"Content-Type": attack.content_type})
        response = connection.getresponse()
        response.read()
    except TimeoutError:
        return 0
    finally:
        connection.close()
    return response.status
