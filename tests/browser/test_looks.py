"""How the page looks and reads: widths, colours, and what axe finds. ``SCREENSHOTS`` names a folder for pictures."""

import os
from pathlib import Path
from typing import Any, Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from tests.browser.conftest import Visit
from tests.browser.scripts import LONG, SHORT, SHORTER, Writer, phase, request, state
from tests.support.serving import serving

TEXTS = (LONG, f"{LONG} It floats.", SHORTER, f"{SHORTER} It floats.", SHORTER[:-1], f"{SHORT} Yes.", LONG[:-1], SHORT)
SERIOUS = ("serious", "critical")


async def faults(page: Page) -> list[str]:
    """What axe finds that keeps people out."""
    found = await Axe().run(page)
    return [
        f"{fault['id']}: {node['html'][:120]} {node['failureSummary'][:300]}"
        for fault in found.response["violations"]
        if fault["impact"] in SERIOUS
        for node in fault["nodes"]
    ]


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
async def test_it_fits_and_axe_finds_no_serious_fault(
    visit: Visit, tmp_path: Path, width: int, scheme: Literal["light", "dark"], locale: str
) -> None:
    folder = Path(os.environ.get("SCREENSHOTS", tmp_path))
    size: Any = {"width": width, "height": 844 if width < 500 else 900}
    look = f"{width}-{scheme}-{locale[:2]}"

    async def look_at(page: Page, name: str) -> None:
        await page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
        assert await faults(page) == [], name

    async with (
        serving(Writer(texts=TEXTS).script(), store=str(tmp_path / "jobs.db"), stored_traces=True) as served,
        visit(
            str(served.client.base_url), viewport=size, color_scheme=scheme, locale=locale, reduced_motion="reduce"
        ) as page,
    ):
        await look_at(page, "welcome")
        search = {**request()["search"], "drafts": 3, "beam": 2, "branches": 2}
        await state(page, {**request(search=search), "store": True})
        for summary in await page.locator(".composer summary").all():
            await summary.click()
        await look_at(page, "form")
        await page.reload()
        await page.wait_for_selector(".adder")
        await page.locator(".primary").click()
        await phase(page, "done")
        await page.wait_for_selector(".node.best")
        await look_at(page, "run")
        await page.locator("nav a").last.click()
        await served.post("/v1/refine", request(), headers={"Prefer": "respond-async"})
        await page.locator(".jobs-page header button").click()
        await page.wait_for_selector(".job")
        await look_at(page, "jobs")
