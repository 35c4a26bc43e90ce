"""Tests of code as source: which of its statements are tests, and what one that failed demands of a writer."""

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, TypeGuard

from annotated_types import Ge

from service.evaluators.base import STRICT, RefusedField
from service.evaluators.text.words import excerpt

MAX_QUOTE = 300
MAX_VALUE = 80
"""Characters of a value in an instruction; where it has more the instruction quotes the test alone."""
MAX_STEPS = MAX_QUOTE // 10
"""Statements that may lead up to a test and be quoted with it: no more would fit."""


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
    """Where tests stand among the top statements of a source. ``functions``: the names, by their places.

    It does not keep the syntax tree, which takes hundreds of times the memory of the source.
    """

    source: str
    statements: int
    asserts: Sequence[int]
    functions: Mapping[int, str]

    @classmethod
    def of(cls, source: str) -> "Suite":
        """RefusedField where the source is not Python, or holds what looks like a test and would not run."""
        body = _body(source)
        _refuse_what_would_not_run(body)
        return cls(
            source=source,
            statements=len(body),
            asserts=[place for place, statement in enumerate(body) if isinstance(statement, ast.Assert)],
            functions={place: statement.name for place, statement in enumerate(body) if _is_test(statement)},
        )

    @property
    def places(self) -> frozenset[int]:
        return frozenset([*self.asserts, *self.functions])


def _body(source: str) -> Sequence[ast.stmt]:
    try:
        return _parsed(source)
    except SyntaxError as error:
        reason = f"{error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError):
        reason = "nested too deeply, or with a character that no source can hold"
    raise RefusedField("tests", f"not Python: {reason}")


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
