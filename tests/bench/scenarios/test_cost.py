"""What the search sends, and one measurement of a real server."""

import json
import random

from bench.scenarios.cost.__main__ import rank
from bench.scenarios.cost.server import serve_scripted
from bench.scenarios.cost.shapes import BATCH_BYTES, BODY_BYTES, SHAPES, Attack
from bench.scenarios.cost.trial import Trial, measure_request


def test_every_shape_is_within_the_limits_of_a_body() -> None:
    draws = random.Random(1)
    for shape in SHAPES:
        attack = shape(draws)
        limit = BATCH_BYTES if attack.path == "/v1/batch" else BODY_BYTES
        assert 0 < len(attack.body) <= limit + 100, attack.name


def test_a_change_keeps_the_shape() -> None:
    draws = random.Random(1)
    attack = SHAPES[0](draws)
    changed = [attack.changed(draws) for _ in range(50)]

    assert {other.path for other in changed} == {attack.path}
    assert len({other.body for other in changed}) > 5


def test_the_report_names_the_worst_of_each_measure() -> None:
    attacks = [Attack(name, "/", lambda piece, size, count: b"", "a", 1, 1) for name in ("slow", "long", "large")]
    costs = [(9.0, 0.1, 1.0), (0.1, 9.0, 1.0), (0.1, 0.1, 99.0)]
    trials = [Trial(attack, 200, 1.0, a, a, b, c) for attack, (a, b, c) in zip(attacks, costs, strict=True)]

    assert [table.splitlines()[2].split("|")[1].strip() for table in rank(trials)] == ["slow", "long", "large"]


async def test_a_request_is_measured_on_a_real_server() -> None:
    text = "word " * 50_000
    body = {"prompt": "x", "candidate": text, "judge": False, "feedback": False}
    rule = {"type": "length", "unit": "words", "max": 5}

    def make(piece: str, size: int, count: int) -> bytes:
        return json.dumps({**body, "evaluators": [rule] * count}).encode()

    async with serve_scripted() as server:
        trial = measure_request(server, Attack("words", "/v1/critique", make, "word ", 1, 4), server.idle())

    assert trial.status == 200
    assert trial.process_seconds >= trial.loop_seconds > 0
    assert trial.live_seconds > 0
