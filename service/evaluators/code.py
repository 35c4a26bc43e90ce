"""A verifier that runs the candidate's code against tests, in the sandbox.

What it proves is bounded by where the tests run: in the candidate's own interpreter. A candidate cannot pass by ending
the program, by printing, or by replacing builtins: a test counts only once it has been reported as passed, on a
descriptor of its own and under a nonce. One that sets out to deceive still can: by an object that is equal to
everything, by patching the standard library that the tests use, by searching the interpreter's frames for the nonce, or
by recognising the tests' own inputs.
"""

import ast
import asyncio
import re
import secrets
import signal
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeGuard

from annotated_types import Ge, Gt, Le, Len
from pydantic import TypeAdapter, ValidationError

from service.evaluators.base import (
    STRICT,
    Authority,
    Evaluation,
    EvaluationFailed,
    Issue,
    RefusedField,
    Submission,
    Weight,
)
from service.evaluators.sandbox import Limits, Outcome, Sandbox
from service.evaluators.words import excerpt

if TYPE_CHECKING:
    from service.evaluators.toolbox import Toolbox

MAX_ISSUES = 10
MAX_REPORT_BYTES = 1 << 24
"""Enough for as many failures as tests can hold."""
MAX_MESSAGE = 600
MAX_QUOTE = 300
MAX_VALUE = 80
"""Characters of a value in an instruction; where it has more the instruction quotes the test alone."""
MAX_STEPS = MAX_QUOTE // 10
"""Statements that may lead up to a test and be quoted with it: no more would fit."""

_FENCED = re.compile(  # nothing in an opening line is tried twice, so that the time is linear in the text
    r"^[ \t]*+(?P<fence>`{3,}+|~{3,}+)[ \t]*+(?P<language>[^\s`]*+)[^\n`]*+\n"
    r"(?P<body>.*?)(?:^[ \t]*+(?P=fence)[`~]*+[ \t\r]*+$|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON = re.compile(r"py(thon)?[\d.]*", re.IGNORECASE)
_SESSION = re.compile(r"\s*+>>>")


class TestsFailed(EvaluationFailed):
    """The tests themselves cannot be run, whatever the candidate."""

    __test__ = False  # pytest collects what is named so


def code_block(text: str) -> str:
    """The fenced blocks that say they are Python, one after the other, but for sessions with a ``>>>`` prompt; where
    there is none, the first block that does not say what it is; where nothing is fenced, the whole text."""
    blocks = list(_FENCED.finditer(text))
    if not blocks:
        return textwrap.dedent(text)
    labelled = [block["body"] for block in blocks if _PYTHON.fullmatch(block["language"])]
    bodies = labelled or [block["body"] for block in blocks if not block["language"]][:1]
    return "".join(textwrap.dedent(body) for body in bodies if not _SESSION.match(body))


@cache
def _runner() -> str:
    return (Path(__file__).with_name("inside") / "runner.py").read_text()


@dataclass(frozen=True, kw_only=True)
class CodeTests:
    """Each top-level ``assert`` of ``tests`` is one test, and each top-level function whose name begins with "test_";
    the other statements are set-up. The score is the share of the tests that pass.

    ``timeout_seconds`` is for all of them together. ``memory_mib``: what the code may use beyond the interpreter.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT
    authority: ClassVar[Authority] = "verifier"

    type: Literal["code_tests"] = "code_tests"
    language: Literal["python"] = "python"
    tests: Annotated[str, Len(1, 20_000)]
    timeout_seconds: Annotated[float, Gt(0.0), Le(60.0)] = 10.0
    memory_mib: Annotated[int, Ge(16), Le(2048)] = 256
    hard: bool = True
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        if not self.suite.places:
            raise RefusedField("tests", 'there is no top-level assert, and no function whose name begins with "test_"')

    @cached_property
    def suite(self) -> "Suite":
        """Without the syntax tree, which takes hundreds of times the memory of the source."""
        body = self._body()
        _refuse_what_would_not_run(body)
        return Suite(
            source=self.tests,
            statements=len(body),
            asserts=[place for place, statement in enumerate(body) if isinstance(statement, ast.Assert)],
            functions={place: statement.name for place, statement in enumerate(body) if _is_test(statement)},
        )

    def _body(self) -> Sequence[ast.stmt]:
        try:
            return _parsed(self.tests)
        except SyntaxError as error:
            reason = f"{error.msg} (line {error.lineno})"
        except (ValueError, RecursionError, MemoryError):
            reason = "nested too deeply, or with a character that no source can hold"
        raise RefusedField("tests", f"not Python: {reason}")

    def resolved(self, tools: "Toolbox") -> "TestedCode":
        if tools.sandbox is None:
            raise RefusedField("type", "code_tests needs bubblewrap, which this service does not have")
        return TestedCode(self, tools.sandbox)


@dataclass(frozen=True, kw_only=True)
class Record:
    """A line of the runner's report; see there. Nothing in it can be trusted but its shape."""

    __pydantic_config__: ClassVar[dict[str, Any]] = STRICT

    what: Literal["test", "setup", "code", "tests"]
    place: Annotated[int, Ge(0)] = 0
    error: str | None = None
    detail: str = ""
    line: int | None = None
    code_line: int | None = None
    left: str | None = None
    right: str | None = None

    def __str__(self) -> str:
        where = f" (line {self.code_line} of the code)" if self.code_line else ""
        return f"{self.error}{': ' if self.detail else ''}{self.detail}{where}"


_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class TestedCode:
    """``code_tests``, with the sandbox that it runs in."""

    __test__: ClassVar[bool] = False
    type: ClassVar[str] = "code_tests"
    authority: ClassVar[Authority] = "verifier"

    stated: CodeTests
    sandbox: Sandbox

    @property
    def hard(self) -> bool:
        return self.stated.hard

    @property
    def weight(self) -> float:
        return self.stated.weight

    async def evaluate(self, submission: Submission) -> Evaluation:
        """Raises SandboxFailed, or TestsFailed."""
        code = code_block(submission.text)
        if not code.strip():
            return self._evaluation(
                0, [Issue("code", "there is no code", "Reply with the code in one ```python block.")]
            )
        suite, nonce = self.stated.suite, secrets.token_hex(16)
        payload = {
            "nonce": nonce,
            "code": code,
            "tests": suite.source,
            "asserts": suite.asserts,
            "functions": suite.functions,
        }
        limits = Limits(
            seconds=self.stated.timeout_seconds, memory_mib=self.stated.memory_mib, report_bytes=MAX_REPORT_BYTES
        )
        outcome = await self.sandbox.run(_runner(), payload, limits, client=submission.request)
        loop = asyncio.get_running_loop()  # what the code has written may be long
        return await loop.run_in_executor(submission.threads, self._judged, outcome, nonce)

    def _judged(self, outcome: Outcome, nonce: str) -> Evaluation:
        suite = self.stated.suite
        reported = _records(outcome.report, nonce, most=suite.statements + 1)
        records = [record for record in reported if record.place < suite.statements]
        failures = {(record.what, record.place): record for record in records if record.error is not None}
        over = {record.place for record in records if record.what == "test"} & suite.places
        passed = over - {place for what, place in failures if what == "test"}
        issues = self._issues(islice(failures.values(), MAX_ISSUES))
        if over != suite.places and all(what == "test" for what, _ in failures):
            issues.append(self._unfinished(outcome, len(over)))
        return self._evaluation(len(passed), issues)

    def _evaluation(self, passed: int, issues: Sequence[Issue]) -> Evaluation:
        total = len(self.stated.suite.places)
        return Evaluation(
            evaluator=self.type,
            authority=self.authority,
            hard=self.hard,
            weight=self.weight,
            passed=passed == total,
            score=passed / total,
            issues=tuple(issues[:MAX_ISSUES]),
        )

    def _issues(self, failures: Iterable[Record]) -> list[Issue]:
        explanation = Explanation(self.stated.tests)
        return [self._issue(failure, explanation) for failure in failures]

    def _issue(self, record: Record, explanation: "Explanation") -> Issue:
        if record.what == "tests":
            raise TestsFailed(excerpt(f"the tests do not compile: {record}", MAX_MESSAGE))
        if record.what == "code":
            fault = f"line {record.code_line}: {record.detail}" if record.error in _SYNTAX else f"{record}"
            order = f"Fix the syntax error in line {record.code_line}: {record.detail}."
            if record.error not in _SYNTAX:
                order = self._remedy(record) or f"Make the code run without {record.error}: {record.detail}."
            return Issue("code", excerpt(fault, MAX_MESSAGE), excerpt(order, MAX_QUOTE))
        message, order = explanation.of(record)
        return Issue("tests", excerpt(message, MAX_MESSAGE), self._remedy(record) or excerpt(order, MAX_QUOTE * 2))

    def _remedy(self, record: Record) -> str | None:
        """What to do about errors that say more than the test that they failed."""
        undefined = _UNDEFINED.fullmatch(record.detail)
        if record.error == "NameError" and undefined and record.code_line is None:
            return f"Define `{undefined[1]}`."
        if record.error == "ModuleNotFoundError" and record.code_line is not None:
            return "Import nothing but Python's standard library."
        if record.error == "MemoryError":
            return f"Use at most {self.stated.memory_mib} MiB of memory."
        return "Do not end the program: call no exit." if record.error == "SystemExit" else None

    def _unfinished(self, outcome: Outcome, over: int) -> Issue:
        so_far = f"after {over} of {len(self.stated.suite.places)} tests"
        if outcome.timed_out:
            seconds = f"{self.stated.timeout_seconds:g} seconds"
            return Issue("timeout_seconds", f"{seconds} ran out {so_far}", f"Make the code finish within {seconds}.")
        if outcome.output.rstrip().endswith(b"MemoryError"):
            order = f"Use at most {self.stated.memory_mib} MiB of memory."
            return Issue("memory_mib", f"the memory ran out {so_far}", order)
        if outcome.status is not None and outcome.status > 128:
            return Issue(
                "code", f"{_signal(outcome.status - 128)} ended the run {so_far}", "Do not crash the interpreter."
            )
        return Issue("code", f"the code ended the run {so_far}", "Do not end the program: call no exit.")


_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
_UNDEFINED = re.compile(r"name '(\w{1,80})' is not defined.*", re.DOTALL)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _records(report: bytes, nonce: str, most: int) -> Iterator[Record]:
    """What is not the runner's, or is cut off, is left out: a test that is not reported has not passed."""
    for piece in report.split(f"{nonce} ".encode(), most)[1:]:
        try:
            yield _RECORD.validate_json(piece.partition(b"\n")[0])
        except ValidationError:
            continue


def _parsed(source: str) -> Sequence[ast.stmt]:
    with warnings.catch_warnings(action="ignore"):  # thousands of them, if somebody likes to fill the log
        return ast.parse(source).body


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _needs_arguments(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    return positional > len(arguments.defaults) or None in arguments.kw_defaults


def _is_test(statement: ast.stmt) -> TypeGuard[Function]:
    return isinstance(statement, Function) and statement.name.startswith("test_")


def _refuse_what_would_not_run(body: Sequence[ast.stmt]) -> None:
    """Raises RefusedField for what looks like a test and would pass unseen."""
    for top in body:
        if _is_test(top) and not top.decorator_list:
            if _needs_arguments(top.args):
                raise RefusedField("tests", f"{top.name} takes arguments, and nothing gives it any; {_INSTEAD}")
            if _yields(top):
                raise RefusedField("tests", f"{top.name} has a yield, so that a call runs nothing of it; {_INSTEAD}")
        elif isinstance(top, ast.ClassDef) and any(map(_is_test, top.body)):
            raise RefusedField("tests", f"{top.name} is a class, and its tests would not be run; {_INSTEAD}")


_INSTEAD = "state each case as a top-level assert, or in a function without arguments"


def _yields(function: Function) -> bool:
    nodes: list[ast.AST] = [*function.body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, Function | ast.Lambda | ast.ClassDef):
            nodes += ast.iter_child_nodes(node)
    return False


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Where tests stand among the top statements of a source. ``functions``: the names, by their places."""

    source: str
    statements: int
    asserts: Sequence[int]
    functions: Mapping[int, str]

    @property
    def places(self) -> frozenset[int]:
        return frozenset([*self.asserts, *self.functions])


@dataclass(frozen=True)
class Explanation:
    """Says of a test that failed what it demands. ``source``: all the tests."""

    source: str

    @cached_property
    def _body(self) -> Sequence[ast.stmt]:
        return _parsed(self.source)

    def of(self, record: Record) -> tuple[str, str]:
        """What failed and why, and the order to mend it."""
        top = self._body[record.place]
        statement = _at(record.line, top)
        label = f"{top.name}: " if _is_test(top) else ""
        if isinstance(statement, ast.Assert) and record.error == "AssertionError":
            fault, order = self._broken(record, top, statement)
            if statement.msg and record.detail and not record.code_line:
                label, order = (
                    f"{label}{record.detail.rstrip('.')}: ",
                    f"{order.rstrip('.')}. The test says: {record.detail}",
                )
            return f"{label}`{self._quoted(statement)}`: {fault}", order
        if isinstance(statement, ast.Raise) and _is_test(top):
            return f"{label}{record}", f"Make the test {top.name} pass, which says: {record.detail or record.error}"
        order = f"Make this run without {record.error}: {self._in_context(top, statement)}"
        return f"{label}`{self._quoted(statement)}`: {record}", order

    def _broken(self, record: Record, top: ast.stmt, statement: ast.Assert) -> tuple[str, str]:
        """What an assert found, and what it demands."""
        match statement.test:
            case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]) if record.left and record.right:
                swapped = _is_literal(left) and not _is_literal(right)
                got, expected = (record.right, record.left) if swapped else (record.left, record.right)
                order = self._demand(right if swapped else left, expected, top, statement)
                return f"got {got}, expected {expected}", order
            case ast.Compare(ops=[_]) if record.left and record.right:
                fault = f"the left side is {record.left}, the right one {record.right}"
            case _:
                fault = f"{record}" if record.code_line else "it does not hold"
        return fault, f"Make this hold: {self._in_context(top, statement)}"

    def _demand(self, expression: ast.expr, expected: str, top: ast.stmt, statement: ast.stmt) -> str:
        quoted = self._quoted(expression)
        alone = not _names(expression, ast.Load) & self._bound(top, statement)
        if alone and len(quoted) <= MAX_VALUE and len(expected) <= MAX_VALUE and not expected.startswith("<"):
            return f"Make `{quoted}` {'return' if isinstance(expression, ast.Call) else 'equal'} {expected}."
        return f"Make this hold: {self._in_context(top, statement)}"

    def _in_context(self, top: ast.stmt, statement: ast.stmt) -> str:
        """The statement, after the simple ones that lead up to it: "s = Stack(); s.push(1); assert s.pop() == 1"."""
        used = _names(statement, ast.Load)
        if isinstance(top, Function):
            before = [other for other in top.body if other.lineno < statement.lineno]
        else:
            before = [other for other in self._body if other.lineno < top.lineno and _names(other, ast.Store) & used]
        if len(before) > MAX_STEPS:
            return excerpt(self._quoted(statement), MAX_QUOTE)
        whole = "; ".join(self._quoted(step) for step in [*before, statement] if step is statement or _matters(step))
        complete = not any(hasattr(step, "body") or isinstance(step, ast.Match) for step in before)
        return whole if complete and len(whole) <= MAX_QUOTE else excerpt(self._quoted(statement), MAX_QUOTE)

    def _bound(self, top: ast.stmt, statement: ast.stmt) -> frozenset[str]:
        """The variables of the tests, which mean nothing to a writer who sees one expression."""
        steps = [top] if isinstance(top, Function) else [step for step in self._body if not hasattr(step, "body")]
        return frozenset[str]().union(*(_names(step, ast.Store) for step in steps if step is not statement))

    def _quoted(self, node: ast.stmt | ast.expr) -> str:
        """Its source on one line, without what an assert says; of a compound statement, the first line."""
        if isinstance(node, ast.Assert):
            return f"assert {self._quoted(node.test)}"
        lines = (ast.get_source_segment(self.source, node) or "").splitlines()
        return " ".join(line.strip() for line in (lines[:1] if hasattr(node, "body") else lines))


def _at(line: int | None, top: ast.stmt) -> ast.stmt:
    """The innermost statement that holds the line."""
    spans = [
        ((node.end_lineno or node.lineno) - node.lineno, node)
        for node in ast.walk(top)
        if isinstance(node, ast.stmt) and line and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    return min(reversed(spans), key=lambda span: span[0])[1] if spans else top  # the last one is the deepest


def _names(node: ast.AST, context: type[ast.expr_context]) -> frozenset[str]:
    found = (name for name in ast.walk(node) if isinstance(name, ast.Name))
    return frozenset(name.id for name in found if isinstance(name.ctx, context))


def _matters(statement: ast.stmt) -> bool:
    """Not another assert, nor a string on its own."""
    text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return not text and not isinstance(statement, ast.Assert)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True
