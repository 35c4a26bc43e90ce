"""The page in front of the real engine."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.scripts import PROMPT, phase, state
from tests.support.process import served


@pytest.mark.engine
async def test_a_refine_by_the_real_engine_is_watched_resumed_and_judged(visit: Visit, tmp_path: Path) -> None:
    settings = {"REDRAFT_STORE": str(tmp_path / "jobs.db"), "REDRAFT_STORED_TRACES": "true"}
    async with served(**settings) as (_, client), visit(str(client.base_url)) as page:
        form = {
            "prompt": PROMPT,
            "evaluators": [{"type": "length", "unit": "words", "max": 25}],
            "search": {"preset": "beam", "rounds": 2, "constraints": "off", "aborts": False, "repairs": False},
            "stop": {"target": 1.0, "patience": 5},
            "sampling": {"max_tokens": 80, "seed": 2},
            "judge": False,
            "background": True,
            "store": True,
        }
        await state(page, form)
        await page.locator(".primary").click()
        await page.wait_for_selector(".row")
        await page.reload()
        await page.wait_for_selector(".row")
        await phase(page, "done")

        job = (await client.get("/v1/jobs")).json()["jobs"][0]
        result = (await client.get(f"/v1/jobs/{job['id']}")).json()["result"]
        candidates = [candidate for ended in result["rounds"] for candidate in ended["candidates"]]
        await expect(page.locator(".row")).to_have_count(len(candidates))
        assert await page.evaluate("document.querySelector('.result .final').textContent") == result["text"]
        while (await client.get(f"/v1/traces/{result['id']}")).status_code != 200:
            await page.wait_for_timeout(50)
        await page.get_by_role("button", name="Good", exact=True).click()
        await expect(page.locator(".feedback .kept")).to_have_text("Noted, thank you.")
