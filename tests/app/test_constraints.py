"""Constraints by way of the API: what contradicts itself is refused, and the account names what was enforced."""

from service.engines.scripted import Script
from tests.support.serving import serving

NO_COMMAS = {"type": "format", "kind": "no_commas"}
WORDS = {"type": "length", "unit": "words"}


async def test_rules_that_contradict_each_other_are_refused_by_both_names() -> None:
    asked = {"prompt": "Write.", "evaluators": [{**WORDS, "max": 5}, NO_COMMAS, {**WORDS, "min": 9}], "judge": False}
    async with serving() as served:
        refused = await served.client.post("/v1/refine", json=asked)
        unconstrained = await served.client.post("/v1/refine", json={**asked, "search": {"constraints": "off"}})

    problem = refused.json()
    assert (refused.status_code, problem["code"]) == (422, "invalid_request")
    assert [error["field"] for error in problem["errors"]] == ["evaluators.0", "evaluators.2"]
    assert "at least 9 and at most 5 words are demanded" in problem["detail"]
    assert unconstrained.status_code == 200


async def test_the_account_says_what_was_enforced_and_what_was_only_checked() -> None:
    language = {"type": "language", "code": "en"}
    asked = {
        "prompt": "Write.",
        "evaluators": [NO_COMMAS, language],
        "judge": False,
        "search": {"rounds": 0, "constraints": "always"},
    }
    script = Script(reply=lambda call: "The sea, which is wide.", takes_grammars=True)
    async with serving(script) as served:
        body = (await served.post("/v1/refine", asked)).json()
        streamed = await served.stream("/v1/refine", asked)

    account = body["constraints"]
    assert account["enforced"] == ["format.no_commas"]
    assert [left["rule"] for left in account["left_out"]] == ["language.code"]
    assert all(left["reason"] for left in account["left_out"])
    assert body["rounds"][0]["candidates"][0]["constraints"] == account
    assert [data["constraints"] for name, data in streamed if name == "candidate"] == [account]
    assert "," not in body["text"]


async def test_a_text_that_is_sampled_freely_has_no_constraints() -> None:
    asked = {"prompt": "Write.", "evaluators": [NO_COMMAS], "judge": False, "search": {"constraints": "off"}}
    async with serving(Script(takes_grammars=True)) as served:
        body = (await served.post("/v1/refine", asked)).json()

    assert body["constraints"] is None
