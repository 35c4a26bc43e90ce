"""Evaluators from other packages, installed in a folder as pip would: a module, and its metadata beside it."""

import ast
import asyncio
import json
import math
import re
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pydantic import TypeAdapter

from service.engines.conversation import Conversation, Turn
from service.engines.scripted import ScriptedEngine
from service.evaluators.base import Check, RefusedField, Submission, Verifier
from service.evaluators.external.plugins import Custom, CustomEvaluator, Plugin, PluginError, Plugins, load_plugins
from service.evaluators.toolbox import Toolbox
from tests.deploy.commands import run
from tests.evaluators.model.test_judge import Plain
from tests.support.serving import serving

REQUEST = Conversation(Turn("user", "Name a colour."))
GUIDE = Path(__file__).parents[3] / "docs/guide/evaluators.md"

JUDGE = """
from dataclasses import dataclass, replace
from redraft.evaluators import Evaluation, RefusedField, Sandbox

@dataclass(frozen=True)
class Tone:
    wanted: tuple[str, ...] = ("calm",)
    result: float | None = 0.5

    authority = "judge"

    def __post_init__(self):
        if not self.wanted:
            raise RefusedField("wanted", "nothing is wanted")
        if len(self.wanted) > 2:
            raise ValueError("too much is wanted")

    async def evaluate(self, submission):
        if submission.text == "nothing":
            return None
        if submission.text == "words":
            return Evaluation("other", "judge", False, 1.0, None, 0.5, issues=["too loud"])
        return Evaluation("other", "verifier", True, 7.0, True, self.result, stderr=0.1)

@dataclass(frozen=True)
class Sized:
    size: int

    def resolve(self, tools):
        if tools.find(Sandbox) is None and self.size > 9:
            raise RefusedField("size", "no sandbox for that")
        if self.size == 0:
            raise ValueError("nothing of that size")
        return Tone((str(self.size),))
"""

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    modules: list[str] = []

    def installed(module: str, source: str, points: Mapping[str, str], package: str | None = None) -> None:
        folder = tmp_path / (package or module)
        metadata = folder / f"{package or module}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package or module}\nVersion: 1.0\n")
        lines = "\n".join(f"{name} = {value}" for name, value in points.items())
        (metadata / "entry_points.txt").write_text(f"[redraft.evaluators]\n{lines}\n")
        monkeypatch.syspath_prepend(folder)
        modules.append(module)

    yield installed
    for module in modules:
        sys.modules.pop(module, None)


def stated(name: str, **fields: Any) -> Custom:
    """An evaluator as it comes in a request."""
    return TypeAdapter(Custom).validate_json(json.dumps({"type": "custom", "name": name, **fields}))


def resolve(name: str, **fields: Any) -> CustomEvaluator:
    return stated(name, **fields).resolve(Toolbox(load_plugins()))


def submission(text: str) -> Submission:
    return Submission(text=text, request=REQUEST, shown=REQUEST, judge_prompt=Plain(), engine=ScriptedEngine())


def test_where_no_package_offers_any_there_are_none() -> None:
    assert load_plugins() == {}
    with pytest.raises(RefusedField, match="installed here: none") as refused:
        resolve("tone")
    assert refused.value.field == "name"


def block(language: str) -> str:
    """The guide's block of code in a language."""
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    return str(found)


async def test_the_guide_s_example_works(install: Install) -> None:
    project = tomllib.loads(block("toml"))["project"]
    install("hedging", block("python"), project["entry-points"]["redraft.evaluators"], package=project["name"])

    statement = TypeAdapter(Custom).validate_json(block("json"))
    evaluator = statement.resolve(Toolbox(load_plugins()))
    good = await evaluator.evaluate(submission("Perhaps red."))
    bad = await evaluator.evaluate(submission("Perhaps red, maybe green; it seems blue."))

    assert (good.passed, good.score, good.issues) == (True, 1.0, ())
    assert (bad.passed, bad.score) == (False, 0.5)
    assert [issue.message for issue in bad.issues] == ["3 hedges; at most 1 are allowed"]
    assert (bad.evaluator, bad.authority, bad.hard, bad.weight) == ("hedging", "verifier", False, 1.0)
    assert [refusal(name, value) for name, value in [("most", -1), ("most", "1"), ("least", 1), ("hard", True)]] == [
        "settings.most",
        "settings.most",
        "settings.least",
        "settings.hard",
    ]


def refusal(setting: str, value: object) -> str:
    with pytest.raises(RefusedField) as refused:
        resolve("hedging", settings={setting: value})
    return refused.value.field


@pytest.fixture
def installed_by_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The guide's package, built and installed as its readers do it."""
    package, target = tmp_path / "package", tmp_path / "installed"
    package.mkdir()
    (package / "pyproject.toml").write_text(block("toml"))
    (package / "hedging.py").write_text(block("python"))
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    run(sys.executable, "-m", "pip", "install", "--quiet", *offline, "--target", target, package)
    monkeypatch.syspath_prepend(target)
    yield
    sys.modules.pop("hedging", None)


@pytest.mark.usefixtures("installed_by_pip")
async def test_a_package_that_pip_installed_is_found_and_used() -> None:
    wanted = {**json.loads(block("json")), "settings": {"most": 0}}
    async with serving(tools=Toolbox(load_plugins())) as served:
        response = await served.post("/v1/critique", critique(**wanted) | {"candidate": "Perhaps blue."})

    first, *_ = response.json()["evaluations"]
    assert (first["evaluator"], first["score"]) == ("hedging", 0.5)
    assert [issue["message"] for issue in first["issues"]] == ["1 hedges; at most 0 are allowed"]


@pytest.mark.parametrize("source", [block("python"), JUDGE])
def test_a_package_needs_nothing_from_the_service_but_the_public_module(source: str) -> None:
    imported = {node.module for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)}

    assert {name for name in imported if name and name.startswith(("redraft", "service"))} == {"redraft.evaluators"}


async def test_a_class_without_our_base_keeps_its_authority_and_nothing_that_the_request_says(install: Install) -> None:
    install("tones", JUDGE, {"tone": "tones:Tone"})

    evaluator = resolve("tone", settings={"wanted": ["kind", "calm"]}, weight=3.0)
    found = await evaluator.evaluate(submission("Red."))

    assert evaluator.evaluator.wanted == ("kind", "calm")  # type: ignore[attr-defined]
    assert (evaluator.type, evaluator.authority, evaluator.hard) == ("tone", "judge", False)
    assert (found.evaluator, found.authority, found.hard, found.weight) == ("tone", "judge", False, 3.0)
    assert (found.passed, found.score, found.stderr) == (None, 0.5, 0.1)


@pytest.mark.parametrize(
    ("fields", "field", "reason"),
    [
        ({"settings": {"wanted": [1]}}, "settings.wanted.0", "valid string"),
        ({"settings": {"wanted": []}}, "settings.wanted", "nothing is wanted"),
        ({"settings": {"wanted": ["a", "b", "c"]}}, "settings", "too much is wanted"),
        ({"settings": {"loud": True}}, "settings.loud", "nexpected"),
        ({"settings": {"weight": 1.0}}, "settings.weight", "not a setting"),
        ({"settings": {"result": math.nan}}, "settings", "not JSON compliant"),
        ({"settings": {"result": -math.inf}}, "settings", "not JSON compliant"),
        ({"hard": True}, "hard", "a judge is never hard"),
    ],
)
def test_what_the_class_does_not_take_is_refused_by_its_name(
    install: Install, fields: dict[str, Any], field: str, reason: str
) -> None:
    install("tones", JUDGE, {"tone": "tones:Tone"})

    with pytest.raises(RefusedField, match=reason) as refused:
        resolve("tone", **fields)

    assert refused.value.field == field


async def test_a_class_may_make_its_evaluator_from_the_toolbox(install: Install) -> None:
    install("tones", JUDGE, {"sized": "tones:Sized"})

    found = await resolve("sized", settings={"size": 3}).evaluate(submission("Red."))

    assert (found.evaluator, found.score) == ("sized", 0.5)
    with pytest.raises(RefusedField, match="no sandbox for that") as refused:
        resolve("sized", settings={"size": 10})
    assert refused.value.field == "settings.size"
    with pytest.raises(RefusedField) as missing:
        resolve("sized")
    assert missing.value.field == "settings.size"
    with pytest.raises(RefusedField, match="nothing of that size") as refused:
        resolve("sized", settings={"size": 0})
    assert refused.value.field == "settings"


@pytest.mark.parametrize("result", [-0.1, 1.1])
async def test_a_score_off_the_scale_is_an_error(install: Install, result: float) -> None:
    install("tones", JUDGE, {"tone": "tones:Tone"})

    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        await resolve("tone", settings={"result": result}).evaluate(submission("Red."))


async def test_a_result_that_is_not_an_evaluation_is_an_error(install: Install) -> None:
    install("tones", JUDGE, {"tone": "tones:Tone"})

    with pytest.raises(TypeError, match="did not return an Evaluation"):
        await resolve("tone").evaluate(submission("nothing"))


async def test_an_issue_of_another_type_is_an_error(install: Install) -> None:
    install("tones", JUDGE, {"tone": "tones:Tone"})

    with pytest.raises(TypeError, match="returned an issue that is not an Issue"):
        await resolve("tone").evaluate(submission("words"))


def critique(**evaluator: Any) -> dict[str, Any]:
    stated = {"type": "custom", **evaluator}
    return {"prompt": "a", "candidate": "b", "judge": False, "feedback": False, "evaluators": [stated] * 32}


async def test_the_name_of_a_setting_is_not_repeated_at_any_length(install: Install) -> None:
    install("tones", JUDGE, {"tone": "tones:Tone"})

    async with serving(tools=Toolbox(load_plugins())) as served:
        response = await served.post("/v1/critique", critique(name="tone", settings={"k" * 10_000: 1}))

    assert response.status_code == 422
    assert {len(error["field"]) for error in response.json()["errors"]} == {200}


async def test_checks_that_take_long_keep_no_other_request_from_being_read() -> None:
    begun, done = threading.Event(), threading.Event()

    @dataclass(frozen=True, kw_only=True)
    class Slow(Verifier):
        in_thread: ClassVar[bool] = True
        type: Literal["slow"] = "slow"

        def check(self, text: str) -> Sequence[Check]:
            begun.set()
            done.wait(10)
            return [Check("slow", 1.0, "it took long", "Be quick.")]

    tools = Toolbox(Plugins({"slow": Plugin("slow", TypeAdapter(Slow))}))
    async with serving(tools=tools) as served:
        slow = asyncio.create_task(served.post("/v1/critique", critique(name="slow")))
        try:
            await served.until(begun.is_set)
            async with asyncio.timeout(20):
                response = await served.post("/v1/generate", {"prompt": "x" * 20_000})
        finally:
            done.set()
        checked = await slow

    assert response.status_code == 200
    assert checked.json()["passed"] is True
    with pytest.raises(RuntimeError, match="after shutdown"):
        tools.threads.submit(done.set)


@pytest.mark.parametrize(
    ("source", "value", "reason"),
    [
        ("", "faulty:Missing", "AttributeError"),
        ("import nowhere_to_be_found", "faulty:Any", "No module named 'nowhere_to_be_found'"),
        ("raise RuntimeError('not today')", "faulty:Any", "RuntimeError: not today"),
        ("class Plain: ...", "faulty:Plain", "not a frozen dataclass that is an evaluator"),
        (JUDGE.replace("(frozen=True)", ""), "faulty:Tone", "not a frozen dataclass that is an evaluator"),
        (JUDGE.replace("evaluate", "judge"), "faulty:Tone", "not a frozen dataclass that is an evaluator"),
        (JUDGE + "\nTONE = Tone()", "faulty:TONE", "not a frozen dataclass that is an evaluator"),
        (
            "from dataclasses import dataclass\nfrom redraft.evaluators import Verifier\n"
            "@dataclass(frozen=True, kw_only=True)\nclass Unfinished(Verifier):\n    limit: int",
            "faulty:Unfinished",
            "not a frozen dataclass that is an evaluator",
        ),
        (JUDGE.replace("float | None", "'Unknown'"), "faulty:Tone", "Unknown"),
        ("class Odd: ...\n" + JUDGE.replace("float | None", "Odd"), "faulty:Tone", "schema for <class 'faulty.Odd'>"),
    ],
)
def test_an_entry_point_that_cannot_be_used_stops_the_start(
    install: Install, source: str, value: str, reason: str
) -> None:
    install("faulty", source, {"tone": value}, package="faulty-package")

    with pytest.raises(PluginError, match=re.escape(reason)) as failed:
        load_plugins()

    assert f"the evaluator tone of faulty-package (redraft.evaluators: {value})" in str(failed.value)


def test_two_evaluators_of_one_name_stop_the_start(install: Install) -> None:
    install("tones", JUDGE, {"tone": "tones:Tone"})
    install("shades", JUDGE, {"tone": "shades:Tone"})

    with pytest.raises(PluginError) as failed:
        load_plugins()

    assert "tone of tones" in str(failed.value)
    assert "tone of shades" in str(failed.value)
