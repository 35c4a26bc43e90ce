"""Explains to the writer what a failed test of its code demands."""

import ast
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge

from service.evaluators.base import STRICT
from service.evaluators.code.suite import Function, is_test, parse
from service.evaluators.text.words import excerpt

MAX_QUOTE = 300
MAX_VALUE = 80
"""Characters of a value in an instruction. If it has more, the instruction quotes only the test."""
MAX_STEPS = MAX_QUOTE // 10
"""Statements before a test that may be quoted with it. More would not fit."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """A line of the runner's report, which runner.py describes. Only its shape can be trusted, not its content."""

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


@dataclass(frozen=True)
class Explainer:
    """Explains what a failed test demands. ``source``: all the tests."""

    source: str

    @cached_property
    def _body(self) -> Sequence[ast.stmt]:
        return parse(self.source)

    def explain(self, record: Record) -> tuple[str, str]:
        """What failed and why, and the instruction that follows from it."""
        top = self._body[record.place]
        holder = self._find_holder(record.line, top)
        statement = _find_statement(record.line, holder)
        label = f"{top.name}: " if is_test(top) else "" if holder is top else f"{self._quote(top)}: "
        given = _match_arguments(top, holder)
        if isinstance(statement, ast.Assert) and record.error == "AssertionError":
            fault, order = self._explain_assert(record, holder, statement, given)
            if statement.msg and record.detail and not record.code_line:
                label, order = (
                    f"{label}{record.detail.rstrip('.')}: ",
                    f"{order.rstrip('.')}. The test says: {record.detail}",
                )
            return f"{label}`{self._quote(statement)}`: {fault}", order
        if isinstance(statement, ast.Raise) and is_test(top):
            return f"{label}{record}", f"Make the test {top.name} pass, which says: {record.detail or record.error}"
        order = f"Make this run without {record.error}: {self._quote_in_context(holder, statement, given)}"
        return f"{label}`{self._quote(statement)}`: {record}", order

    def _find_holder(self, line: int | None, top: ast.stmt) -> ast.stmt:
        """The top statement with the line: the test itself, or a function that it has called."""
        if line is None or _has_line(top, line):
            return top
        return next((other for other in self._body if _has_line(other, line)), top)

    def _explain_assert(
        self, record: Record, top: ast.stmt, statement: ast.Assert, given: Mapping[str, str]
    ) -> tuple[str, str]:
        """What an assert found, and the instruction."""
        match statement.test:
            case ast.Compare(left=left, ops=[ast.Eq()], comparators=[right]) if record.left and record.right:
                swapped = _is_literal(left) and not _is_literal(right)
                got, expected = (record.right, record.left) if swapped else (record.left, record.right)
                order = self._write_order(right if swapped else left, expected, top, statement, given)
                return f"got {got}, expected {expected}", order
            case ast.Compare(ops=[_]) if record.left and record.right:
                fault = f"the left side is {record.left}, the right one {record.right}"
            case _:
                fault = f"{record}" if record.code_line else "it does not hold"
        return fault, f"Make this hold: {self._quote_in_context(top, statement, given)}"

    def _write_order(
        self, expression: ast.expr, expected: str, top: ast.stmt, statement: ast.stmt, given: Mapping[str, str]
    ) -> str:
        quoted = self._quote(expression, given)
        alone = not _names(expression, ast.Load) & self._bound_names(top, statement) - given.keys()
        if alone and len(quoted) <= MAX_VALUE and len(expected) <= MAX_VALUE and not expected.startswith("<"):
            return f"Make `{quoted}` {'return' if isinstance(expression, ast.Call) else 'equal'} {expected}."
        return f"Make this hold: {self._quote_in_context(top, statement, given)}"

    def _quote_in_context(self, top: ast.stmt, statement: ast.stmt, given: Mapping[str, str]) -> str:
        """The statement after the simple ones that lead up to it: "s = Stack(); s.push(1); assert s.pop() == 1". A
        compound statement such as a loop is quoted whole.

        If this is longer than MAX_QUOTE, or a compound statement comes before, the statement alone.
        """
        used = _names(statement, ast.Load)
        if isinstance(top, Function):
            before = [other for other in top.body if other.lineno < statement.lineno]
        else:
            before = [other for other in self._body if other.lineno < top.lineno and _names(other, ast.Store) & used]
        if len(before) > MAX_STEPS:
            return excerpt(self._quote(statement, given), MAX_QUOTE)
        last = self._quote(statement, given) if statement is top or isinstance(top, Function) else self._join_lines(top)
        whole = "; ".join([*(self._quote(step, given) for step in before if _is_relevant(step)), last])
        complete = not any(hasattr(step, "body") or isinstance(step, ast.Match) for step in before)
        return whole if complete and len(whole) <= MAX_QUOTE else excerpt(self._quote(statement, given), MAX_QUOTE)

    def _bound_names(self, top: ast.stmt, statement: ast.stmt) -> frozenset[str]:
        """The variables of the tests. They mean nothing to a writer who sees only one expression."""
        within = isinstance(top, Function) or top is not statement
        steps = [step for step in self._body if not hasattr(step, "body")] if not isinstance(top, Function) else []
        steps += [top] if within else []
        stored = frozenset[str]().union(*(_names(step, ast.Store) for step in steps if step is not statement))
        return stored | _parameters(top)

    def _join_lines(self, node: ast.stmt) -> str:
        lines = (ast.get_source_segment(self.source, node) or "").splitlines()
        return " ".join(line.strip() for line in lines)

    def _quote(self, node: ast.stmt | ast.expr, given: Mapping[str, str] = MappingProxyType({})) -> str:
        """The source of a node on one line: an assert without its message, a compound statement's first line only.

        ``given``: names to replace, and what replaces them.
        """
        if isinstance(node, ast.Assert):
            return f"assert {self._quote(node.test, given)}"
        if given.keys() & _names(node, ast.Load) and not hasattr(node, "body"):
            return ast.unparse(_Renamer(given).visit(deepcopy(node)))
        lines = (ast.get_source_segment(self.source, node) or "").splitlines()
        return " ".join(line.strip() for line in (lines[:1] if hasattr(node, "body") else lines))


@dataclass(frozen=True)
class _Renamer(ast.NodeTransformer):
    names: Mapping[str, str]

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)


def _match_arguments(top: ast.stmt, holder: ast.stmt) -> Mapping[str, str]:
    """The parameters of a function that a test calls once, with the names it passes: {"candidate": "add"} for
    ``check(add)``."""
    if not isinstance(holder, Function) or holder is top:
        return {}
    calls = [node for node in ast.walk(top) if isinstance(node, ast.Call)]
    made = [call.args for call in calls if isinstance(call.func, ast.Name) and call.func.id == holder.name]
    if len(made) != 1:
        return {}
    parameters = [argument.arg for argument in (*holder.args.posonlyargs, *holder.args.args)]
    rebound = _names(holder, ast.Store)
    pairs = zip(parameters, made[0], strict=False)
    return {name: value.id for name, value in pairs if isinstance(value, ast.Name) and name not in rebound}


def _parameters(top: ast.stmt) -> frozenset[str]:
    return frozenset(node.arg for node in ast.walk(top) if isinstance(node, ast.arg))


def _has_line(node: ast.stmt, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _find_statement(line: int | None, top: ast.stmt) -> ast.stmt:
    """The innermost statement with the line."""
    spans = [
        ((node.end_lineno or node.lineno) - node.lineno, node)
        for node in ast.walk(top)
        if isinstance(node, ast.stmt) and line and _has_line(node, line)
    ]
    return min(reversed(spans), key=lambda span: span[0])[1] if spans else top  # the last one is the deepest


def _names(node: ast.AST, context: type[ast.expr_context]) -> frozenset[str]:
    found = (name for name in ast.walk(node) if isinstance(name, ast.Name))
    return frozenset(name.id for name in found if isinstance(name.ctx, context))


def _is_relevant(statement: ast.stmt) -> bool:
    """Whether a statement is not another assert, or a string by itself."""
    text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return not text and not isinstance(statement, ast.Assert)


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True
