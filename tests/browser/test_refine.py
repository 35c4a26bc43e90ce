"""A refine on the page: watched, stopped, saved, and written in other languages."""

import json
import os
from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.scripts import LONG, PROMPT, SHORT, SHORTER, Writer, phase, request, state
from tests.browser.test_looks import faults
from tests.support.scripts import stall
from tests.support.serving import Served, serving


async def test_a_refine_is_watched_round_by_round(visit: Visit) -> None:
    async with serving(Writer().script()) as served, visit(str(served.client.base_url)) as page:
        await state(page, request())
        await page.get_by_role("button", name="Refine").click()
        await phase(page, "done")

        assert (await page.locator(".result .final").inner_text()) == SHORT
        rows = page.locator(".row")
        assert await rows.count() == 3
        await page.get_by_role("button", name="c0 Draft").click()
        detail = page.locator(".detail")
        await expect(detail.locator(".issues")).to_contain_text("41 words; at most 22 are allowed")
        await expect(detail.locator(".critique")).to_contain_text("Name one benefit, and end there.")
        await expect(detail.locator(".score-line").nth(1)).to_contain_text("Judge")
        await page.keyboard.press("ArrowUp")
        await expect(detail.locator("h3")).to_have_text("Candidate c1")
        await expect(detail.locator(".diff del").last).to_contain_text("drops and years of everyday use")
        assert await page.locator(".tree .node").count() == 3
        assert await page.locator(".tree .edges path").count() >= 1
        assert await page.locator(".node.best text").text_content() == "2"
        assert await page.locator(".dots.fail").get_attribute("d") != ""
        await expect(page.locator("#live")).to_contain_text("Done. Score 0.93.")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
async def test_texts_grow_while_they_are_written(visit: Visit, motion: Literal["no-preference", "reduce"]) -> None:
    script = Writer().script(pause=lambda index: 3600.0 if index == 24 else 0.0)
    async with (
        serving(script) as served,
        visit(str(served.client.base_url), reduced_motion=motion) as page,
    ):
        await state(page, request(search={**request()["search"], "drafts": 2}))
        await page.get_by_role("button", name="Refine").click()

        cards = page.locator(".cards li")
        await expect(cards).to_have_count(2)
        await expect(cards.nth(0)).to_contain_text("Draft 1")
        await expect(cards.nth(0).locator(".prose")).to_have_text(" ".join(LONG.split()[:24]))
        await expect(cards.nth(1).locator(".prose")).to_have_text(" ".join(SHORTER.split()[:24]))
        assert await page.locator(".row").count() == 0
        assert await page.locator("#live").text_content() == ""
        assert await faults(page) == []
        if folder := os.environ.get("SCREENSHOTS"):
            await page.screenshot(path=Path(folder) / f"writing-{motion}.png")
        await page.get_by_role("button", name="Stop, keep the best").click()
        await phase(page, "stopped")
        await expect(page.locator(".writing")).to_be_hidden()
        assert "writing" not in await page.evaluate("sessionStorage.getItem('redraft.run')")
        await served.at_rest()


async def test_a_text_that_is_given_up_is_begun_again(visit: Visit) -> None:
    writer = Writer(texts=(f"Durable. {LONG}", LONG))
    script = writer.script(pause=lambda index: 3600.0 if index == 24 and len(writer.written) > 1 else 0.0)
    async with serving(script) as served, visit(str(served.client.base_url)) as page:
        rules = [{"type": "keywords", "exclude": ["durable"]}]
        await state(page, request(evaluators=rules, search={"rounds": 0, "repairs": False, "constraints": "off"}))
        await page.get_by_role("button", name="Refine").click()

        await expect(page.locator(".cards .form")).to_have_text("Draft 1 · begun again")
        await expect(page.locator(".cards .prose")).to_have_text(" ".join(LONG.split()[:24]))
        await page.get_by_role("button", name="Stop, keep the best").click()
        await served.at_rest()


async def test_the_first_paint_is_measured(visit: Visit, served: Served) -> None:
    async with visit(str(served.client.base_url)) as page:
        paints = await page.evaluate(
            "Object.fromEntries(performance.getEntriesByType('paint').map(({ name, startTime }) => [name, startTime]))"
        )

    print(", ".join(f"{name} after {milliseconds:.0f} ms" for name, milliseconds in paints.items()))
    assert "first-contentful-paint" in paints


async def test_stopping_keeps_the_best_and_ends_the_work(visit: Visit) -> None:
    async with serving(Writer().script()) as served, visit(str(served.client.base_url)) as page:
        stall(served.engine, lambda call: len(served.engine.calls) > 6)
        await state(page, request())
        await page.get_by_role("button", name="Refine").click()
        await page.wait_for_selector(".row")

        await page.get_by_role("button", name="Stop, keep the best").click()

        await phase(page, "stopped")
        assert (await page.locator(".result .final").inner_text()).startswith("A steel bottle")
        await expect(page.locator("#live")).to_have_text("Stopped. The best so far is kept.")
        await served.at_rest()


async def test_after_a_reload_the_best_so_far_is_still_there(visit: Visit) -> None:
    async with serving(Writer().script()) as served, visit(str(served.client.base_url)) as page:
        stall(served.engine, lambda call: len(served.engine.calls) > 6)
        await state(page, request())
        await page.get_by_role("button", name="Refine").click()
        await page.wait_for_selector(".row")
        await page.reload()

        await phase(page, "stopped")
        assert await page.locator(".row").count() >= 1


async def test_a_run_is_saved_as_a_file_and_shown_again(visit: Visit, tmp_path: Path) -> None:
    async with serving(Writer().script()) as served:
        url = str(served.client.base_url)
        async with visit(url) as page:
            await state(page, request())
            await page.get_by_role("button", name="Refine").click()
            await phase(page, "done")
            async with page.expect_download() as download:
                await page.get_by_role("button", name="Save run").click()
            file = tmp_path / "run.json"
            await (await download.value).save_as(file)
        async with visit(url) as page:
            await page.set_input_files("input[type=file]", file)
            await phase(page, "done")
            assert (await page.locator(".result .final").inner_text()) == SHORT
            assert await page.locator(".row").count() == 3
            await page.get_by_role("button", name="Use as request").click()
            await expect(page.get_by_label("Prompt", exact=True)).to_have_value(PROMPT)
    assert json.loads(file.read_text())["format"] == "redraft-run"


async def test_a_request_is_copied_as_curl_and_as_python_that_compiles(visit: Visit) -> None:
    async with (
        serving(Writer(texts=(SHORT,)).script()) as served,
        visit(str(served.client.base_url), permissions=["clipboard-read", "clipboard-write"]) as page,
    ):
        await state(page, request(prompt='It\'s "quoted"\nand 中文.'))
        await page.get_by_role("button", name="Refine").click()
        await phase(page, "done")
        await page.get_by_role("button", name="Copy as Python").click()
        await expect(page.get_by_role("button", name="Copied")).to_be_visible()
        python = await page.evaluate("navigator.clipboard.readText()")
        await page.get_by_role("button", name="Copy as curl").click()
        await expect(page.get_by_role("button", name="Copied")).to_have_count(2)
        curl = await page.evaluate("navigator.clipboard.readText()")

    asked: list[dict[str, object]] = []

    class Redraft:
        def __init__(self, url: str) -> None:
            assert url == str(served.client.base_url).rstrip("/")

        def __enter__(self) -> "Redraft":
            return self

        def __exit__(self, *_: object) -> None: ...

        def refine(self, **fields: object) -> object:
            asked.append(fields)
            return type("Result", (), {"text": ""})

    exec(compile(python.replace("from redraft import Redraft", ""), "snippet", "exec"), {"Redraft": Redraft})
    [fields] = asked
    assert fields == {**request(prompt='It\'s "quoted"\nand 中文.')}
    body = curl.partition("-d '")[2].rpartition("'")[0].replace("'\\''", "'")
    assert json.loads(body) == fields


async def test_what_the_service_refuses_is_said_with_the_field(visit: Visit, served: Served) -> None:
    async with visit(str(served.client.base_url), expected="status of 422") as page:
        await state(page, request(search={"rounds": 1000}))
        await page.get_by_role("button", name="Refine").click()
        await phase(page, "failed")

        await expect(page.get_by_role("alert").filter(has_text="search.rounds")).to_be_visible()


async def test_the_page_speaks_chinese(visit: Visit) -> None:
    async with (
        serving(Writer(texts=(SHORT,)).script()) as served,
        visit(str(served.client.base_url), locale="zh-CN") as page,
    ):
        await state(page, request())
        await page.get_by_role("button", name="开始改写").click()
        await phase(page, "done")

        await expect(page.locator("h2").filter(has_text="结果")).to_be_visible()
        assert await page.evaluate("document.documentElement.lang") == "zh-CN"
        await page.get_by_role("button", name="English").click()
        await expect(page.locator("h2").filter(has_text="Result")).to_be_visible()


async def test_both_languages_have_all_words(visit: Visit, served: Served) -> None:
    async with visit(str(served.client.base_url)) as page:
        found = await page.evaluate(
            """async () => {
                const folder = document.querySelector("script[type=module]").src.replace("main.js", "strings/");
                const [{ en }, { zh }] = await Promise.all([import(folder + "en.js"), import(folder + "zh.js")]);
                const parts = ["words", "evaluators", "reasons", "problems"];
                return [en, zh].map(language => parts.map(part => Object.keys(language[part]).sort()));
            }"""
        )
    assert found[0] == found[1]


async def test_it_can_be_used_by_keyboard_alone(visit: Visit) -> None:
    async with serving(Writer(texts=(SHORT,)).script()) as served, visit(str(served.client.base_url)) as page:
        await page.get_by_label("Prompt", exact=True).focus()
        await page.keyboard.type(PROMPT)
        await page.keyboard.press("Control+Enter")
        await phase(page, "done")

        assert served.engine.calls
        assert (await page.locator(".result .final").inner_text()) == SHORT


async def test_a_chat_is_refined(visit: Visit) -> None:
    async with serving(Writer(texts=(SHORT,)).script()) as served, visit(str(served.client.base_url)) as page:
        await page.get_by_role("button", name="Chat").click()
        await page.locator(".message textarea").fill("Hello.")
        await page.get_by_role("button", name="Add a message").click()
        await page.locator(".message textarea").nth(1).fill("Good day.")
        await page.get_by_role("button", name="Add a message").click()
        await page.locator(".message textarea").nth(2).fill(PROMPT)
        await page.get_by_role("button", name="Refine").click()
        await phase(page, "done")

        turns = served.engine.calls[0].conversation
        assert turns.turn.text.endswith(PROMPT)
        assert turns.before is not None


async def test_an_evaluator_that_is_new_to_the_service_appears_in_the_form(visit: Visit, served: Served) -> None:
    async def add(route: object) -> None:
        response = await route.fetch()  # type: ignore[attr-defined]
        schemas = await response.json()
        schemas["Rhyme"] = {
            "type": "object",
            "description": "Whether lines rhyme.",
            "properties": {
                "hard": {"type": "boolean", "default": True},
                "type": {"const": "rhyme", "type": "string"},
                "scheme": {"enum": ["couplet", "alternate_lines"], "type": "string"},
                "least": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
            },
            "required": ["scheme"],
        }
        items = schemas["RefineRequest"]["properties"]["evaluators"]["items"]
        items["discriminator"]["mapping"]["rhyme"] = "#/components/schemas/Rhyme"
        await route.fulfill(response=response, json=schemas)  # type: ignore[attr-defined]

    async with visit(str(served.client.base_url)) as page:
        await page.route("**/schema.json", add)
        await state(page, {"prompt": PROMPT})
        await page.get_by_label("Add a rule").select_option("rhyme")

        rule = page.locator(".rule")
        await expect(rule).to_contain_text("Whether lines rhyme.")
        await rule.get_by_label("Scheme").select_option(label="Alternate lines")
        await rule.get_by_label("Least").fill("2")
        kept = json.loads(await page.evaluate("sessionStorage.getItem('redraft.form')"))
        assert kept["evaluators"] == [{"type": "rhyme", "scheme": "alternate_lines", "least": 2}]


async def test_every_evaluator_has_a_form(visit: Visit, served: Served) -> None:
    schema = (await served.client.get("/openapi.json")).json()["components"]["schemas"]
    types = schema["RefineRequest"]["properties"]["evaluators"]["items"]["discriminator"]["mapping"]
    async with visit(str(served.client.base_url)) as page:
        for kind in types:
            await page.get_by_label("Add a rule").select_option(kind)

        assert await page.locator(".rule").count() == len(types)
        for index in range(len(types)):
            assert await page.locator(".rule").nth(index).locator("input, select, textarea").count() >= 1
