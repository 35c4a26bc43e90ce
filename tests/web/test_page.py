"""The page and its files as they are served."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.web import assets
from service.web.page import POLICY, SECURITY, reachable
from tests.support.adapters import Shop, make_base
from tests.support.serving import Served, serving

FILES = Path(assets.__file__).parent / "files"
SCRIPTS = sorted(FILES.glob("js/**/*.js"))
MOST_BYTES = 150_000
"""All that a browser loads, compressed."""
MOST_LINES = 400


class Elements(HTMLParser):
    """The elements of a page: their names, attributes and texts."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.texts[self._open] = self.texts.get(self._open, "") + data.strip()

    def addresses(self) -> list[str]:
        """What the page loads."""
        return [value for _, attrs in self.found for name, value in attrs.items() if name in ("src", "href") and value]


@pytest.fixture
async def raw(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    """A client that takes nothing compressed."""
    async with httpx.AsyncClient(
        base_url=served.client.base_url, trust_env=False, headers={"Accept-Encoding": "identity"}
    ) as client:
        yield client


async def test_the_page_loads_only_files_of_its_own_and_all_of_them_are_there(served: Served) -> None:
    page = Elements((await served.client.get("/")).text)

    addresses = page.addresses()
    answers = [await served.client.get(f"/{address}") for address in addresses]
    assert {answer.status_code for answer in answers} == {200}
    modules = {address.partition("/js/")[2] for address in addresses} - {""}
    assert modules == {str(script.relative_to(FILES / "js")) for script in SCRIPTS}
    types = {
        address.rpartition(".")[2]: a.headers["content-type"] for address, a in zip(addresses, answers, strict=True)
    }
    assert types == {
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "svg": "image/svg+xml",
    }


async def test_the_page_has_no_script_and_no_style_between_its_tags(served: Served) -> None:
    response = await served.client.get("/")
    page = Elements(response.text)

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert page.texts.get("script", "") == ""
    assert "style" not in {tag for tag, _ in page.found}
    assert not [attrs for _, attrs in page.found if any(name.startswith("on") or name == "style" for name in attrs)]


async def test_the_policy_allows_nothing_inline_and_no_other_host(served: Served) -> None:
    assert "unsafe" not in POLICY
    assert "http" not in POLICY
    directives = dict(directive.split(" ", 1) for directive in POLICY.split("; "))
    assert directives["default-src"] == directives["frame-ancestors"] == directives["base-uri"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == directives["connect-src"] == "'self'"
    page = await served.client.get("/")
    script = await served.client.get(f"/{Elements(page.text).addresses()[-1]}")
    for response in (page, script):
        assert {name: response.headers[name] for name in SECURITY} == SECURITY


async def test_files_are_kept_for_good_and_the_page_is_asked_for_again(served: Served) -> None:
    page = await served.client.get("/")
    file = await served.client.get(f"/{Elements(page.text).addresses()[0]}")

    assert page.headers["cache-control"] == "no-cache"
    assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    for response in (page, file):
        etag = response.headers["etag"]
        same = await served.client.get(response.url, headers={"If-None-Match": f'"other", W/{etag}'})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        changed = await served.client.get(response.url, headers={"If-None-Match": '"other"'})
        assert changed.status_code == 200


@pytest.mark.parametrize("accepted", ["gzip", "br, gzip;q=0.5", "deflate,gzip"])
async def test_files_are_compressed_for_those_who_accept_it(raw: httpx.AsyncClient, accepted: str) -> None:
    async with raw.stream("GET", "/", headers={"Accept-Encoding": accepted}) as response:
        compressed = b"".join([chunk async for chunk in response.aiter_raw()])

    assert response.headers["content-encoding"] == "gzip"
    assert response.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(compressed) == (await raw.get("/")).content


@pytest.mark.parametrize("accepted", ["identity", "br", "gzip;q=0", "gzip; q=0.0"])
async def test_for_others_they_are_not(raw: httpx.AsyncClient, accepted: str) -> None:
    response = await raw.get("/", headers={"Accept-Encoding": accepted})

    assert "content-encoding" not in response.headers
    assert response.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize(
    "path", ["/assets/0123456789abcdef/js/main.js", "/assets/{digest}/js/none.js", "/assets/{digest}/../page.py"]
)
async def test_what_is_not_a_file_of_this_page_is_not_found(served: Served, path: str) -> None:
    digest = re.findall(r"assets/(\w+)/", (await served.client.get("/")).text)[0]

    response = await served.client.get(path.replace("{digest}", digest))

    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_all_that_a_browser_loads_is_light(served: Served) -> None:
    page = await served.client.get("/")
    digest = re.findall(r"assets/(\w+)/", page.text)[0]
    addresses = [*Elements(page.text).addresses(), f"assets/{digest}/schema.json"]

    weight = 0
    for address in ("", *addresses):
        async with served.client.stream("GET", f"/{address}", headers={"Accept-Encoding": "gzip"}) as response:
            weight += sum([len(chunk) async for chunk in response.aiter_raw()])
    assert weight < MOST_BYTES


async def test_the_form_gets_every_schema_that_a_refine_may_use(served: Served) -> None:
    digest = re.findall(r"assets/(\w+)/", (await served.client.get("/")).text)[0]
    schemas = (await served.client.get(f"/assets/{digest}/schema.json")).json()
    whole = (await served.client.get("/openapi.json")).json()

    named = {name.rpartition("/")[2] for name in re.findall(r'"\$ref":\s*"([^"]+)"', json.dumps(schemas))}
    assert named <= schemas.keys()
    assert schemas == {name: whole["components"]["schemas"][name] for name in schemas}
    assert {"RefineRequest", "SearchOverrides", "BudgetFields", "Length", "Judge", "Criterion"} <= schemas.keys()
    assert "ChatRequest" not in schemas


def test_schemas_may_refer_to_themselves() -> None:
    tree = {"properties": {"children": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}}}}

    assert reachable({"components": {"schemas": {"Tree": tree, "Other": {}}}}, "Tree") == {"Tree": tree}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, set()),
        ({"api_keys": f"someone:{'0' * 64}"}, {"keys"}),
        ({"store": "jobs.db", "stored_traces": True}, {"jobs", "stored_traces"}),
    ],
)
async def test_the_page_knows_what_the_service_offers(
    settings: dict[str, Any], expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with serving(**settings) as served:
        page = Elements((await served.client.get("/")).text)

    [content] = [attrs["content"] for _, attrs in page.found if attrs.get("name") == "redraft-features"]
    features = json.loads(content or "")
    assert {name for name, is_there in features.items() if is_there} == expected
    assert features.keys() == {"keys", "jobs", "stored_traces", "learning"}


async def test_the_page_shows_what_is_learned_where_something_is(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    async with Shop(tmp_path / "shop", make_base(tmp_path / "base")).serving() as served:
        page = Elements((await served.client.get("/")).text)

    [content] = [attrs["content"] for _, attrs in page.found if attrs.get("name") == "redraft-features"]
    assert json.loads(content or "")["learning"]


async def test_the_page_can_be_turned_off() -> None:
    async with serving(page=False) as served:
        for path in ("/", "/assets/0123456789abcdef/js/main.js"):
            assert (await served.client.get(path)).status_code == 404
        assert (await served.client.get("/docs")).status_code == 200


async def test_a_changed_file_has_another_address() -> None:
    files = {"a.js": assets.Asset.of("a.js", b"1"), "b.js": assets.Asset.of("b.js", b"2")}
    changed = {**files, "b.js": assets.Asset.of("b.js", b"3")}

    assert assets.digest_of(files) == assets.digest_of(dict(files))
    assert assets.digest_of(files) != assets.digest_of(changed)


@pytest.mark.parametrize("file", [*SCRIPTS, *sorted(FILES.glob("css/*.css"))], ids=lambda file: file.name)
def test_no_file_is_long(file: Path) -> None:
    assert len(file.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: file.name)
def test_no_script_makes_elements_of_text_or_code_of_strings(script: Path) -> None:
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    code = r"\beval\(|new Function|setAttribute\(\"(style|on)"
    assert re.findall(f"{markup}|{code}", script.read_text()) == []
