"""The sandbox for real: hostile programs as candidates, under root where the tests are root, and as a plain user."""

import asyncio
import json
import os
import platform
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from service.evaluators.code.sandbox import Outcome, Sandbox, SandboxFailed, SandboxLimits, nobody_prefix

ROOT = Path(__file__).parents[3]
SECRET = "hunter2-0f9a"


def unavailable(reason: str) -> None:
    """CI must have what these tests need; a developer's machine need not."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


@dataclass(frozen=True)
class Worker:
    """A service that evaluates ``code_tests``, under some user."""

    user: str
    process: subprocess.Popen[str]
    pid: int

    def ask(self, **question: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout
        return dict(json.loads(self.process.stdout.readline()))

    def left(self) -> Sequence[psutil.Process]:
        """What its sandboxes have left running; what lost its parent included."""
        children = psutil.Process(self.pid).children(recursive=True)
        return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def start(user: str) -> Worker:
    if shutil.which("bwrap") is None:
        unavailable("bubblewrap is not installed")
    if user == "plain" and os.geteuid() == 0:
        if any(not path.stat().st_mode & stat.S_IXOTH for path in (ROOT, *ROOT.parents)):
            unavailable("a plain user cannot read the repository")
        prefix = nobody_prefix(Path(sys.base_prefix).resolve())
    else:
        prefix = []
    process = subprocess.Popen(
        [*prefix, sys.executable, "-B", "-m", "tests.support.code_worker"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "REDRAFT_SECRET": SECRET},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    hello = json.loads(process.stdout.readline())
    if not hello["found"]:
        process.kill()
        process.wait()
        unavailable(f"bubblewrap does not work here for uid {hello['uid']}; its reason is in the log")
    assert (hello["uid"] == 0) is (user == "root")
    return Worker(user, process, hello["pid"])


@pytest.fixture(scope="module")
def workers() -> Iterator[Sequence[Worker]]:
    """One under each user that can be had: side by side, since most of the time they wait."""
    users = ["root", "plain"] if os.geteuid() == 0 else ["plain"]
    with ExitStack() as stack:
        started = [start(user) for user in users]
        for worker in started:
            stack.enter_context(worker.process)
            stack.callback(worker.process.kill)
        yield started


@pytest.fixture(scope="module")
def host() -> Iterator[Mapping[str, str]]:
    """What a program could reach of this machine, if it were let."""
    abstract = f"redraft-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(f"\0{abstract}")
        unix.listen()
        yield {
            "@PORT": str(tcp.getsockname()[1]),
            "@ABSTRACT": abstract,
            "@ROOT": str(ROOT),
            "@PACKAGES": str(Path(pytest.__file__).parent.parent),
            "@PID": str(os.getpid()),
            "@SECRET": SECRET,
            "@SOCKET": {"x86_64": "41"}.get(platform.machine(), "198"),
        }


@dataclass(frozen=True)
class Hostile:
    """A candidate that tries something. ``issue``: what the only issue says where a test fails."""

    name: str
    code: str
    tests: str = "assert True"
    score: float = 1.0
    issue: str = ""
    stated: Mapping[str, Any] = field(default_factory=dict)


PRELUDE = """
import ctypes, errno, os, signal, socket, subprocess, sys, threading, time

libc = ctypes.CDLL(None, use_errno=True)

def outcome(action, *arguments):
    try:
        return action(*arguments)
    except BaseException as error:
        return errno.errorcode[error.errno] if getattr(error, "errno", 0) in errno.errorcode else type(error).__name__

def system(name, *arguments):
    done = getattr(libc, name)(*arguments)
    return errno.errorcode[ctypes.get_errno()] if done == -1 else done

def read(path):
    with open(path, "rb") as file:
        return file.read()

def write(path, content=b"x"):
    with open(path, "wb") as file:
        file.write(content)
    return "written"

def refused(action, most):
    for count in range(most):
        try:
            action()
        except (OSError, RuntimeError):
            return count
"""
TAKE_OVER = """
import platform

# prctl(PR_SET_PDEATHSIG, 0); while (1) pause();
OUTLIVE = bytes.fromhex("b89d000000 bf01000000 31f6 0f05 b822000000 0f05 ebf7")

def outlive_bubblewrap():
    where = int(read("/proc/1/syscall").split()[-1], 16)
    os.pwrite(os.open("/proc/1/mem", os.O_RDWR), OUTLIVE, where)
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)  # and so wakes the first process, whose child it has become
        os._exit(0)
    os.wait()

if platform.machine() == "x86_64":
    outcome(outlive_bubblewrap)
time.sleep(60)
"""
OTHER_ARCHITECTURE = """
import mmap, platform

# mov eax, 20 (getpid, as i386 numbers it); int 0x80; ret
GETPID = bytes.fromhex("b814000000 cd80 c3")

def getpid_of_i386():
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(GETPID)
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()

found = getpid_of_i386() if platform.machine() == "x86_64" else -errno.ENOSYS
"""
SHORT = {"timeout_seconds": 0.6}
RAN_OUT = "0.6 seconds ran out"

HOSTILE = [
    # Processes and threads. The counts are bounded here too, lest a limit that does not bind cost the machine.
    Hostile(
        "fork bomb",
        "def fork():\n    if os.fork() == 0:\n        time.sleep(60)\n        os._exit(0)\ncount = refused(fork, 100)",
        "assert 1 <= count <= 16",
    ),
    Hostile(
        "fork bomb that doubles",
        "for _ in range(8):\n    outcome(os.fork)\ntime.sleep(60)",
        score=0.0,
        issue=RAN_OUT,
        stated=SHORT,
    ),
    Hostile(
        "thread bomb",
        "count = refused(lambda: threading.Thread(target=time.sleep, args=(60,)).start(), 100)",
        "assert 1 <= count <= 16",
    ),
    Hostile(
        "daemon by double fork",
        "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(60)\n"
        "    os._exit(0)\nos.wait()",
    ),
    Hostile(
        "daemon that lets go of everything",
        "if os.fork() == 0:\n    os.setsid()\n    os.closerange(0, 64)\n    for number in range(1, 64):\n"
        "        outcome(signal.signal, number, signal.SIG_IGN)\n    time.sleep(60)",
    ),
    Hostile("setsid", "sid = outcome(os.setsid)\ntime.sleep(60)", score=0.0, issue=RAN_OUT, stated=SHORT),
    Hostile("kill everyone", "outcome(os.kill, -1, signal.SIGKILL)"),
    Hostile("kill the parent", "outcome(os.kill, os.getppid(), signal.SIGKILL)\noutcome(os.kill, 1, signal.SIGTERM)"),
    Hostile("signal a process of the host", "", "assert outcome(os.kill, @PID, 0) == 'ESRCH'"),
    Hostile("kill itself", "os.kill(os.getpid(), signal.SIGKILL)", score=0.0, issue="SIGKILL ended the run"),
    Hostile("crash", "ctypes.string_at(0)", score=0.0, issue="SIGSEGV ended the run"),
    # Time
    Hostile("spin", "while True: pass", score=0.0, issue=RAN_OUT, stated=SHORT),
    Hostile(
        "ignore all signals, sleep",
        "for number in range(1, 64):\n    outcome(signal.signal, number, signal.SIG_IGN)\nwhile True: time.sleep(60)",
        score=0.0,
        issue=RAN_OUT,
        stated=SHORT,
    ),
    Hostile("stop itself", "os.kill(os.getpid(), signal.SIGSTOP)", score=0.0, issue=RAN_OUT, stated=SHORT),
    Hostile(
        "real-time priority",
        "",
        "assert outcome(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1)) == 'EPERM'\n"
        "assert outcome(os.nice, -5) == 'EPERM'",
    ),
    # Memory, disk, descriptors
    Hostile("much memory at once", "x = bytearray(1 << 30)", score=0.0, issue="MemoryError", stated={"memory_mib": 64}),
    Hostile(
        "much memory bit by bit",
        "x = []\nwhile True: x.append([0] * 1000)",
        score=0.0,
        issue="MemoryError",
        stated={"memory_mib": 32},
    ),
    Hostile("much memory mapped", "import mmap", "assert outcome(mmap.mmap, -1, 1 << 32) == 'ENOMEM'"),
    Hostile(
        "raised limits",
        "import resource",
        "assert outcome(resource.setrlimit, resource.RLIMIT_AS, (-1, -1)) == 'ValueError'\n"
        "assert outcome(resource.setrlimit, resource.RLIMIT_NPROC, (-1, -1)) == 'ValueError'",
    ),
    Hostile(
        "full disk",
        "count = refused(lambda: write(f'/tmp/{time.monotonic_ns()}', bytes(1 << 20)), 100)",
        "assert 1 <= count <= 16",
    ),
    Hostile(
        "huge file", "", "assert outcome(os.truncate, os.open('/tmp/x', os.O_CREAT | os.O_RDWR), 1 << 40) == 'EFBIG'"
    ),
    Hostile(
        "full shared memory",
        "count = refused(lambda: write(f'/dev/shm/{time.monotonic_ns()}', bytes(1 << 20)), 200)",
        "assert 31 <= count <= 32",
        stated={"memory_mib": 64},
    ),
    Hostile(
        "huge shared memory",
        "from multiprocessing.shared_memory import SharedMemory\n"
        "def overfill():\n"
        "    blocks = [SharedMemory(create=True, size=20 << 20) for _ in range(2)]\n"  # promised; taken when written
        "    for block in blocks:\n"
        "        for place in range(0, 20 << 20, 4096): block.buf[place] = 1\n"
        "    return blocks\n",
        "assert outcome(SharedMemory, None, True, 1 << 40) == 'EFBIG'\nassert overfill()",
        score=0.5,
        issue="SIGBUS ended the run",
        stated={"memory_mib": 64},
    ),
    Hostile(
        "shared memory that is not given back",
        "from multiprocessing.shared_memory import SharedMemory\nfrom multiprocessing import resource_tracker\n"
        "resource_tracker.register = lambda *_: None\n"
        "block = SharedMemory('left', create=True, size=1 << 20)\nblock.buf[:] = bytes(1 << 20)",
    ),
    Hostile("shared memory of the run before", "", "assert os.listdir('/dev/shm') == []"),
    Hostile(
        "memory of nobody",
        "",
        "assert system('shmget', 0, 240 << 20, 0o600) == 'ENOSYS'\n"
        "assert system('semget', 0, 32000, 0o600) == system('msgget', 0, 0o600) == 'ENOSYS'\n"
        "assert system('memfd_create', b'x', 0) == 'ENOSYS'",
    ),
    Hostile("first to be killed", "", "assert read('/proc/self/oom_score_adj') == b'1000\\n'"),
    Hostile("thousands of descriptors", "count = refused(lambda: os.dup(0), 5000)", "assert 1 <= count <= 64"),
    Hostile(
        "deep recursion",
        "def f(): return f()",
        "assert outcome(f) == 'RecursionError'\nassert f()",
        score=0.5,
        issue="RecursionError",
    ),
    Hostile(
        "deepest recursion",
        "sys.setrecursionlimit(10**9)\nclass A:\n    def __repr__(self): return repr(self)\nrepr(A())",
        score=0.0,
        issue="SIGSEGV ended the run|MemoryError",
    ),
    # Files
    Hostile("read accounts", "", "assert outcome(read, '/etc/passwd') == outcome(read, '/etc/shadow') == 'ENOENT'"),
    Hostile("read the repository", "", "assert outcome(os.listdir, '@ROOT') == 'ENOENT'"),
    Hostile(
        "look around",
        "",
        "assert set(os.listdir('/')) <= {'dev', 'etc', 'lib', 'lib64', 'opt', 'proc', 'root', 'home', 'tmp', 'usr'}\n"
        "assert set(os.listdir('/dev')) <= {'null', 'zero', 'random', 'shm', 'urandom'}\nassert not os.listdir('/tmp')",
    ),
    Hostile(
        "write to the system",
        "",
        "for path in ('/x', '/usr/x', '/usr/lib/x', '/dev/x', os.__file__, sys.executable):\n"
        "    assert outcome(write, path) in ('EROFS', 'EACCES', 'ETXTBSY'), path\nassert True",
    ),
    Hostile(
        "symbolic links out",
        "for name, target in (('a', '/etc/passwd'), ('b', '/proc/1/root/etc/passwd'), ('c', '@ROOT')):\n"
        "    os.symlink(target, f'/tmp/{name}')",
        "assert {outcome(read, '/tmp/a'), outcome(read, '/tmp/b')} <= {'ENOENT', 'EACCES'}\n"
        "assert outcome(os.listdir, '/tmp/c') == 'ENOENT'",
    ),
    Hostile(
        "set-user-ID",
        "write('/tmp/x', read(sys.executable))\nos.chmod('/tmp/x', 0o6755)",
        "assert outcome(os.chown, '/tmp/x', 0, 0) in ('EPERM', 'EINVAL')\n"
        "assert outcome(os.setuid, 0) in ('EPERM', 'EINVAL')\n"
        "assert os.getresuid() == (65534, 65534, 65534) and os.getresgid() == (65534, 65534, 65534)",
    ),
    Hostile("device node", "", "assert outcome(os.mknod, '/tmp/x', 0o600 | 0o020000, os.makedev(1, 1)) == 'EPERM'"),
    # The kernel
    Hostile(
        "mount",
        "",
        "assert system('mount', b'none', b'/tmp', b'tmpfs', 0, None) == 'EPERM'\n"
        "assert system('umount2', b'/usr/lib', 2) == 'EPERM'\nassert outcome(os.chroot, '/tmp') == 'EPERM'",
    ),
    Hostile(
        "further namespaces",
        "flags = [1 << 28, 1 << 28 | 1 << 17, 1 << 17, 1 << 29, 1 << 30]",
        "assert {system('unshare', flag) for flag in flags} <= {'EPERM', 'ENOSPC', 'EINVAL'}",
    ),
    Hostile(
        "no privileges",
        "status = read('/proc/self/status')",
        "assert b'NoNewPrivs:\\t1' in status\n"
        "assert all(int(line.split()[1], 16) == 0 for line in status.splitlines() if line.startswith(b'Cap'))",
    ),
    Hostile(
        "parts of the kernel",
        "TRACEME, IO_URING_SETUP = 0, 425",
        "assert system('ptrace', TRACEME, 0, 0, 0) == system('syscall', IO_URING_SETUP, 1, 0) == 'ENOSYS'",
    ),
    Hostile("calls of another architecture", OTHER_ARCHITECTURE, "assert found == -errno.ENOSYS"),
    Hostile("take over the first process", TAKE_OVER, score=0.0, issue=RAN_OUT, stated=SHORT),
    Hostile(
        "settings of the kernel",
        "",
        "assert outcome(write, '/proc/sys/kernel/core_pattern') in ('EACCES', 'EPERM', 'EROFS')\n"
        "assert outcome(write, '/proc/sysrq-trigger') in ('EACCES', 'EPERM', 'EROFS', 'ENOENT')\n"
        "assert outcome(socket.sethostname, 'x') == 'EPERM'\nassert outcome(os.listdir, '/sys') == 'ENOENT'",
    ),
    # What the host is
    Hostile(
        "environment",
        "seen = str(dict(os.environ)) + str([outcome(read, f'/proc/{pid}/environ') for pid in (1, 2)])",
        "assert '@SECRET' not in seen\nassert 'REDRAFT' not in seen",
    ),
    Hostile(
        "processes and names",
        "pids = [name for name in os.listdir('/proc') if name.isdigit()]",
        "assert len(pids) == 2\nassert socket.gethostname() == 'sandbox'",
    ),
    Hostile(
        "packages of the host",
        "sys.path += ['@PACKAGES', *(f'{path}/{name}-packages' for path in sys.path for name in ('site', 'dist'))]\n"
        "def imported(name): __import__(name)",
        "for name in ('numpy', 'pydantic', 'pytest', 'pip', 'service'):\n"
        "    assert outcome(imported, name) == 'ModuleNotFoundError', name\nassert True",
    ),
    # Network
    Hostile(
        "loopback of the host",
        "",
        "assert outcome(socket.create_connection, ('127.0.0.1', @PORT), 1) == 'ECONNREFUSED'",
    ),
    Hostile("outside", "", "assert outcome(socket.create_connection, ('1.1.1.1', 53), 1) == 'ENETUNREACH'"),
    Hostile(
        "names of the network",
        "",
        "assert outcome(socket.getaddrinfo, 'example.com', 80) in ('gaierror', 'EAGAIN', 'ENOENT')",
    ),
    Hostile(
        "abstract socket", "", "assert outcome(socket.socket(socket.AF_UNIX).connect, '\\0@ABSTRACT') == 'ECONNREFUSED'"
    ),
    Hostile(
        "sockets of other families",
        "VSOCK, PACKET, ALG, BLUETOOTH, TIPC, CAN, XDP, RDS = families = 40, 17, 38, 31, 30, 29, 44, 21\n"
        "found = {family: system('socket', family, kind, 0) for family in families for kind in (1, 2, 3, 5)}\n"
        "pair = (ctypes.c_int * 2)()",
        "assert set(found.values()) == {'EAFNOSUPPORT'}, found\n"
        "assert system('syscall', @SOCKET, VSOCK, 1, 0) == 'EAFNOSUPPORT'\n"
        "assert system('socketpair', TIPC, 1, 0, pair) == 'EAFNOSUPPORT'",
    ),
    Hostile(
        "sockets that programs use",
        "",
        "assert [read.recv(1) for read, write in [socket.socketpair()] if write.send(b'x')] == [b'x']\n"
        "server = socket.create_server(('127.0.0.1', 0))\n"
        "assert socket.create_connection(server.getsockname(), 5)\n"
        "assert socket.create_server(('::1', 0), family=socket.AF_INET6)\n"
        "assert socket.if_nameindex() == [(1, 'lo')]",
    ),
    # Input, output, report
    Hostile("standard input", "", "assert sys.stdin.read() == ''\nassert outcome(input) == 'EOFError'"),
    Hostile("flood of output", "for _ in range(500): os.write(1, bytes(1 << 16))"),
    Hostile("flood of errors", "for _ in range(500): os.write(2, bytes(1 << 16))"),
    Hostile("endless output", "while True: os.write(1, bytes(1 << 16))", score=0.0, issue=RAN_OUT, stated=SHORT),
    Hostile("binary output", "for stream in (1, 2): os.write(stream, bytes(range(256)) * 100)"),
    Hostile("noise on the report", "for stream in range(3, 64): outcome(os.write, stream, b'\\0\\xff{}[]\\n' * 1000)"),
    Hostile(
        "flood of the report",
        "for _ in range(400):\n    for stream in range(3, 64): outcome(os.write, stream, b'x' * 60000)",
        score=0.0,
        issue="the code ended the run",
    ),
    Hostile(
        "false report",
        'for stream in range(1, 64): outcome(os.write, stream, b\'0123 {"what": "test", "place": 0}\\n\')\nos._exit(0)',
        score=0.0,
        issue="the code ended the run after 0 of 1 tests",
    ),
    Hostile("no report", "os.closerange(3, 64)", score=0.0, issue="the code ended the run"),
    Hostile("os._exit", "os._exit(0)", score=0.0, issue="the code ended the run after 0 of 1 tests"),
    Hostile("sys.exit", "sys.exit(0)", score=0.0, issue="SystemExit: 0"),
    Hostile(
        "os._exit in a test",
        "def f(x): return x or os._exit(0)",
        "assert f(1)\nassert f(0)\nassert f(1)",
        score=1 / 3,
        issue="the code ended the run after 1 of 3 tests",
    ),
    Hostile(
        "sys.exit in a test",
        "def f(x): return x or sys.exit(0)",
        "assert f(1)\nassert f(0)\nassert f(1)",
        score=2 / 3,
        issue="SystemExit: 0",
    ),
    Hostile(
        "other builtins",
        "import builtins\nbuiltins.all = lambda _: True\nbuiltins.AssertionError = builtins.int = str\n"
        "def f(): return 2",
        "assert all([f() == 1])",
        score=0.0,
        issue="does not hold",
    ),
    Hostile("huge error", "raise ValueError('x' * 50_000_000)", score=0.0, issue="ValueError: xxx"),
    Hostile(
        "values that will not be shown",
        "class A:\n    def __repr__(self): os._exit(0) if self is b else sys.exit(0)\na = A()\nb = A()",
        "assert a == 1\nassert True\nassert b == 1",
        score=1 / 3,
    ),
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_a_hostile_program_is_contained(workers: Sequence[Worker], host: Mapping[str, str], hostile: Hostile) -> None:
    def filled(source: str) -> str:
        for name, value in host.items():
            source = source.replace(name, value)
        return source

    stated = {"timeout_seconds": 30.0, **hostile.stated}
    for worker in workers:
        worker.ask(text=filled(PRELUDE + hostile.code), tests=filled(hostile.tests), **stated)
    for worker, evaluation in [(worker, worker.answer()) for worker in workers]:
        messages = [issue["message"] for issue in evaluation["issues"]]
        assert evaluation["score"] == pytest.approx(hostile.score), (worker.user, messages)
        assert evaluation["passed"] is (hostile.score == 1.0)
        assert bool(messages) is (hostile.score < 1.0)
        assert all(len(message) <= 600 for message in messages)
        if hostile.issue:
            assert len(messages) == 1
            assert re.search(hostile.issue, messages[0])
    for worker in workers:
        nothing_left(worker)


def nothing_left(worker: Worker) -> None:
    deadline = time.monotonic() + 2.0
    while left := worker.left():
        assert time.monotonic() < deadline, (worker.user, left)
        time.sleep(0.01)


def launched(processes: Iterable[psutil.Process]) -> bool:
    """Whether bubblewrap has got as far as the interpreter."""
    names = {process.pid: process.name() for process in processes if process.is_running()}
    with suppress(psutil.NoSuchProcess):
        return any(
            name[:6] == "python" and names.get(psutil.Process(pid).ppid()) == "bwrap" for pid, name in names.items()
        )
    return False


def test_it_dies_with_the_service() -> None:
    for user in ["root", "plain"] if os.geteuid() == 0 else ["plain"]:
        worker = start(user)
        with worker.process as process:
            worker.ask(text="import time\ntime.sleep(60)", tests="assert True", timeout_seconds=60.0)
            while not launched(worker.left()):
                time.sleep(0.01)
            inside = worker.left()
            os.kill(worker.pid, signal.SIGKILL)
            _, alive = psutil.wait_procs(inside, timeout=5.0)
            process.kill()
        assert not alive


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    found = asyncio.run(Sandbox.find(at_once=2))
    if found is None:
        unavailable("bubblewrap does not work here; its reason is in the log")
    assert found
    return found


async def test_an_outcome_tells_all(sandbox: Sandbox) -> None:
    program = """
import os, sys
os.write(report, payload["word"].encode())
print("out", flush=True)
print("err", file=sys.stderr, flush=True)
sys.exit(3)
"""
    outcome = await sandbox.run(program, {"word": "grüß"}, SandboxLimits(), sandbox)
    assert (outcome.status, outcome.timed_out) == (3, False)
    assert (outcome.output, outcome.report) == (b"out\nerr\n", "grüß".encode())


async def test_output_and_report_are_cut_and_do_not_block(sandbox: Sandbox) -> None:
    program = "import os\nfor stream in (1, report): [os.write(stream, b'x' * 65536) for _ in range(100)]"
    outcome = await sandbox.run(program, None, SandboxLimits(output_bytes=1000, report_bytes=2000), sandbox)
    assert outcome.status == 0
    assert (outcome.output, outcome.report) == (b"x" * 1000, b"x" * 1999)  # the mark is one


async def test_a_flood_of_small_writes_does_not_keep_the_service_busy(sandbox: Sandbox) -> None:
    for stream in ("1", "report"):
        begun = time.process_time()
        program = f"import os\nwhile True: os.write({stream}, b'x')"
        outcome = await sandbox.run(program, None, SandboxLimits(seconds=2.0, report_bytes=1 << 24), sandbox)
        assert outcome.timed_out
        assert time.process_time() - begun < 1.0  # of two seconds


async def test_what_runs_too_long_has_no_status_but_all_it_wrote(sandbox: Sandbox) -> None:
    program = "import os, time\nos.write(1, b'a')\nos.write(report, b'b')\ntime.sleep(60)"
    outcome = await sandbox.run(program, None, SandboxLimits(seconds=0.5), sandbox)
    assert outcome.status is None
    assert outcome.timed_out
    assert (outcome.output, outcome.report) == (b"a", b"b")


async def test_processor_time_is_bounded_too(sandbox: Sandbox) -> None:
    program = "import resource\nprint(resource.getrlimit(resource.RLIMIT_CPU))"
    assert (await sandbox.run(program, None, SandboxLimits(seconds=1.5), sandbox)).output == b"(3, 4)\n"
    spent = await sandbox.run(
        "import os\nos.kill(os.getpid(), 24)", None, SandboxLimits(), sandbox
    )  # what the kernel does then
    assert spent.timed_out


async def test_a_cancelled_run_leaves_nothing(sandbox: Sandbox) -> None:
    def children() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True))

    others = children()
    run = asyncio.create_task(sandbox.run("import time\ntime.sleep(60)", None, SandboxLimits(seconds=60.0), sandbox))
    while not launched(children() - others):
        await asyncio.sleep(0.01)
    inside = children() - others
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    _, alive = psutil.wait_procs(list(inside), timeout=2.0)
    assert not alive


async def test_a_run_that_is_cancelled_at_its_start_leaves_nothing(sandbox: Sandbox) -> None:
    others = set(psutil.Process().children(recursive=True))
    for steps in range(40):
        run = asyncio.create_task(sandbox.run("", None, SandboxLimits(), sandbox))
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        run.cancel()
        with suppress(asyncio.CancelledError):
            await run
    left = set(psutil.Process().children(recursive=True)) - others
    _, alive = psutil.wait_procs(list(left), timeout=2.0)
    assert not alive


class Client:
    """Somebody for whom programs are run."""


async def test_nobody_has_all_the_places(sandbox: Sandbox) -> None:
    greedy, modest = Client(), Client()
    long = "import time\ntime.sleep(60)"
    others = [asyncio.create_task(sandbox.run(long, None, SandboxLimits(seconds=20.0), greedy)) for _ in range(10)]
    await asyncio.sleep(0.1)
    await sandbox.run("", None, SandboxLimits(), modest)
    assert not any(other.done() for other in others)
    for other in others:
        other.cancel()
    await asyncio.wait(others)


async def test_no_more_than_so_many_run_at_once(sandbox: Sandbox) -> None:
    program = """
import os, time
os.write(report, b"%f " % time.monotonic())
time.sleep(0.2)
os.write(report, b"%f" % time.monotonic())
"""
    outcomes = await asyncio.gather(*(sandbox.run(program, None, SandboxLimits(), Client()) for _ in range(5)))
    spans = [tuple(map(float, outcome.report.split())) for outcome in outcomes]
    for begin, _ in spans:
        assert sum(other <= begin < end for other, end in spans) <= 2


def test_it_runs_in_the_loop_of_the_server(sandbox: Sandbox) -> None:
    async def outcomes() -> list[Outcome]:
        ended = await sandbox.run("print(payload)", 7, SandboxLimits(), sandbox)
        return [ended, await sandbox.run("while True: pass", None, SandboxLimits(seconds=0.2), sandbox)]

    ended, timed_out = uvloop.run(outcomes())
    assert (ended.status, ended.output) == (0, b"7\n")
    assert timed_out.timed_out


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


async def test_without_bubblewrap_there_is_none(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert await Sandbox.find() is None
    assert "bubblewrap is not installed" in caplog.text


async def test_a_bubblewrap_that_does_not_work_is_none(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (path / "bwrap").symlink_to("/bin/false")
    assert await Sandbox.find() is None
    assert "the sandbox failed" in caplog.text


async def test_a_run_that_does_not_begin_is_not_the_fault_of_the_program() -> None:
    with pytest.raises(SandboxFailed, match="the sandbox failed"):
        await Sandbox("/bin/false", 1).run("", None, SandboxLimits(), Client())


ZOMBIES = """
import asyncio
import os

from service.evaluators.code.sandbox import Sandbox, SandboxLimits


def zombies():
    numbers = [name for name in os.listdir("/proc") if name.isdigit()]
    stats = (open(f"/proc/{number}/stat").read().rpartition(")")[2].split() for number in numbers)
    return sum(stat[:2] == ["Z", str(os.getpid())] for stat in stats)


async def main():
    sandbox = await Sandbox.find(at_once=4)
    print("found", sandbox is not None, "pid", os.getpid(), flush=True)

    async def leave(seconds):
        run = asyncio.create_task(sandbox.run("while True: pass", None, SandboxLimits(seconds=5.0), client=object))
        await asyncio.sleep(seconds)
        run.cancel()
        await asyncio.wait([run])

    for _ in range(10):
        await sandbox.run("", None, SandboxLimits(), client=main)
    print("ended", zombies())
    for _ in range(10):
        await sandbox.run("while True: pass", None, SandboxLimits(seconds=0.1), client=main)
    print("timed out", zombies())
    for number in range(10):
        await leave(0.02 * number)
    print("left", zombies())


asyncio.run(main())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a namespace of processes without bubblewrap")
def test_as_the_first_process_of_a_container_it_leaves_no_zombies() -> None:
    if shutil.which("bwrap") is None:
        unavailable("bubblewrap is not installed")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-B", "-c", ZOMBIES],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.splitlines() == ["found True pid 1", "ended 0", "timed out 0", "left 0"]
