"""The README's three requests, sent as they stand, answer in the form that it shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.real.conftest import Service

README = Path(__file__).parents[2] / "README.md"
EXAMPLES = re.findall(
    r"curl http://127\.0\.0\.1:8000(\S+) .*? -d '(.*?)'\n```.*?```json\n(.*?)```", README.read_text(), re.S
)


def test_there_are_three_examples() -> None:
    assert [path for path, _, _ in EXAMPLES] == ["/v1/refine", "/v1/critique", "/v1/generate"]


@pytest.mark.parametrize(("path", "request_body", "shown"), EXAMPLES, ids=[path for path, _, _ in EXAMPLES])
async def test_an_example_answers_as_shown(service: Service, path: str, request_body: str, shown: str) -> None:
    answer = await service.client.post(path, json=json.loads(request_body))

    assert answer.status_code == 200
    assert not missing(json.loads(shown), answer.json())


async def test_the_refine_example_mends_its_draft(service: Service) -> None:
    answer = (await service.client.post("/v1/refine", json=json.loads(EXAMPLES[0][1]))).json()

    assert answer["rounds"][0]["candidates"][0]["passed"] is False
    assert (answer["passed"], answer["improved"]) == (True, True)


def missing(shown: Any, actual: Any, path: str = "$") -> list[str]:
    """Where the shown document has a field that the actual one lacks; of lists the first elements are compared."""
    if isinstance(shown, dict):
        gaps = [f"{path}.{name}" for name in shown if name not in actual]
        return gaps + [
            gap for name in shown if name in actual for gap in missing(shown[name], actual[name], f"{path}.{name}")
        ]
    if isinstance(shown, list) and shown:
        return missing(shown[0], actual[0], f"{path}.0") if actual else [f"{path}.0"]
    return []
