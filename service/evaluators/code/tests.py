"""A verifier that runs the candidate's code against tests, in the sandbox.

The tests run in the same interpreter as the candidate, because they use its objects. So the runner
(``inside/runner.py``) keeps everything that decides about a test out of the candidate's reach. It ensures:

* A test counts only if the runner has reported it as passed. Nobody else can report: not by ending the program, by
  printing, by writing to any descriptor, by calling what the runner calls, or from a child process. Frames, the
  collector's lists of objects, tracing and profiling would lead to the runner, so they raise RuntimeError.
* Builtins, modules that the tests import, their functions and classes, and names that the tests define are restored
  before each top statement of the tests and each test function. A test fails if the candidate replaced one meanwhile.
* The tests see Python's builtins, not functions of the candidate with the same names, unless they test nothing else.

It does not cover:

* An object that claims to be equal to everything, or true of everything. It passes, because that is what ``==`` means
  in Python. Tests that must not allow it compare types too.
* A candidate that recognises the tests' inputs, or changes the objects that the tests pass to it.
* A candidate that replaces something of Python's or of the tests and restores it within the same test.
* Code that reads or writes the interpreter's memory, by ``ctypes`` or ``/proc/self/mem``, that poses as the standard
  library to get at frames, or that uses the frame passed to a signal handler.
"""

import re
import secrets
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

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
from service.evaluators.code.explanation import MAX_QUOTE, Explainer, Record
from service.evaluators.code.sandbox import Outcome, Sandbox, SandboxLimits
from service.evaluators.code.suite import Suite
from service.evaluators.text.fences import dedent, fenced_blocks
from service.evaluators.text.words import excerpt
from service.evaluators.toolbox import Toolbox

MAX_ISSUES = 10
MAX_REPORT_BYTES = 1 << 24
"""Enough for as many failures as there can be tests."""
MAX_MESSAGE = 600

_PYTHON = re.compile(r"py(thon)?[\d.]*")
_SESSION = re.compile(r"\s*+>>>")


class TestsFailed(EvaluationFailed):
    """The tests themselves cannot be run, with any candidate."""

    __test__ = False  # pytest collects what is named so


def find_code(text: str) -> str:
    """Find the Python code in a text.

    It is in the fenced blocks labelled as Python, without sessions that begin with a ``>>>`` prompt. Without such
    a block it is in the first one without a label, and without any block it is the whole text. Takes time linear in the
    text; call it in a thread.

    >>> find_code("So:\\n```python\\nx = 1\\n```\\n")
    'x = 1\\n'
    """
    blocks = fenced_blocks(text)
    if not blocks:
        return dedent(text)
    labelled = [block.body for block in blocks if _PYTHON.fullmatch(block.language)]
    bodies = labelled or [block.body for block in blocks if not block.language][:1]
    return "".join(dedent(body) for body in bodies if not _SESSION.match(body))


@cache
def _read_runner() -> str:
    return (Path(__file__).with_name("inside") / "runner.py").read_text()


@dataclass(frozen=True, kw_only=True)
class CodeTests:
    """Runs the candidate's code against tests. The score is the share of the tests that pass.

    tests: each top-level ``assert`` is a test, and so is each top-level function whose name begins with "test_". The
        other statements are set-up.
    timeout_seconds: for all tests together.
    memory_mib: what the code may use beyond the interpreter.
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
        _ = self.suite  # refuses tests that cannot be run

    @cached_property
    def suite(self) -> Suite:
        return Suite.from_source(self.tests)

    def resolve(self, tools: Toolbox) -> "TestedCode":
        sandbox = tools.find(Sandbox)
        if sandbox is None:
            raise RefusedField("type", "code_tests needs bubblewrap, which this service does not have")
        return TestedCode(self, sandbox)


_RECORD = TypeAdapter(Record)


@dataclass(frozen=True)
class TestedCode:
    """``code_tests``, with the sandbox that it runs in."""

    __test__: ClassVar[bool] = False
    type: ClassVar[str] = "code_tests"
    authority: ClassVar[Authority] = "verifier"

    spec: CodeTests
    sandbox: Sandbox

    @property
    def hard(self) -> bool:
        return self.spec.hard

    @property
    def weight(self) -> float:
        return self.spec.weight

    async def evaluate(self, submission: Submission) -> Evaluation:
        """Raises SandboxFailed, or TestsFailed."""
        # In threads: the text may be long, and what the code writes.
        code = await submission.thread.run(find_code, submission.text)
        if not code.strip():
            return self._evaluation(
                0, [Issue("code", "there is no code", "Reply with the code in one ```python block.")]
            )
        suite, nonce = self.spec.suite, secrets.token_hex(16)
        payload = {
            "nonce": nonce,
            "code": code,
            "tests": suite.source,
            "in_place": suite.in_place,
            "functions": suite.functions,
            "imports": suite.imports,
            "assigned": suite.assigned,
            "name": suite.name,
            "entry": suite.entry,
        }
        limits = SandboxLimits(
            seconds=self.spec.timeout_seconds, memory_mib=self.spec.memory_mib, report_bytes=MAX_REPORT_BYTES
        )
        outcome = await self.sandbox.run(_read_runner(), payload, limits, client=submission.request)
        return await submission.thread.run(self._judge, outcome, nonce)

    def _judge(self, outcome: Outcome, nonce: str) -> Evaluation:
        suite = self.spec.suite
        reported = _parse_records(outcome.report, nonce, most=suite.statements + 1)
        records = [record for record in reported if record.place < suite.statements]
        failures = {(record.what, record.place): record for record in records if record.error is not None}
        over = {record.place for record in records if record.what == "test"} & suite.places
        passed = over - {place for what, place in failures if what == "test"}
        issues = self._issues(islice(failures.values(), MAX_ISSUES))
        if over != suite.places and all(what == "test" for what, _ in failures):
            issues.append(self._unfinished_issue(outcome, len(over)))
        return self._evaluation(len(passed), issues)

    def _evaluation(self, passed: int, issues: Sequence[Issue]) -> Evaluation:
        score = passed / len(self.spec.suite.places)
        return Evaluation.from_evaluator(self, score, issues=tuple(issues[:MAX_ISSUES]))

    def _issues(self, failures: Iterable[Record]) -> list[Issue]:
        explainer = Explainer(self.spec.suite.source)
        return [self._issue(failure, explainer) for failure in failures]

    def _issue(self, record: Record, explainer: Explainer) -> Issue:
        if record.what == "tests":
            raise TestsFailed(excerpt(f"the tests do not compile: {record}", MAX_MESSAGE))
        if record.what == "code":
            fault = f"line {record.code_line}: {record.detail}" if record.error in _SYNTAX else f"{record}"
            order = f"Fix the syntax error in line {record.code_line}: {record.detail}."
            if record.error not in _SYNTAX:
                order = self._remedy(record) or f"Make the code run without {record.error}: {record.detail}."
            return Issue("code", excerpt(fault, MAX_MESSAGE), excerpt(order, MAX_QUOTE))
        message, order = explainer.explain(record)
        return Issue("tests", excerpt(message, MAX_MESSAGE), self._remedy(record) or excerpt(order, MAX_QUOTE * 2))

    def _remedy(self, record: Record) -> str | None:
        """The instruction for an error that says more than the test that it broke."""
        undefined = _UNDEFINED.fullmatch(record.detail)
        if record.error == "NameError" and undefined and record.code_line is None:
            return f"Define `{undefined[1]}`."
        if record.error == "ModuleNotFoundError" and record.code_line is not None:
            return "Import nothing but Python's standard library."
        if record.error == "MemoryError":
            return f"Use at most {self.spec.memory_mib} MiB of memory."
        if record.error == "Tampering":
            return "Replace nothing of Python's own, and nothing of the tests."
        return "Do not end the program: call no exit." if record.error == "SystemExit" else None

    def _unfinished_issue(self, outcome: Outcome, over: int) -> Issue:
        so_far = f"after {over} of {len(self.spec.suite.places)} tests"
        if outcome.timed_out:
            seconds = f"{self.spec.timeout_seconds:g} seconds"
            return Issue("timeout_seconds", f"{seconds} ran out {so_far}", f"Make the code finish within {seconds}.")
        if outcome.output.rstrip().endswith(b"MemoryError"):
            order = f"Use at most {self.spec.memory_mib} MiB of memory."
            return Issue("memory_mib", f"the memory ran out {so_far}", order)
        if outcome.status is not None and outcome.status > 128:
            return Issue(
                "code", f"{_signal_name(outcome.status - 128)} ended the run {so_far}", "Do not crash the interpreter."
            )
        return Issue("code", f"the code ended the run {so_far}", "Do not end the program: call no exit.")


_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
_UNDEFINED = re.compile(r"name '(\w{1,80})' is not defined.*", re.DOTALL)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _parse_records(report: bytes, nonce: str, most: int) -> Iterator[Record]:
    """Parse the report. Lines that are cut off or not the runner's are left out: a test without a report fails."""
    for piece in report.split(f"{nonce} ".encode(), most)[1:]:
        try:
            yield _RECORD.validate_json(piece.partition(b"\n")[0])
        except ValidationError:
            continue
