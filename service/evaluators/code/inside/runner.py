"""Runs a candidate and its tests inside the sandbox, and reports each test when it is over.

``payload`` has these members:

* ``code``, ``tests``: sources.
* ``in_place``: the indices of the top statements of ``tests`` that are tests by themselves.
* ``functions``: the names of the test functions, by the indices of their statements.
* ``imports``: the modules that the tests import.
* ``assigned``: the attributes that the tests set.
* ``name``: what ``__name__`` is in the tests.
* ``entry``: whether they use the candidate's main function as ``candidate``.
* ``nonce``: begins each line of the report.

After the nonce and a space a line of the report is a JSON object. Its ``what`` is "test", with the ``place`` of a test
that is over; "setup", with the place of another statement that failed; or "code" or "tests" for a source that failed as
a whole. It has an ``error`` if something failed. After a failure that is not a test's, nothing more is run.

The candidate is a module. The tests see its names as after ``from candidate import *``, and the builtins as they were
before it ran. Statements run in order, then the test functions.

The candidate runs in this interpreter, and may try to pass without being right. So everything that decides about a test
is bound before the candidate starts: the launcher gives this program its own builtins, and ``run`` does not call
anything through a module. In addition:

* Only ``run`` can report. It does so through an audit hook, to which nothing else refers, and the hook checks that it
  is called from that very frame of that very process.
* The hook refuses whatever would lead a program to the runner or to the tests: frames, the collector's lists of
  objects, tracing, and replacing the code of an existing function.
* Whatever the tests use (builtins, functions of the modules that they import, names that they define) is restored
  before the next statement if the candidate has replaced it. The test during which that happened fails.
"""

import ast
import builtins
import json.encoder
import os
import re
import sys
from _thread import get_ident
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from functools import partial
from types import CodeType, CoroutineType, FunctionType, ModuleType, SimpleNamespace
from typing import Any

CODE, TESTS = "<code>", "<tests>"
LEFT, RIGHT = "<left>", "<right>"  # names that no source can hold
TELL = "redraft.tell"
MAX_TEXT = 300
ADDRESS = re.compile(r"(?<=\w) at 0x[0-9a-f]+(?=>)")  # which differs in each run
MISSING = object()

Record = dict[str, Any]


def run(payload: dict[str, Any], report: int) -> None:
    # Bind all that decides about a test before any code of the candidate or of the tests runs.
    attempt, audit = make_attempt(), sys.audit
    tests: list[SimpleNamespace] = []
    watch(report, payload.pop("nonce"), sys._getframe())
    if fault := attempt(lambda: tests.extend(compile_tests(payload["tests"]))):
        return audit(TELL, {"what": "tests", **fault})
    in_place, functions = frozenset(payload["in_place"]), dict(payload["functions"])
    is_async = any(statement.is_async for statement in tests)
    drive = make_driver(is_async)
    for name in payload["imports"]:
        attempt(partial(__import__, name))
    untouched = dict(vars(builtins))
    guarded = {"builtins", *payload["imports"], *(["asyncio"] if is_async else [])}
    restore = make_guard(guarded, untouched, frozenset(payload["assigned"]))
    # Run the candidate.
    module = sys.modules["candidate"] = ModuleType("candidate")
    vars(module)["__builtins__"] = builtins  # else it would get those of this program
    entry = find_entry_point(payload["code"]) if payload["entry"] else None
    if fault := attempt(lambda: execute(compile(payload["code"], CODE, "exec", dont_inherit=True), vars(module))):
        return audit(TELL, {"what": "code", **fault})
    restore()
    # Run the statements of the tests in order, and collect their test functions.
    scope = {**visible_names(vars(module), tests, untouched), "__name__": payload["name"], "__builtins__": untouched}
    if entry is not None:
        scope.setdefault("candidate", vars(module).get(entry))
    defined: tuple[tuple[int, Any], ...] = ()
    keep, rebind = make_binder(scope, tests)
    for place, statement in enumerate(tuple(tests)):
        fault = attempt(partial(execute, statement.code, scope))
        replaced = restore() or rebind(statement.binds)
        keep(statement.binds)
        if replaced and not fault:
            fault = {"error": "Tampering", "detail": f"the code replaced {replaced}"}
        if place in in_place:
            audit(TELL, {"what": "test", "place": place, **fault})
        elif fault:
            return audit(TELL, {"what": "setup", "place": place, **fault})
        elif name := functions.get(str(place)):
            defined = (*defined, (place, check_definition(statement, scope[name])))
    # Run the test functions.
    for place, function in defined:
        fault = attempt(partial(call, function, drive))
        replaced = restore() or rebind(frozenset())
        if replaced and not fault:
            fault = {"error": "Tampering", "detail": f"the code replaced {replaced}"}
        audit(TELL, {"what": "test", "place": place, **fault})
    return None


# Who may report, and what nobody may do


PRIVATE = {
    "object.__getattr__": frozenset({"tb_frame", "gi_frame", "cr_frame", "ag_frame"}),
    "object.__setattr__": frozenset({"__code__"}),
}
"""Attributes that lead to a frame, or that replace the code of a function."""
GIVE_FRAMES_AWAY = frozenset(
    {
        "<lambda>",
        "_task_get_stack",
        "currentframe",
        "get_stack",
        "getinnerframes",
        "getouterframes",
        "stack",
        "trace",
        "walk_stack",
        "walk_tb",
    }
)
"""Functions of the standard library that hand frames to their callers."""
REFUSED = frozenset(
    {
        "gc.get_objects",
        "gc.get_referrers",
        "gc.get_referents",
        "sys._current_frames",
        "sys._current_exceptions",
        "sys.settrace",
        "sys.setprofile",
    }
)


def watch(report: int, nonce: str, runner: Any) -> None:
    """From now on, refuse whatever would lead a program to the runner, and report the records of the frame ``runner``.

    report: the descriptor to write to. nonce: begins each line. runner: the only frame that may report.
    """
    frame_of, thread, process, write = sys._getframe, get_ident, os.getpid, os.write
    ours, standard, looking, started = globals(), os.path.dirname(os.__file__), set[int](), os.getpid()
    encode = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
        None, None, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True
    )
    plain = frozenset({str, int, type(None)})
    known: dict[str, frozenset[CodeType]] = {}

    def is_of_the_library(code: CodeType) -> bool:
        """A code object can claim any file name, so its code must be in that file, which nobody can write to."""
        file = code.co_filename
        if not file.startswith(f"{standard}/") or "/../" in file:
            return False
        if file not in known:
            known[file] = load_codes(file)
        return code in known[file]

    def tell(record: Any) -> None:
        if process() != started or frame_of(1).f_back is not runner:
            raise RuntimeError("only the runner reports")
        kept = {name: value for name, value in record.items() if type(value) in plain}
        write(report, f"{nonce} {''.join(encode(kept, 0))}\n".encode())

    def look() -> None:
        """Allow private attributes to this program, and to the standard library for its own purposes."""
        asking = frame_of(2)
        if asking.f_globals is ours:
            return
        if is_of_the_library(asking.f_code):
            caller = asking.f_back
            if asking.f_code.co_name not in GIVE_FRAMES_AWAY:
                return
            if caller is not None and is_of_the_library(caller.f_code):
                return
        raise RuntimeError("the code may not look into the interpreter")

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == TELL:
            tell(*details)
        elif event in REFUSED:
            raise RuntimeError(f"the code may not use {event}")
        elif event == "sys._getframe" or (event in PRIVATE and details[1] in PRIVATE[event]):
            me = thread()
            if me not in looking:  # else this call comes from ``look`` itself
                looking.add(me)
                try:
                    look()
                finally:
                    looking.discard(me)

    sys.addaudithook(hook)


def load_codes(file: str) -> frozenset[CodeType]:
    """The code objects of a Python file, of its functions and of its classes; none if it cannot be read."""
    try:
        with open(file, "rb") as source:
            found = [compile(source.read(), file, "exec", dont_inherit=True)]
    except (OSError, SyntaxError, ValueError):
        return frozenset()
    for code in found:
        found += [constant for constant in code.co_consts if type(constant) is CodeType]
    return frozenset(found)


# What the candidate may not replace


Place = tuple[str, Callable[[str, Any], None], Mapping[str, Any]]
"""The label of a namespace, a function that sets a name in it, and the namespace."""
GUARDED = (staticmethod, classmethod, property, ModuleType)


def make_guard(
    names: Collection[str], untouched: dict[str, Any], assigned: Collection[str]
) -> Callable[[], str | None]:
    """Make a function that restores what was replaced in some modules, their classes and the tests' builtins.

    The function returns the label of something that was replaced, or None. Only callables and the like are restored.

    names: of the modules, whose submodules count too. untouched: the tests' builtins. assigned: names that the tests
    set themselves, which are left alone.
    """
    modules = {
        name: module
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and any(name == known or name.startswith(f"{known}.") for known in names)
    }
    places: list[Place] = [*namespaces(modules), ("builtins", untouched.__setitem__, untouched)]
    kept = tuple(
        (f"{label}.{name}", put, namespace, name, value)
        for label, put, namespace in places
        for name, value in list(namespace.items())
        if name not in assigned and (callable(value) or isinstance(value, GUARDED))
    )
    loaded, missing = sys.modules, MISSING

    def restore() -> str | None:
        replaced = None
        for label, put, namespace, name, value in kept:
            if namespace.get(name, missing) is not value:
                put(name, value)
                replaced = replaced or label
        for name, module in modules.items():
            if loaded.get(name, missing) is not module:
                loaded[name] = module
                replaced = replaced or name
        return replaced

    return restore


def namespaces(modules: Mapping[str, ModuleType]) -> Iterator[Place]:
    for label, module in modules.items():
        yield label, vars(module).__setitem__, vars(module)
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == label and not is_immutable(value):
                yield f"{label}.{name}", partial(type.__setattr__, value), vars(value)


def is_immutable(found: type) -> bool:
    return bool(found.__flags__ & 1 << 8) or not found.__flags__ & 1 << 9  # Py_TPFLAGS_IMMUTABLETYPE, …_HEAPTYPE


Names = Collection[str]


def make_binder(
    scope: MutableMapping[str, Any], tests: "Sequence[SimpleNamespace]"
) -> tuple[Callable[[Names], None], Callable[[Names], str | None]]:
    """Make two functions. One records the current values of names of the tests. The other restores recorded values,
    except for names that the last statement binds, and returns a name that had another value, or None."""
    fixed: dict[str, object] = {}
    used = frozenset[str]().union(*(statement.uses for statement in tests))
    free = frozenset[str]().union(*(statement.declares_global for statement in tests))
    by_other_means = bool(used & {"globals", "locals", "vars", "exec"})

    def keep(names: Names) -> None:
        for name in () if by_other_means else names:
            if name in scope and name not in free:
                fixed[name] = scope[name]
            else:
                fixed.pop(name, None)

    def rebind(bound: Names) -> str | None:
        replaced = None
        for name, value in fixed.items():
            if name not in bound and scope.get(name, MISSING) is not value:
                scope[name] = value
                replaced = name
        return replaced

    return keep, rebind


def visible_names(
    names: Mapping[str, Any], tests: "Sequence[SimpleNamespace]", untouched: Mapping[str, Any]
) -> dict[str, Any]:
    """The candidate's names, without those of builtins that the tests use. If all names that the tests use are builtins
    or their own, they test a function named like a builtin, and nothing is hidden."""
    used = frozenset[str]().union(*(statement.uses for statement in tests))
    bound = frozenset[str]().union(*(statement.binds for statement in tests))
    hidden = used & untouched.keys() if used - bound - untouched.keys() else frozenset()
    return {name: value for name, value in names.items() if name not in hidden}


# Running


def make_attempt() -> Callable[[Callable[[], object]], Record]:
    spare = [bytearray(1 << 22)]  # freed when memory runs out, so that this can still be reported

    def attempt(action: Callable[[], object]) -> Record:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - including SystemExit: with any exception, the candidate has failed
            if isinstance(error, MemoryError):
                spare.clear()
            return describe(error)
        return {}

    return attempt


def execute(code: CodeType, scope: dict[str, Any]) -> None:
    exec(code, scope)  # noqa: S102 - the sandbox is there for this


def call(function: Callable[[], object], drive: Callable[[Any], object]) -> None:
    result = function()
    if type(result) is CoroutineType:
        token = object()
        if drive(finish(result, token)) is not token:
            raise RuntimeError("the test was not run to its end")


async def finish(coroutine: Any, token: object) -> object:
    await coroutine
    return token


def make_driver(is_async: bool) -> Callable[[Any], object]:
    if not is_async:
        return lambda coroutine: coroutine  # perhaps a decorator made it: it is not run
    import asyncio  # which takes long

    return asyncio.run


def find_entry_point(source: str) -> str | None:
    """The function that the tests are about if they do not say: the last one that no other function uses."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    found = [node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    used = {(name.id, node.name) for node in found for name in ast.walk(node) if isinstance(name, ast.Name)}  # by whom
    by_others = {name for name, user in used if name != user}
    names = [node.name for node in found if node.name != "main"] or [node.name for node in found]
    return next((name for name in reversed(names) if name not in by_others), names[-1] if names else None)


Statement = SimpleNamespace
"""A top statement of the tests: its code, the names that it binds in their scope and those that it reads. It cannot be
a class of this program: the candidate would find it among those of ``object``, and its methods lead to the runner."""


def make_statement(tree: ast.stmt) -> SimpleNamespace:
    nodes = [*ast.walk(tree)]
    return Statement(
        code=compile(ast.Module([tree], type_ignores=[]), TESTS, "exec", dont_inherit=True),
        is_async=isinstance(tree, ast.AsyncFunctionDef),
        is_plain=isinstance(tree, ast.FunctionDef | ast.AsyncFunctionDef) and not tree.decorator_list,
        uses=frozenset(node.id for node in nodes if isinstance(node, ast.Name) and type(node.ctx) is ast.Load),
        binds=frozenset(name for node in nodes for name in bound_names(node)),
        declares_global=frozenset(name for node in nodes if isinstance(node, ast.Global) for name in node.names),
    )


def check_definition(statement: SimpleNamespace, function: Any) -> Any:
    """Return the function if this statement has defined it. Raises RuntimeError for another one."""
    if statement.is_plain and (type(function) is not FunctionType or function.__code__ not in statement.code.co_consts):
        raise RuntimeError("the function of a test was replaced")
    return function


def bound_names(node: ast.AST) -> Sequence[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            return [name]
        case ast.MatchMapping(rest=str(name)):
            return [name]
        case ast.alias(name=name, asname=other):
            return [other or name.partition(".")[0]]
        case ast.arg(arg=name):
            return [name]
    return []


def compile_tests(source: str) -> Sequence[SimpleNamespace]:
    """Compile each top statement by itself. A comparison in an assert stores both its sides in variables."""
    tree = ast.parse(source, TESTS)
    for node in ast.walk(tree):
        match node:
            case ast.Assert(test=ast.Compare(left=left, ops=[_], comparators=[right]) as comparison):
                comparison.left = bind_value(LEFT, left)
                comparison.comparators = [bind_value(RIGHT, right)]
    return [make_statement(statement) for statement in tree.body]


def bind_value(name: str, value: ast.expr) -> ast.expr:
    return ast.copy_location(ast.NamedExpr(ast.copy_location(ast.Name(name, ast.Store()), value), value), value)


# How a failure is reported


def describe(error: BaseException) -> Record:
    """The error, the lines of the tests and of the code in which it was raised, and what an assert compared."""
    record: Record = {"error": show(lambda error: type(error).__name__, error), "detail": show(str, error)}
    if isinstance(error, SyntaxError) and error.filename == CODE:
        record |= {"detail": show(str, error.msg), "code_line": error.lineno}
    step = error.__traceback__
    while step is not None:
        file, scope = step.tb_frame.f_code.co_filename, step.tb_frame.f_locals
        if file == TESTS:
            record["line"] = step.tb_lineno
            if step.tb_next is None and LEFT in scope and RIGHT in scope:
                record |= {"left": show(repr, scope[LEFT]), "right": show(repr, scope[RIGHT])}
        elif file == CODE:
            record["code_line"] = step.tb_lineno
        step = step.tb_next
    return record


def show(render: Callable[[Any], str], value: object) -> str:
    try:
        text = str.__getitem__(render(value), slice(MAX_TEXT + 1))  # a plain str, even if it was a subclass
    except BaseException:  # noqa: BLE001 - it is the candidate's method, which may do anything
        return "<not to be shown>"
    text = ADDRESS.sub("", text).encode("utf-8", "backslashreplace").decode()  # without halves of surrogate pairs
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}…"


if __name__ == "__main__":
    run(payload, report)  # type: ignore[name-defined]  # noqa: F821 - the launcher puts them here
    sys.stdout.flush()
    os._exit(0)  # even if threads are left
