"""The pages that the service has to read."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import pytest

from service.api.pages import LLMS_TXT, problem_types
from service.errors import RedraftError
from tests.support.serving import Served

ROOT = Path(__file__).parents[2]


class Anchors(HTMLParser):
    """The ids of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_data(self, data: str) -> None:
        self.text += data


async def test_the_type_of_a_problem_leads_to_its_section_of_a_page(served: Served) -> None:
    problem = await served.post("/v1/refine", {"prompt": 5})
    url, anchor = urldefrag(urljoin(str(problem.url), problem.json()["type"]))

    page = await served.client.get(url)
    found = Anchors()
    found.feed(page.text)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert anchor == "invalid_request"
    assert anchor in found.ids
    assert problem.json()["title"] in found.text


async def test_the_page_has_one_section_for_each_type(served: Served) -> None:
    found = Anchors()
    found.feed((await served.client.get("/problems")).text)

    assert found.ids == [kind.code for kind in problem_types()]
    assert len(set(found.ids)) == len(found.ids)
    assert {"overloaded", "engine_dead", "caller_limit", "internal_error"} <= set(found.ids)


def test_errors_that_are_only_groups_are_not_types() -> None:
    assert next(problem_types()) is RedraftError
    assert not {"RequestError", "Unavailable"} & {kind.__name__ for kind in problem_types()}


async def test_every_link_of_llms_txt_leads_somewhere(served: Served) -> None:
    page = await served.client.get("/llms.txt")
    links = re.findall(r"\]\(([^)]+)\)", page.text)

    assert page.headers["content-type"] == "text/plain; charset=utf-8"
    assert len(links) == 5
    for link in links:
        assert (await served.client.get(link)).status_code == 200, link


@pytest.mark.parametrize(("path", "body"), re.findall(r"^POST (\S+)\n\n(.*)$", LLMS_TXT, re.MULTILINE))
async def test_every_example_of_llms_txt_works(served: Served, path: str, body: str) -> None:
    response = await served.post(path, json.loads(body))
    assert response.status_code == 200, response.text
    assert '"status":4' not in response.text


def test_llms_txt_has_the_form_of_its_convention_and_names_every_page() -> None:
    title, _, summary, *_ = LLMS_TXT.splitlines()
    pages = [file for folder in ("guide", "operate", "reference") for file in ROOT.glob(f"docs/{folder}/*.md")]

    assert title == "# Redraft"
    assert summary.startswith("> ")
    assert len(re.findall(r"^POST", LLMS_TXT, re.MULTILINE)) == 4
    assert set(re.findall(r"`(docs/\S+)`", LLMS_TXT)) == {str(page.relative_to(ROOT)) for page in pages}
