"""What a hostile text, a stranger and a flood of events can do to the page: nothing."""

import random
from hashlib import sha256
from itertools import pairwise

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.scripts import PROMPT, SHORT, Writer, phase, request, state
from tests.support.serving import Served, serving

HOSTILE = (
    '<img src=x onerror="window.hit=1"><script>window.hit=1</script>\n'
    "[a](javascript:hit)\n\u202eevil\u202c\u200b\ufeff\x1b[31m"
)
ENDLESS = random.Random(0).randbytes(100_000).hex()
WHOLE = """next => {
    const form = next < 40 ? "draft" : "edit";
    const candidate = { round: Math.floor(next / 40), id: `c${next}`, form, finish_reason: "stop" };
    const parent = next < 40 ? null : `c${next - 40}`;
    const score = next / 1000;
    const text = `A text with the number ${next} in it, and some more words to read. `.repeat(5);
    const evaluation = { evaluator: "length", authority: "verifier", hard: true, score, error: null };
    const issues = [{ rule: "words", message: "60 words" }];
    const evaluations = [{ ...evaluation, passed: false, issues }];
    const spent = { score, passed: false, evaluations, tokens: next };
    return [
        ["candidate", { ...candidate, parent, text, constraints: null }],
        ["evaluation", { candidate: `c${next}`, ...spent }],
    ];
}"""
"""A thousand candidates and their evaluations."""
PIECES = """next => {
    const index = next % 8;
    const begun = ["writing", { round: 0, index, form: "draft", parent: null }];
    const delta = ["delta", { round: 0, index, text: " Some words of a text that grows." }];
    return next < 8 ? [begun, delta] : [delta, delta];
}"""
"""Two thousand pieces of eight texts."""
FLOOD = """(() => {
    const real = window.fetch;
    const frame = (name, data) => `event: ${name}\\ndata: ${JSON.stringify(data)}\\n\\n`;
    const make = MAKE;
    window.fetch = (url, options) => {
        if (!String(url).endsWith("/v1/refine")) return real(url, options);
        let next = 0;
        const pull = async controller => {
            await new Promise(resolve => setTimeout(resolve, 40));
            let events = "";
            for (const end = next + 10; next < end; next += 1) {
                for (const [name, data] of make(next)) events += frame(name, data);
            }
            controller.enqueue(new TextEncoder().encode(events));
            if (next < 1000) return;
            controller.enqueue(new TextEncoder().encode(frame("error", { code: "draining", status: 503 })));
            controller.close();
        };
        return Promise.resolve(new Response(new ReadableStream({ pull })));
    };
    window.frames_ = [];
    const note = now => { window.frames_.push(now); requestAnimationFrame(note); };
    requestAnimationFrame(note);
})()"""
"""A service that sends 2,000 events within four seconds, as MAKE says, and a note of each frame."""


async def test_a_hostile_text_is_shown_as_text(visit: Visit) -> None:
    writer = Writer(texts=(HOSTILE, ENDLESS))
    async with serving(writer.script()) as served, visit(str(served.client.base_url)) as page:
        await state(page, request(evaluators=[{"type": "keywords", "exclude": ["script"]}]))
        await page.get_by_role("button", name="Refine").click()
        await phase(page, "done")
        await page.get_by_role("button", name="c0 Draft").click()

        shown = page.locator(".detail .prose")
        await expect(shown).to_contain_text('<img src=x onerror="window.hit=1"><script>window.hit=1</script>')
        points = await page.locator(".detail .prose .codepoint").all_inner_texts()
        assert points == ["U+202E", "U+202C", "U+200B", "U+FEFF", "U+001B"]
        assert "\u202e" not in await page.evaluate("document.body.textContent")
        assert await page.evaluate("window.hit") is None
        assert await page.locator("#app img, #app script, #app a[href^=javascript]").count() == 0


async def test_a_line_of_200_kilobytes_does_not_widen_the_page(visit: Visit) -> None:
    async with serving(Writer(texts=(ENDLESS,)).script()) as served, visit(str(served.client.base_url)) as page:
        await state(page, request(evaluators=[], judge=False, search={"rounds": 0}))
        await page.get_by_role("button", name="Refine").click()
        await phase(page, "done")

        assert len(await page.locator(".result .final").inner_text()) == 20_000
        await page.get_by_role("button", name="Show all 200,000 characters").first.click()
        assert len(await page.locator(".result .final").inner_text()) == 200_000
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize(("make", "seen"), [(WHOLE, ".row"), (PIECES, ".cards li")], ids=["whole", "pieces"])
async def test_2000_events_leave_room_for_frames(visit: Visit, served: Served, make: str, seen: str) -> None:
    async with visit(str(served.client.base_url)) as page:
        await page.get_by_label("Prompt", exact=True).fill(PROMPT)
        await page.evaluate(FLOOD.replace("MAKE", make))
        await page.get_by_role("button", name="Refine").click()
        await page.wait_for_selector(seen)
        begun = await page.evaluate("window.frames_.length")
        await phase(page, "failed")

        times = (await page.evaluate("window.frames_"))[begun:]
        gaps = [late - early for early, late in pairwise(times)]
        print(f"{1000 * len(gaps) / (times[-1] - times[0]):.0f} frames a second, longest gap {max(gaps):.0f} ms")
        assert len(gaps) > 30
        await expect(page.locator(".row")).to_have_count(1000 if make == WHOLE else 0)
        assert await page.locator(".chart *").count() < 30


async def test_a_hostile_text_is_shown_as_text_while_it_is_written(visit: Visit) -> None:
    script = Writer(texts=(f"{HOSTILE} {'x ' * 40}",)).script(pause=lambda index: 3600.0 if index == 24 else 0.0)
    async with serving(script) as served, visit(str(served.client.base_url)) as page:
        await state(page, request())
        await page.get_by_role("button", name="Refine").click()

        shown = page.locator(".cards .prose")
        await expect(shown).to_contain_text('<img src=x onerror="window.hit=1"><script>window.hit=1</script>')
        await expect(shown.locator(".codepoint").first).to_have_text("U+202E")
        assert "\u202e" not in await page.evaluate("document.body.textContent")
        assert await page.evaluate("window.hit") is None
        assert await page.locator("#app img, #app script, #app a[href^=javascript]").count() == 0
        await page.get_by_role("button", name="Stop, keep the best").click()
        await served.at_rest()


async def test_a_key_is_asked_for_tried_and_kept_in_the_tab_only(visit: Visit) -> None:
    keys = f"someone:{sha256(b'secret').hexdigest()}"
    async with (
        serving(Writer(texts=(SHORT,)).script(), api_keys=keys) as served,
        visit(str(served.client.base_url), expected="status of 401") as page,
    ):
        dialog = page.get_by_role("dialog")
        await dialog.get_by_label("API key").fill("wrong")
        await dialog.get_by_role("button", name="Use this key").click()
        await expect(dialog.get_by_role("alert")).to_have_text("The service does not know this key.")
        await dialog.get_by_label("API key").fill("secret")
        await page.keyboard.press("Enter")
        await expect(dialog).to_have_count(0)

        await page.get_by_label("Prompt", exact=True).fill(PROMPT)
        await page.get_by_role("button", name="Refine").click()
        await phase(page, "done")

        assert await page.evaluate("sessionStorage.getItem('redraft.key')") == '"secret"'
        assert "secret" not in str(await page.evaluate("Object.entries(localStorage)"))
        assert await page.context.cookies() == []
        assert "secret" not in await page.evaluate("document.body.innerHTML")
