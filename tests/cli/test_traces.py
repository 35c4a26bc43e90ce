"""``python -m service traces`` and ``preferences`` against the whole service over real HTTP."""

import json

from tests.cli.test_ask import Run, at, run
from tests.support.serving import Served

__all__ = ["run"]

SALT = {"type": "keywords", "include": ["salt"]}


async def test_traces_are_listed_and_pairs_are_printed(working: Served, run: Run) -> None:
    body = {"prompt": "Write.", "evaluators": [SALT], "search": {"rounds": 1}, "store": True}
    its_id = (await working.post("/v1/refine", body)).json()["id"]
    listed = await run("traces", *at(working))
    as_json = await run("traces", *at(working), "--json", "--limit", "1", "--task", "general")
    pairs = await run("preferences", *at(working), "--format", "sharegpt")

    assert (listed.code, as_json.code, pairs.code) == (0, 0, 0)
    [line] = listed.out.splitlines()
    assert (line.split()[0], line.split()[3:]) == (its_id, ["refine", "general", "score", "0.70"])
    assert json.loads(as_json.out)["id"] == its_id
    assert json.loads(pairs.out)["chosen"] == {"from": "gpt", "value": "Salt waves."}


async def test_a_service_without_traces_says_so(served: Served, run: Run) -> None:
    for command in ("traces", "preferences"):
        refused = await run(command, *at(served))
        assert refused.code == 1
        assert "REDRAFT_STORED_TRACES" in refused.err
