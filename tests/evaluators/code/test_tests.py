import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Awaitable
from textwrap import indent
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.evaluators.base import Evaluation, RefusedField
from service.evaluators.code.sandbox import Sandbox
from service.evaluators.code.tests import MAX_ISSUES, CodeTests, TestsFailed, find_code
from service.evaluators.toolbox import Toolbox
from tests.evaluators.code.test_sandbox import sandbox as sandbox  # a fixture
from tests.support.code_worker import evaluated

WIRE = TypeAdapter(CodeTests)


def stated(**fields: Any) -> CodeTests:
    return WIRE.validate_json(json.dumps({"type": "code_tests", **fields}))


DOCSTRING = '''```python
def f():
    """Return one.

    ```
    f() == 1
    ```
    """
    return 1
```'''


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "x = 1"),
        ("  x = 1\n  y = 2", "x = 1\ny = 2"),
        ("Here:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```", "x = 1\n"),
        ("```py\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
        ("``` Python title=a.py\nx = 1\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("```bash\npip install x\n```\nand\n```python\nx = 1\n```\n```python\nx = 2\n```", "x = 1\nx = 2\n"),
        ("```\n3\n```\nis what this prints:\n```python3.11\nprint(3)\n```", "print(3)\n"),
        ("```py\nx = 1\n```\n```python\n>>> x\n1\n```", "x = 1\n"),
        ("```python\n  x = 1\n```\n    ```python\n    x = 2\n    ```", "x = 1\nx = 2\n"),
        ("~~~python\nx = 1\n~~~\n", "x = 1\n"),
        ("~~~python\n```\n~~~", "```\n"),
        ("````python\ns = '''\n```\n'''\n````\n", "s = '''\n```\n'''\n"),
        ("```pycon\nx\n```", ""),
        ("1. Do this:\n   ```python\n   if x:\n       y\n   ```", "if x:\n    y\n"),
        ("```json\n{}\n```", ""),
        ("```{.python .numberLines}\nx = 1\n```", "x = 1\n"),
        ("```{python}\nx = 1\n```", "x = 1\n"),
        ("```python:a.py\nx = 1\n```", "x = 1\n"),
        ("```python-repl\nx\n```", ""),
        (DOCSTRING, DOCSTRING.removeprefix("```python\n").removesuffix("```")),
        (f"1. Do this:\n\n{indent(DOCSTRING, '   ')}", DOCSTRING.removeprefix("```python\n").removesuffix("```")),
        ("```python\ns = '''\n ``` in the middle ```\n'''\n```", "s = '''\n ``` in the middle ```\n'''\n"),
        ("Use ```inline``` code", "Use ```inline``` code"),
        ("", ""),
    ],
)
def test_the_first_block_of_python_is_the_code(text: str, code: str) -> None:
    assert find_code(text) == code


@settings(deadline=None)
@given(st.text() | st.text(alphabet="` \n\tpython"))
def test_any_text_has_a_code_block(text: str) -> None:
    assert isinstance(find_code(text), str)


def test_what_a_request_may_leave_out() -> None:
    found = stated(tests="assert f() == 1")
    assert (found.language, found.timeout_seconds, found.memory_mib) == ("python", 10.0, 256)
    assert (found.hard, found.weight, found.authority) == (True, 1.0, "verifier")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tests": ""},
        {"tests": "assert 1\n" + "#" * 20_000},
        {"tests": "assert 1", "language": "ruby"},
        {"tests": "assert 1", "timeout_seconds": 0},
        {"tests": "assert 1", "timeout_seconds": 60.1},
        {"tests": "assert 1", "memory_mib": 15},
        {"tests": "assert 1", "memory_mib": 2049},
        {"tests": "assert 1", "memory_mib": 64.0},
        {"tests": "assert 1", "network": True},
    ],
)
def test_fields_out_of_range_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        stated(**fields)


DEEP = [
    "(" * 9000,
    "[" * 150 + "a" + "]" * 150 + "(" * 9000,
    "assert " + "-" * 15_000 + "1",
    "assert " + "1+" * 9000 + "1",
]


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("assert f(", "not Python: '(' was never closed (line 1)"),
        ("x = 1\nassert x ==", "not Python: invalid syntax (line 2)"),
        ("assert 1\0", "not Python: "),
        ("assert '\ud800'", "not Python: "),
        *((source, "not Python: ") for source in DEEP),
        ("x = f(1)", "there is no top-level assert"),
        ("def helper(): assert f()", "there is no top-level assert"),
        ("class A:\n    def f(self): assert f()", "there is no top-level assert"),
        ("check = lambda: f()\ncheck()", "there is no top-level assert"),
        ("def check(a, b): assert a(b)", "there is no top-level assert"),
        ("def check(f): assert f(1)\nlater = check", "there is no top-level assert"),
        ("def test_a(x): assert f(x)", "test_a takes arguments"),
        ("def test_a(*, x): assert f(x)", "test_a takes arguments"),
        ("def test_a(x): assert f(x)", "write each case as a top-level assert, or in a function without arguments"),
        ("def test_a():\n    yield\n    assert f()", "test_a has a yield"),
        ("def test_a():\n    if f(): x = yield from g()", "test_a has a yield"),
        ("async def test_a():\n    if f(): x = [(yield 1)]", "test_a has a yield"),
        (
            "assert f()\nclass TestF:\n    def test_a(self): assert f()",
            "TestF is a class, whose tests would not run",
        ),
    ],
    ids=lambda value: value[:20].encode("ascii", "replace").decode(),
)
def test_tests_that_are_none_are_refused(tests: str, reason: str) -> None:
    with pytest.raises(RefusedField) as caught:
        CodeTests(tests=tests)
    assert caught.value.field == "tests"
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    "tests",
    [
        "def test_a():\n    def numbers():\n        yield 1\n    assert f(numbers())",
        "def test_a(): assert f(lambda: (yield))",
        "@run\ndef test_a(): yield",
        "class TestData:\n    x = 1\nassert f(TestData)",
    ],
)
def test_what_only_looks_like_it_is_accepted(tests: str) -> None:
    assert len(CodeTests(tests=tests).suite.places) == 1


def test_tests_that_are_held_take_little_memory() -> None:
    tracemalloc.start()
    held = CodeTests(tests="a;" * 9990 + "assert a")
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 500_000
    assert held.suite.statements == 9991


@pytest.mark.filterwarnings("error")
def test_warnings_about_the_tests_stay_out_of_the_log() -> None:
    assert CodeTests(tests='assert f("\\d") is 1').suite.places == {0}


def test_without_a_sandbox_it_is_refused() -> None:
    with pytest.raises(RefusedField, match="code_tests needs bubblewrap, which this service does not have") as caught:
        stated(tests="assert f()").resolve(Toolbox())
    assert caught.value.field == "type"


async def test_with_a_sandbox_it_runs(sandbox: Sandbox) -> None:
    evaluator = stated(tests="assert f()", hard=False, weight=2.0).resolve(Toolbox(sandbox))
    assert (evaluator.type, evaluator.authority, evaluator.hard, evaluator.weight) == (
        "code_tests",
        "verifier",
        False,
        2.0,
    )


ADD = "Sure!\n```python\ndef add(a, b):\n    return a - b\n```\nThat adds."


@pytest.mark.parametrize(
    ("tests", "message", "instruction"),
    [
        ("assert add(2, 3) == 5", "`assert add(2, 3) == 5`: got -1, expected 5", "Make `add(2, 3)` return 5."),
        ("assert 5 == add(2, 3)", "`assert 5 == add(2, 3)`: got -1, expected 5", "Make `add(2, 3)` return 5."),
        (
            "x = 5\nassert add(2, 3) == 4 + 1, f'not {x}'",
            "not 5: `assert add(2, 3) == 4 + 1`: got -1, expected 5",
            "Make `add(2, 3)` return 5. The test says: not 5",
        ),
        (
            "def test_order():\n    assert add(1, 0) == add(0, 1), 'The order must not matter.'",
            "test_order: The order must not matter: `assert add(1, 0) == add(0, 1)`: got 1, expected -1",
            "Make `add(1, 0)` return -1. The test says: The order must not matter.",
        ),
        (
            "assert not add(1, 0), 'not nothing'",
            "not nothing: `assert not add(1, 0)`: it does not hold",
            "Make this hold: assert not add(1, 0). The test says: not nothing",
        ),
        (
            "class A: pass\nassert add.__defaults__ is A()",
            "`assert add.__defaults__ is A()`: the left side is None, the right one <tests.A object>",
            "Make this hold: assert add.__defaults__ is A()",
        ),
        (
            "assert (add(\n    2,\n    3)) == 5",
            "`assert (add( 2, 3)) == 5`: got -1, expected 5",
            "Make `add( 2, 3)` return 5.",
        ),
        (
            "assert add.__doc__ == 'Sum.'",
            "`assert add.__doc__ == 'Sum.'`: got None, expected 'Sum.'",
            "Make `add.__doc__` equal 'Sum.'.",
        ),
        (
            "assert add(2, 3) > 0",
            "`assert add(2, 3) > 0`: the left side is -1, the right one 0",
            "Make this hold: assert add(2, 3) > 0",
        ),
        ("assert not add(1, 0)", "`assert not add(1, 0)`: it does not hold", "Make this hold: assert not add(1, 0)"),
        (
            "xs = [2, 3]\nassert add(*xs) == 5",
            "`assert add(*xs) == 5`: got -1, expected 5",
            "Make this hold: xs = [2, 3]; assert add(*xs) == 5",
        ),
        (
            "def test_twice():\n    '''Adds.'''\n    x = add(1, 1)\n    x += 1\n    assert x == 3",
            "test_twice: `assert x == 3`: got 1, expected 3",
            "Make this hold: x = add(1, 1); x += 1; assert x == 3",
        ),
        (
            "def test_loop():\n    for x in (1, 2):\n        assert add(x, 0) == x\n        assert add(x, x) == 2 * x",
            "test_loop: `assert add(x, x) == 2 * x`: got 0, expected 2",
            "Make this hold: assert add(x, x) == 2 * x",
        ),
        (
            "async def test_later(): assert add(2, 3) == 5",
            "test_later: `assert add(2, 3) == 5`: got -1, expected 5",
            "Make `add(2, 3)` return 5.",
        ),
        (
            "def test_raises():\n    try:\n        add(1, 2)\n    except ValueError:\n        return\n"
            "    raise AssertionError('no error')",
            "test_raises: AssertionError: no error",
            "Make the test test_raises pass, which says: no error",
        ),
        (
            "assert add(2) == 1",
            "`assert add(2) == 1`: TypeError: add() missing 1 required positional argument: 'b'",
            "Make this run without TypeError: assert add(2) == 1",
        ),
        (
            "assert add(2, [])",
            "`assert add(2, [])`: TypeError: unsupported operand type(s) for -: 'int' and 'list' (line 2 of the code)",
            "Make this run without TypeError: assert add(2, [])",
        ),
        ("assert sub(3, 2) == 1", "`assert sub(3, 2) == 1`: NameError: name 'sub' is not defined", "Define `sub`."),
        (
            "total = sub(3, 2)\nassert total == 1\ndef test_add(): pass",
            "`total = sub(3, 2)`: NameError: name 'sub' is not defined",
            "Define `sub`.",
        ),
    ],
)
async def test_a_failure_says_what_is_wrong_and_what_to_do(
    sandbox: Sandbox, tests: str, message: str, instruction: str
) -> None:
    evaluation = await evaluated(sandbox, ADD, tests=tests)
    (issue,) = evaluation.issues
    assert (issue.rule, issue.message, issue.instruction) == ("tests", message, instruction)
    assert (evaluation.passed, evaluation.score) == (False, 0.0)


CHECK = """
METADATA = {"author": "somebody"}


def check(candidate):
    assert candidate([1.0, 2.0], 0.5) == False
    assert candidate([1.0, 1.2], 0.5) == True
    for limit in (0.1, 0.3):
        assert not candidate([1.0, 9.0], limit)
"""
CLOSE = """
from typing import List

def gap(a, b):
    return abs(a - b)

def has_close(numbers: List[float], limit: float) -> bool:
    return any(gap(a, b) < limit for i, a in enumerate(numbers) for b in numbers[i + 1:])
"""


@pytest.mark.parametrize("call", ["check(has_close)", "", "if __name__ == '__main__':\n    check(has_close)"])
async def test_checks_in_the_form_of_humaneval(sandbox: Sandbox, call: str) -> None:
    tests = f"{CHECK}\n{call}"
    right = await evaluated(sandbox, CLOSE, tests=tests)
    assert (right.score, right.issues) == (1.0, ())
    assert (await evaluated(sandbox, CLOSE.replace("<", ">"), tests=tests)).score == 0.0


async def test_a_check_says_which_call_of_the_function_is_wrong(sandbox: Sandbox) -> None:
    evaluation = await evaluated(sandbox, CLOSE.replace("<", ">"), tests=f"{CHECK}\ncheck(has_close)")
    [issue] = evaluation.issues
    assert issue.message == ("check(has_close): `assert candidate([1.0, 2.0], 0.5) == False`: got True, expected False")
    assert issue.instruction == "Make `has_close([1.0, 2.0], 0.5)` return False."


@pytest.mark.parametrize(
    ("code", "score"),
    [
        ("def add(a, b): return a + b", 1.0),
        ("def add(a, b): return abs(a) + b", 6 / 7),
        ("def add(a, b): return 0", 1 / 7),
    ],
)
async def test_each_statement_with_an_assert_is_one_test(sandbox: Sandbox, code: str, score: float) -> None:
    tests = """
cases = [((1, 2), 3), ((3, 4), 7)]
for given, expected in cases:
    assert add(*given) == expected
if cases:
    assert add(1, 1) == 2
with open("/dev/null") as file:
    assert add(5, 5) == 10
try:
    add(None, None)
    if add(1, 0) != 1:
        raise AssertionError("one and none")
except TypeError:
    pass
number = 3
while number:
    assert add(number, 0) == number
    number -= 1
match add(2, 2):
    case 4:
        pass
    case other:
        assert False, other
assert add(-1, 1) == 0
"""
    # The try passes where TypeError is raised before; the last one holds for all that add nothing.
    evaluation = await evaluated(sandbox, code, tests=tests)
    assert evaluation.score == pytest.approx(score)


async def test_a_loop_says_for_which_values_it_fails(sandbox: Sandbox) -> None:
    tests = "for x, y in [(1, 1), (2, 4)]:\n    assert square(x) == y"
    [issue] = (await evaluated(sandbox, "def square(x): return x", tests=tests)).issues
    assert issue.message == "`assert square(x) == y`: got 2, expected 4"
    assert issue.instruction == "Make this hold: for x, y in [(1, 1), (2, 4)]: assert square(x) == y"


@pytest.mark.parametrize(
    ("tests", "places"),
    [
        ("assert f(1) == 1\nassert f(2) == 2\nassert set(f(3)) == set()", {0, 1, 2}),
        ("def near(a, b): assert abs(a - b) < 1\nnear(f(1), 1)\nnear(f(2), 2)", {1, 2}),
        ("def near(a, b): assert a == b\ndef check(c):\n    near(c(1), 1)\ncheck(f)", {2}),
        (
            "def run(x): assert f(x)\nfor x in range(3): run(x)\n[run(x) for x in (1, 2)]\nlist(map(run, [1]))",
            {1, 2, 3},
        ),
        ("def test_f(x=1): assert f(x)\ntest_f(2)", {0, 1}),
        ("def test_f(x): assert f(x)\ntest_f(2)", {1}),
        ("async def check(c): assert c(1)\nimport asyncio\nasyncio.run(check(f))", {2}),
        ("check = lambda c: near(c(1))\ndef near(x): assert x\ncheck(f)", {2}),
        ("x = f(1)\nif x: pass\nassert x", {2}),
    ],
)
def test_which_statements_are_tests(tests: str, places: set[int]) -> None:
    assert CodeTests(tests=tests).suite.places == places


async def test_the_entry_point_is_the_last_function_that_no_other_uses(sandbox: Sandbox) -> None:
    code = "def helper(x): return x\ndef f(x): return helper(x) + 1\ndef main(): print(f(1))\nmain()"
    assert (await evaluated(sandbox, code, tests="def check(candidate): assert candidate(1) == 2")).score == 1.0
    [issue] = (await evaluated(sandbox, "x = 1", tests="def check(candidate): assert candidate(1) == 2")).issues
    assert "NameError" in issue.message or "NoneType" in issue.message


@pytest.mark.parametrize(
    ("text", "rule", "message", "instruction"),
    [
        (" \n", "code", "there is no code", "Reply with the code in one ```python block."),
        ("```json\n{}\n```", "code", "there is no code", "Reply with the code in one ```python block."),
        ("x = 1\ndef f(:", "code", "line 2: invalid syntax", "Fix the syntax error in line 2: invalid syntax."),
        (
            "if x:\ny = 1",
            "code",
            "line 2: expected an indented block after 'if' statement on line 1",
            "Fix the syntax error in line 2: expected an indented block after 'if' statement on line 1.",
        ),
        (
            "x = 0\n1 / x",
            "code",
            "ZeroDivisionError: division by zero (line 2 of the code)",
            "Make the code run without ZeroDivisionError: division by zero.",
        ),
        (
            "import numpy",
            "code",
            "ModuleNotFoundError: No module named 'numpy' (line 1 of the code)",
            "Import nothing but Python's standard library.",
        ),
        (
            "exit()",
            "code",
            "NameError: name 'exit' is not defined (line 1 of the code)",
            "Make the code run without NameError: name 'exit' is not defined.",
        ),
        ("raise SystemExit", "code", "SystemExit (line 1 of the code)", "Do not end the program: call no exit."),
        ("x = 'a' * (1 << 30)", "code", "MemoryError (line 1 of the code)", "Use at most 64 MiB of memory."),
        (
            "while True: pass",
            "timeout_seconds",
            "0.5 seconds ran out after 0 of 2 tests",
            "Make the code finish within 0.5 seconds.",
        ),
        ("(" * 5000, "code", "line 1: too many nested parentheses", "Fix the syntax error in line 1: too many nested"),
        (
            "raise ValueError('bad \\udc80')",
            "code",
            "ValueError: bad \\udc80 (line 1 of the code)",
            "Make the code run without ValueError: bad \\udc80.",
        ),
        ("x = '\ud800'", "code", "UnicodeEncodeError: 'utf-8'", "Make the code run without UnicodeEncodeError"),
    ],
)
async def test_code_that_fails_as_a_whole(
    sandbox: Sandbox, text: str, rule: str, message: str, instruction: str
) -> None:
    evaluation = await evaluated(
        sandbox, text, tests="assert f()\nassert True", memory_mib=64, timeout_seconds=0.5 if "while" in text else 30.0
    )
    (issue,) = evaluation.issues
    assert issue.rule == rule
    assert issue.message.startswith(message)
    assert issue.instruction.startswith(instruction)
    assert (evaluation.passed, evaluation.score) == (False, 0.0)


async def test_the_score_is_the_share_of_the_tests_that_pass(sandbox: Sandbox) -> None:
    tests = """
import math
assert area(1) == math.pi

def helper(x):
    return area(x)

def test_zero():
    assert helper(0) == 0

assert area(-1) is None

def test_text():
    assert area("x") is None
"""
    code = "from math import pi\n\ndef area(r):\n    return pi * r * r"
    evaluation = await evaluated(sandbox, code, tests=tests, hard=False, weight=3.0)
    assert (evaluation.evaluator, evaluation.authority) == ("code_tests", "verifier")
    assert (evaluation.hard, evaluation.weight) == (False, 3.0)
    assert (evaluation.passed, evaluation.score) == (False, 0.5)
    assert [issue.message.partition(":")[0] for issue in evaluation.issues] == [
        "`assert area(-1) is None`",
        "test_text",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "def f(x): return x + 1",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
        "def f(x): return A(x).x + 1",
        "import functools\n@functools.cache\ndef f(x): return x + 1\nif __name__ == '__main__':\n    f(input())",
        "from concurrent.futures import ThreadPoolExecutor\ndef f(x):\n    with ThreadPoolExecutor(4) as pool:\n"
        "        return sum(pool.map(int, [x, 1]))",
        "import asyncio\nasync def g(x): return x + 1\ndef f(x): return asyncio.run(g(x))",
        "import sqlite3, decimal, json, re, datetime, zoneinfo, tempfile\ndef f(x):\n"
        "    with tempfile.TemporaryFile() as file:\n        file.write(b'x')\n"
        "    return sqlite3.connect(':memory:').execute('select ? + 1', (x,)).fetchone()[0]",
        "import subprocess, sys\ndef f(x):\n"
        "    done = subprocess.run([sys.executable, '-c', f'print({x} + 1)'], capture_output=True)\n"
        "    return int(done.stdout)",
        "from multiprocessing import Pool\ndef grow(x): return x + 1\ndef f(x):\n    with Pool(2) as pool:\n"
        "        return pool.map(grow, [x])[0]",
        "import multiprocessing\nguard = multiprocessing.Lock()\ncount = multiprocessing.Value('i', 0)\ndef f(x):\n"
        "    with guard, count.get_lock():\n        count.value += 1\n        return x + 1",
        "from multiprocessing import Process, Queue, Semaphore, Event\ndef work(given, found):\n"
        "    found.put(given.get() + 1)\n"
        "def f(x):\n    given, found = Queue(), Queue()\n    given.put(x)\n    Semaphore(2), Event()\n"
        "    worker = Process(target=work, args=(given, found))\n    worker.start()\n    y = found.get()\n"
        "    worker.join()\n    return y",
        "from concurrent.futures import ProcessPoolExecutor\ndef grow(x): return x + 1\ndef f(x):\n"
        "    with ProcessPoolExecutor(2) as pool:\n        return next(pool.map(grow, [x]))",
        "from multiprocessing import shared_memory\ndef f(x):\n"
        "    block = shared_memory.SharedMemory(create=True, size=8 << 20)\n    block.buf[:] = bytes(8 << 20)\n"
        "    numbers = shared_memory.ShareableList([x, 'a'], name='numbers')\n"
        "    y = shared_memory.ShareableList(name='numbers')[0] + 1\n"
        "    for shared in (block, numbers.shm):\n        shared.close()\n        shared.unlink()\n    return y",
        "from multiprocessing import Manager\ndef f(x):\n    with Manager() as manager:\n"
        "        return manager.list([x])[0] + 1",
        "print('a' * 1000000)\ndef f(x):\n    print(x)\n    return x + 1",
    ],
)
async def test_good_code_passes(sandbox: Sandbox, code: str) -> None:
    tests = "assert f(1) == 2\nassert [f(x) for x in range(3)] == [1, 2, 3]\ndef test_f():\n    assert f(-1) == 0"
    evaluation = await evaluated(sandbox, f"```python\n{code}\n```", tests=tests, timeout_seconds=30.0)
    assert evaluation.issues == ()
    assert (evaluation.passed, evaluation.score) == (True, 1.0)


async def test_the_tests_see_the_names_of_the_code_and_not_the_other_way_round(sandbox: Sandbox) -> None:
    code = "limit = 1\ndef f(): return limit\ndef g(): return helper()"
    tests = "limit = 2\ndef helper(): return 3\nassert f() == 1\nassert limit == 2\nassert g() == 3"
    evaluation = await evaluated(sandbox, code, tests=tests)
    assert evaluation.score == pytest.approx(2 / 3)
    assert "name 'helper' is not defined (line 3 of the code)" in evaluation.issues[0].message


async def test_what_is_said_is_bounded(sandbox: Sandbox) -> None:
    tests = "\n".join(f"assert f({number}) == {'1' * 400}" for number in range(40))
    evaluation = await evaluated(sandbox, "def f(x): return 'y' * 10_000_000", tests=tests)
    assert evaluation.score == 0.0
    assert len(evaluation.issues) == MAX_ISSUES
    for issue in evaluation.issues:
        assert len(issue.message) <= 600
        assert len(issue.instruction) <= 600


async def test_many_failures_hide_no_pass_and_take_no_time(sandbox: Sandbox) -> None:
    tests = "\n".join(["assert a == 1"] * 1400 + ["assert b"])
    code = "a, b = chr(0xe000) * 1000, True"
    begun = time.process_time()
    evaluation = await evaluated(sandbox, code, tests=tests, timeout_seconds=60.0)
    assert evaluation.score == pytest.approx(1 / 1401)
    assert time.process_time() - begun < 20


async def longest_turn(work: Awaitable[object]) -> float:
    """Seconds of processor time for which the event loop served nobody else. What other tests have left behind is kept
    from the garbage collector, as the service keeps what it has loaded."""
    gc.collect()
    gc.freeze()
    try:
        longest, running = 0.0, asyncio.ensure_future(work)
        while not running.done():
            begun = time.thread_time()
            await asyncio.sleep(0.005)
            longest = max(longest, time.thread_time() - begun)
        await running
        return longest
    finally:
        gc.unfreeze()


EMPTY_LINES = """
import os
for _ in range(400):
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\\n" * 60_000)
        except OSError:
            pass
"""


@pytest.mark.parametrize(
    ("code", "tests"),
    [("x = 1", "a = 1\n" * 4900 + "assert a == 2"), (EMPTY_LINES, "assert False")],
    ids=["many statements before it", "a report of empty lines"],
)
async def test_what_failed_is_found_out_beside_the_event_loop(sandbox: Sandbox, code: str, tests: str) -> None:
    work = evaluated(sandbox, code, tests=tests, timeout_seconds=30.0)
    assert await longest_turn(asyncio.wait_for(work, 20.0)) < 0.3


@pytest.mark.parametrize("tests", ["assert f()\nreturn", "def test_a():\n    nonlocal x", "assert f()\nawait x"])
async def test_tests_that_do_not_compile_are_no_fault_of_the_code(sandbox: Sandbox, tests: str) -> None:
    with pytest.raises(TestsFailed, match="the tests do not compile: SyntaxError"):
        await evaluated(sandbox, "def f(): return 1", tests=tests)


async def test_deep_tests_are_run_or_said_to_be_too_deep(sandbox: Sandbox) -> None:
    for source in ("assert " + "-" * 900 + "1", "assert " + "1+" * 900 + "1", "assert " + "not " * 900 + "1"):
        try:
            evaluation = await evaluated(sandbox, "x = 1", tests=source)
        except (RefusedField, TestsFailed):
            continue
        assert evaluation.score == 1.0


async def test_evaluations_run_side_by_side(sandbox: Sandbox) -> None:
    async def score(number: int) -> Evaluation:
        return await evaluated(sandbox, f"x = {number}", tests="assert x == 1")

    scores = [evaluation.score for evaluation in await asyncio.gather(*map(score, [1, 2, 1, 2]))]
    assert scores == [1.0, 0.0, 1.0, 0.0]
