"""The page in a real Chromium, driven by Playwright. Nothing here may log an error or reach another host."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, async_playwright

Visit = Callable[..., AbstractAsyncContextManager[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = shutil.which("chromium")
    assert path, "install Debian's package chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path)
        yield browser
        await browser.close()


@pytest.fixture
def visit(browser: Browser) -> Visit:
    """Open the page of a service in a fresh tab; afterwards its console and its requests are checked.

    ``expected``: a part of the console errors that the test causes on purpose. Other options are the browser's.
    """

    @asynccontextmanager
    async def visiting(url: str, *, expected: str | None = None, **options: Any) -> AsyncIterator[Page]:
        context = await browser.new_context(**{"locale": "en-US", **options})
        page = await context.new_page()
        page.set_default_timeout(30_000)
        errors: list[str] = []
        hosts: set[str] = set()
        page.on(
            "console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        await page.goto(url)
        await page.wait_for_selector(".adder, .jobs-page, dialog")
        yield page
        assert [error for error in errors if expected is None or expected not in error] == []
        assert hosts - {""} == {urlsplit(url).netloc}
        await context.close()

    return visiting
