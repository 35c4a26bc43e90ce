"""The examples in the docstrings of the clients run against the whole service."""

import ast
import asyncio
import inspect
from collections.abc import Callable, Iterator, Mapping
from doctest import DocTestParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

import redraft
from redraft import AsyncRedraft, Redraft
from redraft.adapters import AdapterMethods, AsyncAdapterMethods
from redraft.learning import AsyncLearningMethods, LearningMethods
from tests.support.adapters import Shop, launch, make_base
from tests.support.serving import Served

URL = "http://127.0.0.1:8000"


def public_methods(kind: type) -> Iterator[Callable[..., Any]]:
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_"):
            yield method


DOCUMENTED = [Redraft, AsyncRedraft, *public_methods(Redraft), *public_methods(AsyncRedraft)]
LEARNING = (AdapterMethods, AsyncAdapterMethods, LearningMethods, AsyncLearningMethods)
LEARNS = {method for kind in LEARNING for method in public_methods(kind)}
ADAPTER = "7b2f78ab38204ae9"


def example_of(documented: object) -> str:
    doc = inspect.getdoc(documented) or ""
    return "".join(example.source for example in DocTestParser().get_examples(doc))


@pytest.mark.parametrize(
    "documented", [each for each in DOCUMENTED if each not in LEARNS], ids=lambda documented: documented.__qualname__
)
async def test_every_public_method_has_an_example_that_runs(working: Served, documented: Any) -> None:
    await run_example(documented, str(working.client.base_url))


@pytest.mark.parametrize(
    "documented", [each for each in DOCUMENTED if each in LEARNS], ids=lambda documented: documented.__qualname__
)
async def test_so_do_those_for_what_learns(tmp_path: Path, documented: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    launch(monkeypatch, "true")
    folder = tmp_path / "shop"
    folder.mkdir()
    shop = Shop(folder, make_base(tmp_path / "base"))
    shop.promote("one")
    passed = shop.add("two")
    async with shop.serving() as served:
        await run_example(documented, str(served.client.base_url), {ADAPTER: passed})


async def run_example(documented: Any, url: str, names: Mapping[str, str] = MappingProxyType({})) -> None:
    """Run the example of a class or a method. ``names``: what to write for names in it."""
    example = example_of(documented)
    assert example
    for written, meant in {URL: url, **names}.items():
        example = example.replace(written, meant)
    if documented.__qualname__.startswith("Async"):
        async with AsyncRedraft(url) as client:
            await run(example, client)
    else:
        with Redraft(url) as blocking:
            await asyncio.to_thread(asyncio.run, run(example, blocking))


async def run(example: str, client: Redraft | AsyncRedraft) -> None:
    code = compile(example, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    names = {name: getattr(redraft, name) for name in redraft.__all__}
    result = eval(code, {**names, "client": client})
    if inspect.iscoroutine(result):
        await result


@pytest.mark.parametrize("name", ["generate", "critique", "refine"])
def test_the_docstring_lists_the_parameters(name: str) -> None:
    method = getattr(Redraft, name)
    doc = inspect.getdoc(method) or ""
    fields = inspect.get_annotations(method)["fields"].__args__[0]

    assert [field for field in fields.__annotations__ if not _is_listed(field, doc)] == []


def _is_listed(field: str, doc: str) -> bool:
    listed = [line.partition(":")[0] for line in doc.splitlines() if ": " in line]
    return f"``{field}``" in doc or any(field in names.split(", ") for names in listed)
