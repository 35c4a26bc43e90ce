"""A verifier that runs the candidate's code against tests, in the sandbox.

What it proves is bounded by where the tests run: in the candidate's own interpreter. A candidate cannot pass by ending
the program, by printing, or by replacing builtins: a test counts only once it has been reported as passed, on a
descriptor of its own and under a nonce. One that sets out to deceive still can: by an object that is equal to
everything, by patching the standard library that the tests use, by searching the interpreter's frames for the nonce, or
by recognising the tests' own inputs.
"""

import ast
import re
import secrets
import signal
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Gt, Le, Len
from pydantic import TypeAdapter, ValidationError

from service.evaluators.base import STRICT, Authority, Evaluation, Issue, RefusedField, Submission, Weight
from service.evaluators.rules import excerpt
from service.evaluators.sandbox import Limits, Outcome, Sandbox

if TYPE_CHECKING:
    from service.evaluators.toolbox import Toolbox

MAX_ISSUES = 10
MAX_REPORT_BYTES = 1 << 24
"""Enough for as many failures as tests can hold."""
MAX_MESSAGE = 600
MAX_QUOTE = 300
MAX_VALUE = 80
"""Characters of a value in an instruction; where it has more the instruction quotes the test alone."""
_RUNNER = Path(__file__).with_name("inside") / "runner.py"

_FENCED = re.compile(
    r"^[ \t]*```[ \t]*(?P<language>[^\s`]*)[^\n`]*\n(?P<body>.*?)(?:^[ \t]*```[ \t\r]*$|\Z)", re.MULTILINE | re.DOTALL
)
_PYTHON = ("", "python", "python3", "py")


class TestsFailed(RuntimeError):
    """The tests themselves cannot be run, whatever the candidate."""

    __test__ = False  # pytest collects what is named so


def code_block(text: str) -> str:
    """The first fenced block that is Python or does not say what it is; the whole text where nothing is fenced."""
    blocks = list(_FENCED.finditer(text))
    if not blocks:
        return textwrap.dedent(text)
    bodies = (block["body"] for block in blocks if block["language"].lower() in _PYTHON)
    return textwrap.dedent(next(bodies, ""))


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
        for function in self.suite.functions.values():
            if _needs_arguments(function.args) and not function.decorator_list:
                raise RefusedField("tests", f"{function.name} takes arguments, and nothing gives it any")

    @cached_property
    def suite(self) -> "Suite":
        try:
            with warnings.catch_warnings(action="ignore"):  # thousands of them, if somebody likes to fill the log
                return Suite(self.tests, ast.parse(self.tests).body)
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
            "functions": {place: function.name for place, function in suite.functions.items()},
        }
        limits = Limits(
            seconds=self.stated.timeout_seconds, memory_mib=self.stated.memory_mib, report_bytes=MAX_REPORT_BYTES
        )
        outcome = await self.sandbox.run(_RUNNER.read_text(), payload, limits)
        records = [record for record in _records(outcome.report, nonce) if record.place < len(suite.body)]
        failures = {(record.what, record.place): record for record in records if record.error is not None}
        over = {record.place for record in records if record.what == "test"} & suite.places
        passed = over - {place for what, place in failures if what == "test"}
        issues = [self._issue(failure) for failure in islice(failures.values(), MAX_ISSUES)]
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

    def _issue(self, record: Record) -> Issue:
        if record.what == "tests":
            raise TestsFailed(excerpt(f"the tests do not compile: {record}", MAX_MESSAGE))
        if record.what == "code":
            fault = f"line {record.code_line}: {record.detail}" if record.error in _SYNTAX else f"{record}"
            order = f"Fix the syntax error in line {record.code_line}: {record.detail}."
            if record.error not in _SYNTAX:
                order = self._remedy(record) or f"Make the code run without {record.error}: {record.detail}."
            return Issue("code", excerpt(fault, MAX_MESSAGE), excerpt(order, MAX_QUOTE))
        message, order = self.stated.suite.told(record)
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


def _records(report: bytes, nonce: str) -> Iterator[Record]:
    """What is not the runner's, or is cut off, is left out: a test that is not reported has not passed."""
    for line in report.split(b"\n"):
        if line.startswith(f"{nonce} ".encode()):
            try:
                yield _RECORD.validate_json(line[len(nonce) + 1 :])
            except ValidationError:
                continue


Function = ast.FunctionDef | ast.AsyncFunctionDef


def _needs_arguments(arguments: ast.arguments) -> bool:
    positional = len(arguments.posonlyargs) + len(arguments.args)
    return positional > len(arguments.defaults) or None in arguments.kw_defaults


@dataclass(frozen=True)
class Suite:
    """Tests by their places among the top statements of a source."""

    source: str
    body: Sequence[ast.stmt]

    @cached_property
    def asserts(self) -> Sequence[int]:
        return [place for place, statement in enumerate(self.body) if isinstance(statement, ast.Assert)]

    @cached_property
    def functions(self) -> Mapping[int, Function]:
        return {
            place: statement
            for place, statement in enumerate(self.body)
            if isinstance(statement, Function) and statement.name.startswith("test_")
        }

    @cached_property
    def places(self) -> frozenset[int]:
        return frozenset([*self.asserts, *self.functions])

    def told(self, record: Record) -> tuple[str, str]:
        """What failed and why, and the order to mend it."""
        top = self.body[record.place]
        function = self.functions.get(record.place)
        statement = _at(record.line, top)
        label = f"{function.name}: " if function else ""
        quoted = self._quoted(statement)
        if isinstance(statement, ast.Assert) and record.error == "AssertionError":
            match statement.test:
                case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]) if record.left and record.right:
                    swapped = _is_literal(left) and not _is_literal(right)
                    got, expected = (record.right, record.left) if swapped else (record.left, record.right)
                    order = self._demand(right if swapped else left, expected, top, statement)
                    return f"{label}`{quoted}`: got {got}, expected {expected}", order
                case ast.Compare(ops=[_]) if record.left and record.right:
                    fault = f"the left side is {record.left}, the right one {record.right}"
                case _:
                    fault = f"{record}" if record.code_line else "it does not hold"
            return f"{label}`{quoted}`: {fault}", f"Make this hold: {self._in_context(top, statement)}"
        if isinstance(statement, ast.Raise) and function:
            return (
                f"{label}{record}",
                f"Make the test {function.name} pass, which says: {record.detail or record.error}",
            )
        return (
            f"{label}`{quoted}`: {record}",
            f"Make this run without {record.error}: {self._in_context(top, statement)}",
        )

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
            before = [other for other in self.body if other.lineno < top.lineno and _names(other, ast.Store) & used]
        whole = "; ".join(self._quoted(step) for step in [*before, statement] if step is statement or _matters(step))
        complete = not any(hasattr(step, "body") or isinstance(step, ast.Match) for step in before)
        return whole if complete and len(whole) <= MAX_QUOTE else excerpt(self._quoted(statement), MAX_QUOTE)

    def _bound(self, top: ast.stmt, statement: ast.stmt) -> frozenset[str]:
        """The variables of the tests, which mean nothing to a writer who sees one expression."""
        steps = [top] if isinstance(top, Function) else [step for step in self.body if not hasattr(step, "body")]
        return frozenset[str]().union(*(_names(step, ast.Store) for step in steps if step is not statement))

    def _quoted(self, node: ast.stmt | ast.expr) -> str:
        """Its source on one line; of a compound statement, the first line."""
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
