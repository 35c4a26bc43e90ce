"""The source of tests of code: which of its statements are tests, and what the runner has to know about them."""

import ast
import warnings
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeGuard

from service.evaluators.base import RefusedField

Function = ast.FunctionDef | ast.AsyncFunctionDef
MAX_NAME = 300
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_INSTEAD = "write each case as a top-level assert, or in a function without arguments"
_NOTHING = (
    "nothing is tested: there is no top-level assert (one in a loop, an if, a with or a try counts), no top-level call "
    'of a function that asserts, and no function whose name begins with "test_"'
)
_CHECK, _CANDIDATE = "check", "candidate"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Which of the top statements of a source are tests.

    source: of the tests, with a call of ``check(candidate)`` if it was missing.
    statements: how many top statements there are.
    in_place: the indices of statements that are tests by themselves.
    functions: the names of test functions, by their indices.
    imports, assigned, name, entry: for the runner; see inside/runner.py.

    >>> sorted(Suite.from_source("x = f(1)\\nassert x == 1\\nfor y in (2, 3):\\n    assert f(y) == y").places)
    [1, 2]

    The syntax tree is not kept: it takes hundreds of times the memory of the source.
    """

    source: str
    statements: int
    in_place: Sequence[int]
    functions: Mapping[int, str]
    imports: Sequence[str]
    assigned: Sequence[str]
    name: str
    entry: bool

    @classmethod
    def from_source(cls, source: str) -> "Suite":
        """Raises RefusedField if the source is not Python, tests nothing, or has something that looks like a test but
        would not run."""
        tops = [_Top.from_statement(statement) for statement in _parse_tests(source)]
        asserting = _asserting_names(tops)
        if _has_uncalled_check(tops, asserting):
            source = f"{source}\n\n{_CHECK}({_CANDIDATE})\n"
            tops.append(_Top.from_statement(_parse_tests(source)[-1]))
        used = frozenset[str]().union(*(top.uses for top in tops))
        _refuse_what_would_not_run([top.statement for top in tops], used)
        in_place = [place for place, top in enumerate(tops) if top.asserts or not asserting.isdisjoint(top.uses)]
        functions = {place: top.statement.name for place, top in enumerate(tops) if _is_run(top.statement)}
        if not in_place and not functions:
            raise RefusedField("tests", _NOTHING)
        return cls(
            source=source,
            statements=len(tops),
            in_place=in_place,
            functions=functions,
            imports=sorted(frozenset[str]().union(*(top.imports for top in tops))),
            assigned=sorted(name for top in tops for name in top.assigns if name.isidentifier()),
            name="__main__" if any(_is_main_guard(tops[place].statement) for place in in_place) else "tests",
            entry=_CANDIDATE in used,
        )

    @property
    def places(self) -> frozenset[int]:
        return frozenset([*self.in_place, *self.functions])


@dataclass(slots=True)
class _Top:
    """What one top statement contains, found in one pass, because tests may be long.

    asserts: whether it asserts something, outside of functions and classes.
    asserts_within: whether it asserts something anywhere.
    calls, hands: names that are called, and names that are arguments of calls, outside of functions and classes.
    names: all names.
    imports: modules.
    assigns: attributes that it may set, by a statement or by a name in a string, as for ``mock.patch``.
    """

    statement: ast.stmt
    asserts: bool = False
    asserts_within: bool = False
    calls: set[str] = field(default_factory=set)
    hands: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    imports: set[str] = field(default_factory=set)
    assigns: set[str] = field(default_factory=set)

    @classmethod
    def from_statement(cls, statement: ast.stmt) -> "_Top":
        found, inner = cls(statement), list[ast.AST]()
        nodes: list[ast.AST] = [statement]
        while nodes:
            node = nodes.pop()
            if isinstance(node, _SCOPES):
                inner.append(node)
            else:
                found._note(node, outside=True)
                nodes += _children(node)
        while inner:
            node = inner.pop()
            found._note(node, outside=False)
            inner += _children(node)
        return found

    def _note(self, node: ast.AST, *, outside: bool) -> None:
        if isinstance(node, ast.Name):
            self.names.add(node.id)
        elif isinstance(node, ast.Constant):
            if isinstance(node.value, str) and len(node.value) <= MAX_NAME:
                self.assigns.add(node.value.rpartition(".")[2])
        elif isinstance(node, ast.Attribute):
            if not isinstance(node.ctx, ast.Load):
                self.assigns.add(node.attr)
        elif isinstance(node, ast.Call):
            if outside:
                self.calls |= _name_in(node.func)
                self.hands.update(*map(_name_in, node.args))
        elif isinstance(node, ast.Import):
            self.imports.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            self.imports |= {node.module} if node.module else set()
        elif isinstance(node, ast.Assert | ast.Raise) and _is_assertion(node):
            self.asserts_within = True
            self.asserts = self.asserts or outside

    @property
    def uses(self) -> set[str]:
        """The names that it calls or passes to what it calls. An assignment only uses the names that it calls."""
        return self.calls if isinstance(self.statement, ast.Assign) else self.calls | self.hands


def _children(node: ast.AST) -> list[ast.AST]:
    if isinstance(node, ast.Name | ast.Constant):
        return []
    found: list[ast.AST] = []
    for name in node._fields:
        value = getattr(node, name, None)
        if isinstance(value, list):
            found += [part for part in value if isinstance(part, ast.AST)]
        elif isinstance(value, ast.AST) and name != "ctx":
            found.append(value)
    return found


def _name_in(node: ast.expr) -> set[str]:
    return {node.id} if isinstance(node, ast.Name) else set()


def _is_assertion(node: ast.Assert | ast.Raise) -> bool:
    if isinstance(node, ast.Assert):
        return True
    raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
    return isinstance(raised, ast.Name) and raised.id == "AssertionError"


def _asserting_names(tops: Sequence[_Top]) -> frozenset[str]:
    """The names whose call runs an assert: functions with an assert, and whatever uses one of these names."""
    users = defaultdict[str, list[str]](list)
    found: list[str] = []
    for top in tops:
        match top.statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                pass
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Lambda() | ast.Name() | ast.Call()):
                pass
            case _:
                continue
        found += [name] if top.asserts_within else []
        for used in top.names:
            users[used].append(name)
    reached = set[str]()
    while found:
        name = found.pop()
        if name not in reached:
            reached.add(name)
            found += users[name]
    return frozenset(reached)


def _has_uncalled_check(tops: Sequence[_Top], asserting: Collection[str]) -> bool:
    """Whether ``check(candidate)`` is defined and not called, because as in HumanEval the harness calls it."""
    checks = [top.statement for top in tops if isinstance(top.statement, ast.FunctionDef)]
    found = [check for check in checks if check.name == _CHECK and _count_required(check.args) == 1]
    return len(found) == 1 and _CHECK in asserting and not any(_CHECK in top.names for top in tops)


def _is_main_guard(statement: ast.stmt) -> bool:
    """Whether the statement is ``if __name__ == "__main__":``."""
    match statement:
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"), ops=[ast.Eq()])):
            return True
    return False


def is_test(statement: ast.stmt) -> TypeGuard[Function]:
    return isinstance(statement, Function) and statement.name.startswith("test_")


def _is_run(statement: ast.stmt) -> TypeGuard[Function]:
    """Whether the statement is a test function that can be called without arguments. A decorator may provide them."""
    return is_test(statement) and (bool(statement.decorator_list) or not _needs_arguments(statement.args))


def _needs_arguments(arguments: ast.arguments) -> bool:
    return _count_required(arguments) > 0 or None in arguments.kw_defaults


def _count_required(arguments: ast.arguments) -> int:
    return len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)


def _refuse_what_would_not_run(body: Sequence[ast.stmt], used: Collection[str]) -> None:
    """Raise RefusedField for something that looks like a test but would silently not run."""
    for top in body:
        if is_test(top) and not top.decorator_list:
            if _needs_arguments(top.args) and top.name not in used:
                raise RefusedField("tests", f"{top.name} takes arguments, and nothing provides them; {_INSTEAD}")
            if _has_yield(top):
                raise RefusedField("tests", f"{top.name} has a yield, so a call would not run its body; {_INSTEAD}")
        elif isinstance(top, ast.ClassDef) and any(map(is_test, top.body)):
            raise RefusedField("tests", f"{top.name} is a class, whose tests would not run; {_INSTEAD}")


def _has_yield(function: Function) -> bool:
    nodes: list[ast.AST] = [*function.body]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Yield | ast.YieldFrom):
            return True
        if not isinstance(node, _SCOPES):
            nodes += _children(node)
    return False


def parse(source: str) -> Sequence[ast.stmt]:
    with warnings.catch_warnings(action="ignore"):  # thousands of them, if somebody likes to fill the log
        return ast.parse(source).body


def _parse_tests(source: str) -> Sequence[ast.stmt]:
    try:
        return parse(source)
    except SyntaxError as error:
        reason = f"{error.msg} (line {error.lineno})"
    except (ValueError, RecursionError, MemoryError):
        reason = "nested too deeply, or with a character that is not allowed in source code"
    raise RefusedField("tests", f"not Python: {reason}")
