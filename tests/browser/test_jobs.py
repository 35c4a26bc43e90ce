"""Jobs and feedback on the page: started, watched, resumed, cancelled, judged by a person."""

from pathlib import Path

from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.scripts import SHORT, Writer, phase, request, state
from tests.support.scripts import stall
from tests.support.serving import serving


async def test_a_job_is_resumed_after_a_reload_where_it_was(visit: Visit, tmp_path: Path) -> None:
    writer = Writer()
    async with (
        serving(writer.script(), store=str(tmp_path / "jobs.db")) as served,
        visit(str(served.client.base_url)) as page,
    ):
        await state(page, {**request(), "background": True})
        stall(served.engine, lambda call: len(served.engine.calls) > 6)
        await page.get_by_role("button", name="Refine", exact=False).click()
        await page.wait_for_selector(".row")
        while await page.evaluate("JSON.parse(sessionStorage.getItem('redraft.run')).events.length") < 3:
            await page.wait_for_timeout(50)

        async with page.expect_request("**/events") as asked:
            await page.reload()

        sent = await (await asked.value).header_value("last-event-id")
        assert sent is not None
        assert int(sent) >= 3
        assert await page.locator(".row").count() >= 1
        await page.get_by_role("button", name="Stop, keep the best").click()
        await phase(page, "done")
        await expect(page.locator(".phase")).to_have_text("Done · you")
        [job] = (await served.client.get("/v1/jobs")).json()["jobs"]
        assert job["state"] == "cancelled"
        assert (await page.locator(".result .final").inner_text()).startswith("A steel bottle")


async def test_jobs_are_listed_and_watched_again(visit: Visit, tmp_path: Path) -> None:
    async with (
        serving(Writer().script(), store=str(tmp_path / "jobs.db")) as served,
        visit(str(served.client.base_url)) as page,
    ):
        await page.get_by_role("link", name="Jobs").click()
        await expect(page.locator("ul.jobs")).to_contain_text("No jobs yet")
        await served.post("/v1/refine", request(), headers={"Prefer": "respond-async"})
        while (await served.client.get("/v1/jobs")).json()["jobs"][0]["state"] != "completed":
            pass
        await page.get_by_role("button", name="Refresh").click()
        await expect(page.locator(".job .state")).to_have_text("Done")

        await page.get_by_role("button", name="Watch").click()

        await phase(page, "done")
        assert (await page.locator(".result .final").inner_text()) == SHORT
        assert await page.locator(".row").count() == 3
        await expect(page.get_by_role("button", name="Copy as curl")).to_have_count(0)


async def test_a_thumb_and_an_edit_are_kept_with_the_trace(visit: Visit, tmp_path: Path) -> None:
    async with (
        serving(Writer().script(), store=str(tmp_path / "jobs.db"), stored_traces=True) as served,
        visit(str(served.client.base_url)) as page,
    ):
        await state(page, request())
        await page.get_by_label("Keep for feedback").check()
        await page.get_by_role("button", name="Refine", exact=False).click()
        await phase(page, "done")
        while not (await served.client.get("/v1/traces")).json()["traces"]:
            pass

        await page.get_by_role("button", name="Good", exact=True).click()
        await expect(page.locator(".feedback .kept")).to_have_text("Noted, thank you.")
        await page.get_by_text("Improve it by hand").click()
        await page.get_by_label("Your version").fill("A bottle.")
        async with page.expect_response("**/v1/feedback") as sent:
            await page.get_by_role("button", name="Send").click()
        assert (await sent.value).status == 201

        [trace] = (await served.client.get("/v1/traces")).json()["traces"]
        kept = (await served.client.get(f"/v1/traces/{trace['id']}")).json()["feedback"]
        assert [(one["kind"], one["value"]) for one in kept] == [("thumb", "up"), ("edit", "A bottle.")]


async def test_without_stored_traces_nobody_is_asked(visit: Visit, tmp_path: Path) -> None:
    async with (
        serving(Writer(texts=(SHORT,)).script(), store=str(tmp_path / "jobs.db")) as served,
        visit(str(served.client.base_url)) as page,
    ):
        await state(page, request())
        await expect(page.get_by_label("Keep for feedback")).to_have_count(0)
        await page.get_by_role("button", name="Refine", exact=False).click()
        await phase(page, "done")
        await expect(page.locator(".feedback")).to_have_count(0)
