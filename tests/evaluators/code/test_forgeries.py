"""Code that is wrong and sets out to pass all the same. Whatever it tries, no test passes that it does not meet."""

from dataclasses import dataclass

import pytest

from service.evaluators.code.sandbox import Sandbox
from tests.evaluators.code.test_sandbox import sandbox as sandbox  # a fixture
from tests.support.code_worker import evaluated

TESTS = """
import math
import random
import unittest

cases = [(2, 4), (3, 9)]

def near(left, right):
    return abs(left - right) < 1e-9

def check(candidate):
    for given, expected in cases:
        assert candidate(given) == expected

assert f(2) == 4
assert f(3) == 9, "three"
assert math.isclose(f(4), 16)
assert all([near(f(5), 25)])
check(f)
for given, expected in cases:
    assert f(given) == expected

unittest.TestCase().assertEqual(f(2), 4)  # set-up, as far as the suite can tell

def test_one():
    assert f(6) == 36

def test_two():
    unittest.TestCase().assertEqual(f(7), 49)

async def test_three():
    assert sum([f(8)]) == 64
"""
PLACES = 9


@dataclass(frozen=True)
class Forgery:
    """``tests``: of which none may pass; by default TESTS without the statement that is set-up."""

    name: str
    code: str
    tests: str = "\n".join(line for line in TESTS.split("\n") if "set-up" not in line)


WRONG = "\ndef f(x): return 0\n"
WRITE_EVERYWHERE = """
def write(line):
    for descriptor in range(3, 64):
        try: os.write(descriptor, line.encode())
        except OSError: pass
"""

FORGERIES = [
    Forgery("nothing", WRONG),
    # Builtins
    Forgery("exec does nothing", "import builtins\nbuiltins.exec = lambda *a: None" + WRONG),
    Forgery(
        "exec defines the tests",
        "import builtins\ndef fake(code, scope):\n    scope.setdefault('test_one', lambda: None)\nbuiltins.exec = fake"
        + WRONG,
    ),
    Forgery("vars, dict", "import builtins\nbuiltins.vars = lambda *a: {}\nbuiltins.dict = dict" + WRONG),
    Forgery("isinstance", "import builtins\nbuiltins.isinstance = lambda *a: False" + WRONG),
    Forgery("isinstance is always true", "import builtins\nbuiltins.isinstance = lambda *a: True" + WRONG),
    Forgery("BaseException", "import builtins\nbuiltins.BaseException = KeyError" + WRONG),
    Forgery(
        "AssertionError",
        "import builtins\nclass Never(Exception):\n    def __init__(self, *a): pass\nbuiltins.AssertionError = Never"
        + WRONG,
    ),
    Forgery(
        "every builtin that can be replaced",
        "import builtins\nfor name in dir(builtins):\n"
        "    if name.islower() and name not in ('setattr', '__import__'):\n"
        "        setattr(builtins, name, lambda *a, **k: True)" + WRONG,
    ),
    Forgery(
        "builtins, at each call",
        "def f(x):\n    import builtins\n    for name in ('exec', 'abs', 'all', 'sum', 'compile', 'getattr', 'len'):\n"
        "        setattr(builtins, name, lambda *a, **k: True)\n    return 0",
    ),
    Forgery(
        "the builtins that it was given",
        "given = __builtins__ if isinstance(__builtins__, dict) else vars(__builtins__)\n"
        "given.update(isinstance=lambda *a: False, exec=lambda *a: None, len=lambda *a: 0, abs=lambda x: 0)" + WRONG,
    ),
    Forgery("its own abs and all", "def abs(x): return 0\ndef all(x): return True\ndef sum(x): return 64" + WRONG),
    Forgery("__build_class__ and __import__", "import builtins\nbuiltins.__import__ = lambda *a: __builtins__" + WRONG),
    # The standard library
    Forgery("math.isclose", "import math\nmath.isclose = lambda *a, **k: True" + WRONG),
    Forgery(
        "math.isclose, at each call",
        "def f(x):\n    import math\n    math.isclose = lambda *a, **k: True\n    return 0",
    ),
    Forgery(
        "a false module",
        "import sys, types\nfake = types.ModuleType('math')\nfake.isclose = lambda *a: True\nsys.modules['math'] = fake"
        + WRONG,
    ),
    Forgery(
        "unittest",
        "import unittest, unittest.case\nfor name in dir(unittest.TestCase):\n    if name.startswith('assert'):\n"
        "        setattr(unittest.TestCase, name, lambda *a, **k: None)" + WRONG,
    ),
    Forgery(
        "unittest, deep inside",
        "import unittest.case\nunittest.case.TestCase._getAssertEqualityFunc = lambda *a: lambda *a, **k: None\n"
        "unittest.case.TestCase.failureException = StopIteration" + WRONG,
    ),
    Forgery("asyncio.run", "import asyncio\nasyncio.run = lambda routine: routine.close()" + WRONG),
    Forgery(
        "asyncio.Runner",
        "import asyncio, asyncio.runners\nasyncio.runners.Runner.run = lambda self, routine, **k: routine.close()"
        + WRONG,
    ),
    Forgery(
        "json, os.write, functools",
        'import json, os, functools, sys\njson.JSONEncoder.encode = lambda self, o: \'{"what": "test"}\'\n'
        "json.encoder.c_make_encoder = None\nos.write = lambda *a: 0\nfunctools.partial = lambda *a: lambda: None\n"
        "sys.audit = lambda *a: None" + WRONG,
    ),
    Forgery("compile, ast, traceback", "import ast, traceback, re\nast.parse = None\nre.compile = None" + WRONG),
    Forgery(
        "an import hook",
        "import sys\nclass Finder:\n    def find_spec(self, *a): sys.modules['math'] = None\n"
        "sys.meta_path.insert(0, Finder())\nfor name in ('math', 'unittest', 'asyncio'): sys.modules.pop(name, None)"
        + WRONG,
    ),
    # The runner
    Forgery(
        "frames: call what reports",
        "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n"
        "        for value in frame.f_locals.values():\n            if callable(value):\n"
        "                for place in range(40):\n                    try: value({'what': 'test', 'place': place})\n"
        "                    except BaseException: pass\n        frame = frame.f_back\n    return 0",
    ),
    Forgery(
        "frames, by a traceback",
        "def f(x):\n    try: 1 / 0\n    except Exception as error:\n"
        "        frame = error.__traceback__.tb_frame.f_back\n"
        "        return next(c for c in frame.f_code.co_consts[::-1] if isinstance(c, int))",
    ),
    Forgery("frames, by inspect", "import inspect\ndef f(x): return inspect.currentframe().f_back.f_code.co_consts[1]"),
    Forgery("frames, by logging", "import logging\ndef f(x): return logging.currentframe().f_back.f_code.co_consts[1]"),
    Forgery(
        "frames, by a generator",
        "def g():\n    yield me.gi_frame.f_back.f_back.f_code.co_consts[1]\nme = None\ndef f(x):\n    global me\n"
        "    me = g()\n    return next(me)",
    ),
    Forgery(
        "frames, by traceback",
        "import traceback\ndef f(x): return [*traceback.walk_stack(None)][0][0].f_code.co_consts[1]",
    ),
    Forgery(
        "frames of all threads",
        "import sys\ndef f(x): return [*sys._current_frames().values()][0].f_back.f_code.co_consts[1]",
    ),
    Forgery(
        "the collector's objects",
        "import gc\ndef f(x):\n    for value in gc.get_objects():\n"
        "        if callable(value) and getattr(value, '__name__', '') in ('tell', 'hook'):\n"
        "            for place in range(40): value('redraft.tell', ({'what': 'test', 'place': place},))\n    return 0",
    ),
    Forgery(
        "the audit event",
        "import sys\nfor place in range(40):\n    try: sys.audit('redraft.tell', {'what': 'test', 'place': place})\n"
        "    except RuntimeError: pass" + WRONG,
    ),
    Forgery(
        "an audit hook of its own",
        "import sys\ndef hook(event, details):\n    if event == 'redraft.tell': details[0].pop('error', None)\n"
        "sys.addaudithook(hook)" + WRONG,
    ),
    Forgery(
        "the runner's code with other globals",
        "import sys, types\nprogram = sys.modules['__main__'].__dict__\n"
        "program['json'] = program['os'] = types.SimpleNamespace(write=print, loads=print)" + WRONG,
    ),
    Forgery(
        "tracing",
        "import sys\ndef jump(frame, event, value):\n    frame.f_trace_lines = True\n    return jump\n"
        "def f(x):\n    sys.settrace(jump)\n    return 0",
    ),
    Forgery("profiling", "import sys\nsys.setprofile(lambda frame, *a: frame.f_locals.clear())" + WRONG),
    Forgery(
        "report on every descriptor, then end",
        "import os" + WRITE_EVERYWHERE + "for place in range(40):\n"
        '    write(\'%032x {"what": "test", "place": %d}\\n\' % (0, place))\nos._exit(0)',
    ),
    Forgery(
        "report at the end",
        "import atexit, os, threading"
        + WRITE_EVERYWHERE
        + 'def last():\n    for place in range(40): write(\'{"what": "test", "place": %d}\\n\' % place)\n'
        "    os._exit(0)\n"
        "atexit.register(last)\nthreading.Timer(0.2, last).start()" + WRONG,
    ),
    Forgery("end the run in a test", "import os\ndef f(x): os._exit(0)"),
    Forgery("leave by SystemExit", "def f(x): raise SystemExit(0)"),
    Forgery("leave by an interrupt", "import _thread\ndef f(x): _thread.interrupt_main()"),
    Forgery("another exception", "class Quiet(BaseException):\n    __traceback__ = None\ndef f(x): raise Quiet"),
    Forgery(
        "guess in children, and die unseen",
        "import os\nclass Guess(int):\n    def __repr__(self): os._exit(1)\n"
        "def f(x):\n    for guess in range(70):\n        child = os.fork()\n"
        "        if child == 0: return Guess(guess)\n        os.waitpid(child, 0)\n    return 0",
    ),
    # The tests
    Forgery(
        "the tests' globals, by a function that they hand over",
        "def f(x, key=None):\n    if key: key.__globals__.update(check=lambda c: None, near=lambda *a: True)\n"
        "    return 0",
        tests="def near(a, b): return a == b\ndef check(c): assert c(1) == 1\n"
        "assert near(f(2, near), 4)\nassert near(f(3), 9)\ncheck(f)",
    ),
    Forgery(
        "the tests' builtins, by a function that they hand over",
        "def f(x, key=None):\n    if key: key.__builtins__.update(abs=lambda x: 0, all=lambda x: True)\n    return 0",
        tests="def key(): pass\nassert f(1, key) == 1\nassert abs(f(2) - 4) < 1e-9\nassert all([f(3) == 9])",
    ),
    Forgery(
        "the code of a function that they hand over",
        "def f(x, key=None):\n    if key: key.__code__ = (lambda *a: True).__code__\n    return 0",
        tests="def near(a, b): return a == b\nassert near(f(2, near), 4)\nassert near(f(3), 9)",
    ),
    Forgery(
        "a test function replaced",
        "def f(x, key=None):\n    if key: key.__globals__['test_f'] = lambda: None\n    return 0",
        tests="def key(): pass\ndef test_g(): assert f(1, key) == 1\ndef test_f(): assert f(2) == 4",
    ),
]


AS_LIBRARY = """
import os
FILE = os.path.dirname(os.__file__) + "/traceback.py"
SOURCE = "def look(e): return e.__traceback__.tb_frame"
"""
WALK_UP = """
def spoil(frame):
    while frame:
        if "described" in frame.f_globals:
            frame.f_globals["described"] = lambda error: {}
        frame = frame.f_back

def f(x):
    try: 1 / 0
    except Exception as error: caught = error
    try: spoil(look(caught))
    except Exception: pass
    return 0
"""
FORGERIES += [
    Forgery(
        "classes of the runner",
        """
for kind in object.__subclasses__():
    for value in list(vars(kind).values()):
        names = getattr(value, "__globals__", {})
        if "described" in names: names["described"] = lambda error: {}
    if kind.__module__ not in ("builtins", __name__) and kind.__init__ is not object.__init__:
        try: kind.code = property(lambda self: compile("", "", "exec"))
        except TypeError: pass
"""
        + WRONG,
    ),
    Forgery(
        "code under the name of a library's file",
        AS_LIBRARY + "names = {}\nexec(compile(SOURCE, FILE, 'exec'), names)\nlook = names['look']" + WALK_UP,
    ),
    Forgery(
        "code renamed to a library's file",
        AS_LIBRARY
        + """
from types import FunctionType
look = lambda e: e.__traceback__.tb_frame
look = FunctionType(look.__code__.replace(co_filename=FILE), globals())
"""
        + WALK_UP,
    ),
    Forgery(
        "code that importlib compiles",
        AS_LIBRARY
        + """
from importlib.machinery import SourceFileLoader
names = {}
exec(SourceFileLoader("x", FILE).source_to_code(SOURCE.encode(), FILE), names)
look = names["look"]
"""
        + WALK_UP,
    ),
    Forgery(
        "code behind a path through the library",
        """
import os
FILE = os.path.dirname(os.__file__) + "/" + "../" * 9 + "tmp/x.py"
with open("/tmp/x.py", "w") as file: file.write("def look(e): return e.__traceback__.tb_frame")
names = {}
exec(compile(open("/tmp/x.py").read(), FILE, "exec"), names)
look = names["look"]
"""
        + WALK_UP,
    ),
    Forgery(
        "frames of a debugger",
        "import bdb\nlook = lambda e: bdb.Bdb().get_stack(None, e.__traceback__)[0][0][0]" + WALK_UP,
    ),
    Forgery(
        "frames of a report",
        "import inspect\nlook = lambda e: inspect.getinnerframes(e.__traceback__)[0].frame" + WALK_UP,
    ),
    Forgery("frames of a task", "import asyncio\nlook = lambda e: asyncio.current_task().get_stack()[0]" + WALK_UP),
]


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
async def test_no_test_passes_that_is_not_met(sandbox: Sandbox, forgery: Forgery) -> None:
    evaluation = await evaluated(sandbox, forgery.code, tests=forgery.tests, timeout_seconds=10.0)
    assert (evaluation.passed, evaluation.score) == (False, 0.0), evaluation.issues
    assert evaluation.issues


async def test_code_that_is_right_passes_them_all(sandbox: Sandbox) -> None:
    evaluation = await evaluated(sandbox, "def f(x): return x * x", tests=FORGERIES[0].tests)
    assert (evaluation.score, evaluation.issues) == (1.0, ())


@pytest.mark.parametrize(
    "code",
    [
        "import logging\nlogging.basicConfig()\ndef f(x):\n    logging.info('%s', x)\n    logging.warning('x')\n"
        "    return x * x",
        "import traceback\ndef f(x):\n    try: 1 / 0\n    except ZeroDivisionError: traceback.print_exc()\n"
        "    traceback.print_stack()\n    return x * x",
        "from collections import namedtuple\nfrom typing import NamedTuple, TypeVar\nfrom enum import Enum\n"
        "T = TypeVar('T')\nP = namedtuple('P', 'x')\nE = Enum('E', 'a b')\nclass N(NamedTuple):\n    x: int\n"
        "def f(x): return P(x).x * N(x).x",
        "import warnings\ndef f(x):\n    warnings.warn('x')\n    return x * x",
        "import types\n@types.coroutine\ndef g(x):\n    yield\n    return x\ndef f(x): return x * x",
        "import signal\ndef f(x):\n    signal.signal(signal.SIGALRM, lambda *_: None)\n    signal.alarm(0)\n"
        "    return x * x",
        "import inspect, gc\ndef f(x):\n    gc.collect()\n    return x * x if inspect.signature(f) else 0",
        "import asyncio\nasync def g(x):\n    await asyncio.sleep(0)\n    return x * x\n"
        "numbers = [asyncio.run(g(x)) for x in range(10)]\ndef f(x): return numbers[x]",
        "import sys, io, contextlib\nsys.setrecursionlimit(5000)\ndef f(x):\n"
        "    with contextlib.redirect_stdout(io.StringIO()): print(x)\n    return x * x",
        "import builtins\nbuiltins.print = lambda *a: None\ndef f(x):\n    print(x)\n    return x * x",
    ],
    ids=range(10),
)
async def test_what_right_code_does_with_the_interpreter_is_no_forgery(sandbox: Sandbox, code: str) -> None:
    evaluation = await evaluated(sandbox, code, tests=FORGERIES[0].tests)
    assert (evaluation.score, evaluation.issues) == (1.0, ())


async def test_what_the_tests_replace_themselves_stays_replaced(sandbox: Sandbox) -> None:
    tests = """
import builtins, time
from unittest import mock
lines = iter(["1", "2", "3"])
builtins.input = lambda *_: next(lines)
time.sleep = lambda _: None
count = 0
def counted():
    global count
    count += 1
    return count
assert f() == 1
assert f() == 2
assert counted() == 1
assert counted() == 2
with mock.patch("builtins.input", lambda: "9"):
    assert f() == 9
assert f() == 3
"""
    code = "import time\ndef f():\n    time.sleep(3600)\n    return int(input())"
    evaluation = await evaluated(sandbox, code, tests=tests)
    assert (evaluation.score, evaluation.issues) == (1.0, ())
