"""``make docs``: every page and link of the site works, from the disk and without a network."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, async_playwright

from service.api.pages import LLMS_TXT

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*/README.md")]
PARTS = ["Start", "Guide", "Reference", "Operate", "Design", "Results", "Project"]
LOADED = {
    ("link", "href"),
    *((tag, name) for tag in ("script", "img", "source", "iframe") for name in ("src", "srcset")),
}
"""Attributes whose address a browser opens without being asked."""

PATIENCE = 240_000
"""Milliseconds for one step of the browser, which takes one on a machine that has nothing else to do."""

site = pytest.mark.site
pytestmark = pytest.mark.timeout(300)  # a build takes ten seconds, on a busy machine a minute


class Reader(HTMLParser):
    """The ids, links and loaded addresses of a page, and the captions of its sidebar."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.language: str | None = None
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id":
                self.ids.add(value)
            if (tag, name) == ("html", "lang"):
                self.language = value
            if (tag, name) == ("a", "href"):
                self.links.append(value)
            if (tag, name) in LOADED:
                self.loaded.append(value)


def make_docs(folder: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Run the target's recipe in ``folder`` with the packages that are installed."""
    command = ["make", "--silent", "--old-file=.venv/docs.lock", "docs", f"SITE={target}"]
    return subprocess.run([*command, f"BIN={Path(sys.executable).parent}"], cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    made = make_docs(ROOT, target)
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""
    return target / "html"


@pytest.fixture(scope="session")
def pages(built: Path) -> dict[Path, Reader]:
    return {page: Reader(page) for page in built.rglob("*.html")}


def addresses(pages: dict[Path, Reader]) -> Iterator[tuple[Path, str]]:
    """Every link and every loaded address that has no host, with its page."""
    for page, read in pages.items():
        for address in (*read.links, *read.loaded):
            if not urlsplit(address).scheme:
                yield page, address


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_have_no_syntax_that_only_the_site_would_understand(page: Path) -> None:
    assert re.findall(r"^ *(?:`{3,}\{|:{3,}|\([\w-]+\)=$|\.\. \w+::).*", page.read_text(), re.MULTILINE) == []


@site
def test_every_page_is_there_as_html_and_as_markdown(built: Path) -> None:
    for page in PAGES:
        name = page.relative_to(ROOT)
        assert (built / name).read_text() == page.read_text()
        assert (built / name.with_suffix(".html")).exists()


@site
def test_every_link_inside_leads_to_a_file_and_a_heading(built: Path, pages: dict[Path, Reader]) -> None:
    broken = []
    for page, address in addresses(pages):
        split = urlsplit(address)
        target = (page.parent / unquote(split.path)).resolve() if split.path else page
        missing = split.fragment and target in pages and split.fragment not in pages[target].ids
        if not target.is_file() or missing:
            broken.append(f"{page.relative_to(built)}: {address}")
    assert len(list(addresses(pages))) > 1000
    assert broken == []


@site
def test_headings_have_the_ids_that_they_have_on_github(built: Path, pages: dict[Path, Reader]) -> None:
    assert {"post-v1batch", "files-and-batches"} <= pages[built / "docs/reference/api.html"].ids


@site
def test_nothing_is_loaded_from_other_hosts(built: Path, pages: dict[Path, Reader]) -> None:
    assert [address for read in pages.values() for address in read.loaded if urlsplit(address).netloc] == []
    styles = list(built.rglob("*.css"))
    assert styles
    assert [style for style in styles if re.search(r"@import|url\([\"']?(https?:)?//", style.read_text())] == []


@site
def test_the_sidebar_has_the_parts_of_the_index(built: Path) -> None:
    home = (built / "index.html").read_text()
    assert re.findall(r'<p class="caption".*?<span class="caption-text">(.*?)</span>', home) == PARTS


@site
def test_a_folder_s_address_shows_its_readme(built: Path) -> None:
    for readme in built.rglob("README.html"):
        assert readme.with_name("index.html").read_text() == readme.read_text()


@site
def test_the_chinese_introduction_is_reachable_and_says_its_language(built: Path, pages: dict[Path, Reader]) -> None:
    assert "README.zh-CN.html" in pages[built / "index.html"].links
    assert pages[built / "README.zh-CN.html"].language == "zh-CN"
    assert pages[built / "README.html"].language == "en"


@site
def test_llms_txt_is_the_service_s_with_links_to_the_pages(built: Path) -> None:
    text = (built / "llms.txt").read_text()
    links = re.findall(r"^- \[.+\]\((.+)\): .+$", text, re.MULTILINE)

    assert text.startswith(LLMS_TXT.partition("## API")[0])
    assert links == re.findall(r"^- `(docs/.+)`", LLMS_TXT, re.MULTILINE)
    assert all((built / link).is_file() for link in links)


@site
def test_broken_links_and_pages_that_nothing_leads_to_are_errors(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "docs", copy / "docs")
    shutil.copytree(ROOT / "bench", copy / "bench", ignore=shutil.ignore_patterns("results"))
    copy.joinpath("service").symlink_to(ROOT / "service")
    for name in ("Makefile", "pyproject.toml", "LICENSE", *(page.name for page in ROOT.glob("*.md"))):
        shutil.copy(ROOT / name, copy)
    with copy.joinpath("docs/glossary.md").open("a") as glossary:
        glossary.write("\n[a](lost.md), [b](reference/api.md#lost-heading)\n")
    copy.joinpath("docs/guide/unlisted.md").write_text("# Unlisted\n")

    made = make_docs(copy, tmp_path / "site")
    assert made.returncode != 0
    warnings = [line for line in made.stderr.splitlines() if "WARNING" in line]
    found = [name for line in warnings for name in ("unlisted.md", "lost.md", "lost-heading") if name in line]
    assert found == ["unlisted.md", "lost.md", "lost-heading"], made.stderr
    assert len(warnings) == 3, made.stderr


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None and "CI" not in os.environ:
        pytest.skip("install Debian's package chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, timeout=PATIENCE)
        yield browser
        await browser.close()


@site
async def test_search_works_from_the_disk(built: Path, browser: Browser) -> None:
    page = await browser.new_page()
    page.set_default_timeout(PATIENCE)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    await page.goto(built.joinpath("index.html").as_uri())
    await page.locator("input.sidebar-search").fill("idempotency")
    await page.keyboard.press("Enter")
    await page.locator("ul.search a", has_text="0038").first.click()
    await page.wait_for_selector("h1")

    assert (await page.title()).startswith("0038.")
    assert {urlsplit(address).scheme for address in requested} == {"file"}


@site
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
async def test_pages_fit_and_axe_finds_no_serious_fault(
    built: Path, browser: Browser, width: int, scheme: Literal["light", "dark"]
) -> None:
    page = await browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.set_default_timeout(PATIENCE)
    for name in ("index", "README.zh-CN", "docs/reference/api", "search"):
        await page.goto(built.joinpath(f"{name}.html").as_uri())
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        found = (await Axe().run(page)).response["violations"]
        assert [fault for fault in found if fault["impact"] in ("serious", "critical")] == [], name
