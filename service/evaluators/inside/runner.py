"""Runs a candidate and the tests of it, inside the sandbox, and reports each test once it is over.

``payload`` has ``code`` and ``tests`` (sources), ``asserts`` (where the tests that are asserts stand among the top
statements of ``tests``), ``functions`` (where those that are functions stand, and their names) and ``nonce``. Each line
of the report is the nonce, a space and a JSON object. Its ``what`` is "test", with the ``place`` of one that is over;
"setup", with the place of another statement that failed; "code" or "tests" for a source that failed as a whole. There
is an ``error`` where something failed; after a failure that is no test's nothing more is run.

The candidate is a module. The tests see its names as after ``from candidate import *``, and the builtins as they were
before it ran. Asserts are run where they stand, functions after all other statements.
"""

import ast
import builtins
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import CodeType, CoroutineType, ModuleType
from typing import Any

CODE, TESTS = "<code>", "<tests>"
LEFT, RIGHT = "<left>", "<right>"  # names that no source can hold
MAX_TEXT = 300
ADDRESS = re.compile(r"(?<=\w) at 0x[0-9a-f]+(?=>)")  # which is another one in each run

Record = dict[str, Any]


def run(payload: dict[str, Any], report: int) -> None:
    tell, attempt = teller(report, payload.pop("nonce")), attempter()
    statements: list[CodeType] = []
    if fault := attempt(lambda: statements.extend(compiled(payload["tests"]))):
        return tell({"what": "tests", **fault})
    untouched = dict(vars(builtins))
    module = sys.modules["candidate"] = ModuleType("candidate")
    if fault := attempt(lambda: execute(compile(payload["code"], CODE, "exec", dont_inherit=True), vars(module))):
        return tell({"what": "code", **fault})
    scope = {**vars(module), "__name__": "tests", "__builtins__": untouched}
    functions = {}
    for place, statement in enumerate(statements):
        fault = attempt(partial(execute, statement, scope))
        if place in payload["asserts"]:
            tell({"what": "test", "place": place, **fault})
        elif fault:
            return tell({"what": "setup", "place": place, **fault})
        elif name := payload["functions"].get(str(place)):
            functions[place] = scope[name]
    for place, function in functions.items():
        tell({"what": "test", "place": place, **attempt(partial(call, function))})
    return None


def teller(report: int, nonce: str) -> Callable[[Record], None]:
    """What it needs is bound now, so that a candidate that replaces ``os.write`` changes nothing. Only the function
    that is returned holds the nonce: nobody comes upon it by accident."""
    write, encode = os.write, json.JSONEncoder().encode

    def tell(record: Record) -> None:
        write(report, f"{nonce} {encode(record)}\n".encode())

    return tell


def attempter() -> Callable[[Callable[[], object]], Record]:
    spare = [bytearray(1 << 22)]  # given up where all memory is taken, so that this can still be told

    def attempt(action: Callable[[], object]) -> Record:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - SystemExit as well: whatever it is, the candidate has failed
            if isinstance(error, MemoryError):
                spare.clear()
            return described(error)
        return {}

    return attempt


def execute(code: CodeType, scope: dict[str, Any]) -> None:
    exec(code, scope)  # noqa: S102 - the sandbox is there for this


def call(function: Callable[[], object]) -> None:
    result = function()
    if isinstance(result, CoroutineType):
        import asyncio  # which takes long

        asyncio.run(result)


def compiled(source: str) -> Sequence[CodeType]:
    """Each top statement by itself. A comparison that is asserted leaves both its sides behind, as two variables."""
    tree = ast.parse(source, TESTS)
    for node in ast.walk(tree):
        match node:
            case ast.Assert(test=ast.Compare(left=left, ops=[_], comparators=[right]) as comparison):
                comparison.left = kept(LEFT, left)
                comparison.comparators = [kept(RIGHT, right)]
    return [
        compile(ast.Module([statement], type_ignores=[]), TESTS, "exec", dont_inherit=True) for statement in tree.body
    ]


def kept(name: str, value: ast.expr) -> ast.expr:
    return ast.copy_location(ast.NamedExpr(ast.copy_location(ast.Name(name, ast.Store()), value), value), value)


def described(error: BaseException) -> Record:
    """The error; the line of the tests and the one of the code in which it arose; what an assert compared."""
    record: Record = {"error": shown(lambda error: type(error).__name__, error), "detail": shown(str, error)}
    if isinstance(error, SyntaxError) and error.filename == CODE:
        record |= {"detail": shown(str, error.msg), "code_line": error.lineno}
    step = error.__traceback__
    while step is not None:
        file, scope = step.tb_frame.f_code.co_filename, step.tb_frame.f_locals
        if file == TESTS:
            record["line"] = step.tb_lineno
            if step.tb_next is None and LEFT in scope and RIGHT in scope:
                record |= {"left": shown(repr, scope[LEFT]), "right": shown(repr, scope[RIGHT])}
        elif file == CODE:
            record["code_line"] = step.tb_lineno
        step = step.tb_next
    return record


def shown(render: Callable[[Any], str], value: object) -> str:
    try:
        text = str.__getitem__(render(value), slice(MAX_TEXT + 1))  # a plain str, whatever it was
    except BaseException:  # noqa: BLE001 - a candidate's own method, which may do anything
        return "<not to be shown>"
    text = ADDRESS.sub("", text).encode("utf-8", "backslashreplace").decode()  # no half of a surrogate pair
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


if __name__ == "__main__":
    run(payload, report)  # type: ignore[name-defined]  # noqa: F821 - the launcher puts them here
    sys.stdout.flush()
    os._exit(0)  # whatever threads are left
