"""What is learned, on the page: seen, promoted and rolled back by an operator."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from service.learning.runs import record_run
from tests.browser.conftest import Visit
from tests.browser.test_looks import faults
from tests.support.adapters import Shop, add_adapter, make_base, make_verdict

FIGURES = {
    "trained.prompts": 120,
    "trained.incumbent.passed": 0.14,
    "trained.candidate.passed": 0.215,
    "trained.gain.low": 0.02,
    "trained.gain.high": 0.12,
    "other.prompts": 40,
    "other.incumbent.passed": 0.3,
    "other.candidate.passed": 0.29,
    "other.gain.low": -0.035,
    "other.gain.high": 0.01,
}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    return Shop(folder, make_base(tmp_path / "base"))


async def test_an_adapter_is_promoted_and_rolled_back(visit: Visit, shop: Shop) -> None:
    digest = shop.add("one")
    async with shop.serving() as served, visit(str(served.client.base_url)) as page:
        await page.get_by_role("link", name="Learning").click()
        adapter = page.locator(".adapter")
        await expect(adapter).to_have_count(1)
        await expect(page.locator(".serving")).to_contain_text("without an adapter")

        await adapter.get_by_role("button", name="Promote").click()
        assert shop.registry.current == ""
        await adapter.get_by_role("button", name="Press again to promote").click()
        await expect(page.locator(".serving strong")).to_have_text(digest[:8])
        await expect(page.locator("#live")).to_have_text("Promoted.")
        await expect(adapter.locator(".tag").first).to_have_text("Serves")
        assert shop.registry.current == digest

        await page.get_by_role("button", name="Roll back to base").click()
        await page.get_by_role("button", name="Press again to roll back").click()
        await expect(page.locator(".serving")).to_contain_text("without an adapter")
        assert shop.registry.current == ""


async def test_why_an_adapter_cannot_serve_is_said(visit: Visit, shop: Shop) -> None:
    add_adapter(shop.registry, shop.folder, "two", "reject", base=shop.digest)
    async with shop.serving() as served, visit(str(served.client.base_url)) as page:
        await page.get_by_role("link", name="Learning").click()

        adapter = page.locator(".adapter")
        await expect(adapter).to_contain_text("Rejected")
        await expect(adapter).to_contain_text("verdict is reject")
        await expect(adapter.get_by_role("button", name="Promote")).to_be_disabled()
        await adapter.get_by_text("Card").click()
        await expect(adapter.locator(".card")).to_contain_text("# Adapter")


async def test_an_exam_is_shown_in_numbers(visit: Visit, shop: Shop) -> None:
    shop.add("one", verdicts=(make_verdict("promote", "").model_copy(update={"figures": FIGURES}),))
    async with shop.serving() as served, visit(str(served.client.base_url)) as page:
        await page.get_by_role("link", name="Learning").click()

        exam = page.locator(".exam")
        await expect(exam).to_contain_text("14.0 % → 21.5 % passed, 120 prompts (gain between +2.0 and +12.0 points)")
        await expect(exam).to_contain_text("30.0 % → 29.0 % passed, 40 prompts (gain between -3.5 and +1.0 points)")


@pytest.mark.parametrize("width", [390, 1440])
async def test_runs_are_watched(visit: Visit, shop: Shop, width: int) -> None:
    shop.add("one")
    with suppress(RuntimeError), record_run(shop.folder) as failed:
        failed.begin("exam")
        raise RuntimeError("the disk is full <img src=x onerror=hit()>")
    size: Any = {"width": width, "height": 900}
    with record_run(shop.folder, "quick") as record:
        record.begin("train")
        record.show(40, 750, "texts: loss 1.954")
        async with shop.serving() as served, visit(str(served.client.base_url), viewport=size) as page:
            await page.get_by_role("link", name="Learning").click()

            runs = page.locator(".learning-run")
            await expect(runs.nth(0)).to_contain_text("Training 40 / 750")
            await expect(runs.nth(0)).to_contain_text("texts: loss 1.954")
            await expect(runs.nth(1)).to_contain_text("the disk is full <img src=x onerror=hit()>")
            assert await page.locator("#app img").count() == 0
            assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert await faults(page) == []
            if folder := os.environ.get("SCREENSHOTS"):
                await page.screenshot(path=Path(folder) / f"learning-{width}.png", full_page=True)
            record.show(41, 750)
            await expect(runs.nth(0)).to_contain_text("Training 41 / 750")
            record.end()
            await expect(runs.nth(0).locator(".state")).to_have_text("Done")


async def test_only_operators_see_it(visit: Visit, shop: Shop) -> None:
    keys = ",".join(f"{name}:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("one", "two"))
    async with (
        shop.serving(secret="two", api_keys=keys, operators=["two"]) as served,
        visit(str(served.client.base_url), expected="status of 403") as page,
    ):
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("API key").fill("one")
        await page.keyboard.press("Enter")
        await expect(dialog).to_have_count(0)
        await page.get_by_role("link", name="Learning").click()

        await expect(page.get_by_role("alert")).to_contain_text("This key may not see what is learned.")


async def test_there_is_no_tab_without_a_folder(visit: Visit, served: Any) -> None:
    async with visit(str(served.client.base_url)) as page:
        assert await page.get_by_role("link", name="Learning").count() == 0
