"""Runs a caller's Python program inside bubblewrap (0.8 or later).

The program sees a read-only root with the system's libraries, the interpreter and its standard library, but no
installed packages. It can write only to ``/tmp`` and ``/dev/shm``, which are empty and of bounded sizes. It has its own
``/proc`` and four harmless devices. It has namespaces of every kind to itself: no network but its own loopback, no
other processes, no host name. It gets no variable of the service's environment, has no capability, cannot gain one, and
cannot create another user namespace. If the service is root, the program runs as nobody; else it runs as the service's
user, which looks like nobody from the inside. These are limited: wall time and processor time, the memory of each
process and the memory they share, the number of processes and threads, the size of files, how many are open, and how
much output is kept. When the first process ends or the time is over, the kernel kills all the others.

Not covered:

* Holes in the kernel. The system calls that need no capability are open, except for the few that ``seccomp.py``
  refuses. On machines that it does not know, all of them are. Side channels through shared caches and the load of the
  machine.
* The memory of all processes together. Each may use its limit, and kernel objects (inodes, the buffers of pipes and
  sockets) do not count. If memory is short, the kernel kills a program first, unless the program has undone that. An
  operator limits the total from outside, by the memory of the container or the unit.
* Processor time within the limits, and what ``/proc`` reveals about the machine: its model, memory and load.
* A service that is itself killed after a program has made bubblewrap's first process outlive bubblewrap. That program
  goes on inside until its processor time is spent.
* Before Linux 5.14, processes are counted for each user instead of each sandbox, so programs may be unable to start
  any.
* What a program does to its own interpreter. A report is as honest as the program that writes it.
"""

import asyncio
import json
import logging
import math
import os
import platform
import shutil
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakKeyDictionary

from service.evaluators.base import EvaluationFailed
from service.evaluators.code.seccomp import make_call_filter

log = logging.getLogger(__name__)

NOBODY = 65534
MIB = 1 << 20
_LAUNCHER = Path(__file__).with_name("inside") / "launcher.py"
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_BEGUN = b"\0"
_INFO = "<info>"
"""Placeholder in the command for the descriptor to which bubblewrap writes what it has started."""
_FILTER = "<filter>"
"""Placeholder in the command for the descriptor from which bubblewrap reads the filter of system calls."""
_STARTING_SECONDS = 10.0
_PACE_SECONDS = 0.002
"""Pause between two reads of output, so that a program that writes byte by byte does not keep the service busy."""
_REAP_SECONDS = 0.002
"""Pause between two checks whether a killed process has ended."""
_READ_AHEAD = 1
"""Bytes after which the event loop stops reading until they are consumed. A single write may bring more."""


class SandboxFailed(EvaluationFailed):
    """The program could not be started, and is not to blame."""


@dataclass(frozen=True, kw_only=True)
class SandboxLimits:
    """What a program may use.

    seconds: wall time after the interpreter is ready. Each process may use as much processor time.
    memory_mib: memory for each process, beyond the interpreter's own. ``shared_mib`` of it is for what all processes
        together keep in ``/dev/shm``; the rest is divided into the address spaces of the processes.
    processes: processes and threads.
    disk_mib: everything in ``/tmp``.
    open_files: open descriptors of a process.
    output_bytes, report_bytes: how much of the output and of the report is kept, from the beginning.

    With the defaults, 16 processes may use 248 MiB each and share 128 MiB: together no more than 16 times 256 MiB.
    """

    seconds: float = 10.0
    memory_mib: int = 256
    processes: int = 16
    disk_mib: int = 16
    open_files: int = 64
    output_bytes: int = 65_536
    report_bytes: int = MIB

    @property
    def shared_mib(self) -> int:
        return self.memory_mib // 2

    @property
    def address_space(self) -> int:
        """Bytes that each process may map beyond the interpreter's."""
        return self.memory_mib * MIB - self.shared_mib * MIB // self.processes

    def resources(self) -> Mapping[str, tuple[int, int]]:
        """Soft and hard limits by their names in ``resource``, except for memory."""
        processor = math.ceil(self.seconds) + 1  # the interpreter's start counts
        processes = self.processes + 1  # bubblewrap's own first process counts
        file = max(self.disk_mib, self.shared_mib) * MIB  # no file can be larger than the larger of the two places
        return {
            "RLIMIT_CPU": (processor, processor + 1),
            "RLIMIT_NPROC": (processes, processes),
            "RLIMIT_FSIZE": (file, file),
            "RLIMIT_NOFILE": (self.open_files, self.open_files),
            "RLIMIT_CORE": (0, 0),
            "RLIMIT_MEMLOCK": (0, 0),
            "RLIMIT_MSGQUEUE": (0, 0),
        }


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    status: the exit status, or 128 plus the number of the signal that ended it; None if the wall time ran out.
    timed_out: whether wall or processor time ran out.
    output: standard output and error, mixed.
    report: what the program wrote to its report.
    """

    status: int | None
    timed_out: bool
    output: bytes
    report: bytes


class Sandbox:
    """Runs at most ``at_once`` programs at a time, and at most half as many for one client. The others wait."""

    def __init__(self, bwrap: str, at_once: int) -> None:
        base = Path(sys.base_prefix).resolve()
        self._interpreter = base / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        self._confinement = [*nobody_prefix(base), *_make_confinement(bwrap, base, self._interpreter)]
        self._launcher = _LAUNCHER.read_text()
        self._filter = make_call_filter(platform.machine())
        self._places = asyncio.Semaphore(at_once)
        self._share = max(1, at_once // 2)
        self._shares = WeakKeyDictionary[object, asyncio.Semaphore]()

    @classmethod
    async def find(cls, at_once: int | None = None) -> "Sandbox | None":
        """Return a sandbox that has been tried once. If it does not work, log the reason and return None.

        ``at_once``: by default the number of processors.
        """
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            log.warning("no sandbox: bubblewrap is not installed")
            return None
        try:
            sandbox = cls(bwrap, at_once or os.cpu_count() or 1)
            await sandbox.run("", None, SandboxLimits(), client=sandbox)
        except (SandboxFailed, OSError) as error:
            log.warning("no sandbox: %s", error)
            return None
        return sandbox

    async def run(self, program: str, payload: Any, limits: SandboxLimits, client: object) -> Outcome:
        """Run a Python program. When this returns, raises or is cancelled, nothing of the program is left.

        program: the source. Its globals include ``payload`` and ``report``, a descriptor to write to.
        payload: a value of JSON's types.
        limits: what the program may use.
        client: for whom it runs. Must be hashable and weakly referable.

        Raises SandboxFailed if the program could not be started.

        >>> outcome = await sandbox.run("print(payload + 1)", 41, SandboxLimits(seconds=2), client=request)
        >>> outcome.status, outcome.output
        (0, b'42\\n')
        """
        async with self._shares.setdefault(client, asyncio.Semaphore(self._share)), self._places:
            return await self._run(program, payload, limits)

    def _make_command(self, limits: SandboxLimits) -> list[str]:
        disk = ["--size", str(limits.disk_mib * MIB), "--tmpfs", "/tmp", "--chdir", "/tmp"]  # noqa: S108 - its own
        shared = ["--size", str(limits.shared_mib * MIB), "--tmpfs", "/dev/shm"]  # noqa: S108 - its own
        interpreter = [str(self._interpreter), "-I", "-S", "-B", "-X", "utf8"]  # none of the host's packages
        filtered = ["--seccomp", _FILTER] if self._filter else []
        return [*self._confinement, *disk, *shared, *filtered, "--", *interpreter, "-c", self._launcher]

    def _make_order(self, program: str, payload: Any, limits: SandboxLimits) -> bytes:
        taken = {"limits": limits.resources(), "memory": limits.address_space}
        return json.dumps({**taken, "program": program, "payload": payload}).encode()

    async def _run(self, program: str, payload: Any, limits: SandboxLimits) -> Outcome:
        async with _launch(self._make_command(limits), self._filter or b"") as confined:
            process, begun = confined.process, asyncio.Event()
            over = asyncio.gather(
                _read_head(process.stdout, limits.output_bytes),
                _read_head(process.stderr, limits.report_bytes, begun),
                _feed(process.stdin, self._make_order(program, payload, limits)),
                process.wait(),
            )
            try:
                with suppress(TimeoutError):
                    await asyncio.wait_for(begun.wait(), _STARTING_SECONDS)
                    await asyncio.wait([over], timeout=limits.seconds)
                in_time = over.done()
            finally:
                confined.kill()
                output, report, _, status = await over
        said, mark, report = report.partition(_BEGUN)
        if not mark:
            reason = said.decode(errors="replace").strip() or "it did not begin in time"
            raise SandboxFailed(f"the sandbox failed: {reason[-300:]}")
        timed_out = not in_time or status == 128 + signal.SIGXCPU
        return Outcome(status if in_time else None, timed_out, output, report)


@dataclass(frozen=True)
class _ConfinedProcess:
    """``process`` is bubblewrap. ``first`` is a descriptor of the first process inside, with which all others there
    end; None if bubblewrap did not get that far. A program can trace that process, and make it outlive bubblewrap."""

    process: asyncio.subprocess.Process
    first: int | None

    def kill(self) -> None:
        if self.first is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.first, signal.SIGKILL)
        if self.process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


@asynccontextmanager
async def _launch(command: Sequence[str], calls: bytes) -> AsyncIterator[_ConfinedProcess]:
    """Start a launcher, which waits for its order, and end it with the block. ``calls``: the filter of system calls."""
    # Shielded, because a start that is cancelled halfway leaves processes that nobody knows about.
    beginning = asyncio.ensure_future(_begin(command, calls))
    try:
        confined = await asyncio.shield(beginning)
    except asyncio.CancelledError:
        await asyncio.shield(asyncio.ensure_future(_abandon(beginning)))
        raise
    try:
        yield confined
    finally:
        await _end(confined)


async def _begin(command: Sequence[str], calls: bytes) -> _ConfinedProcess:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as info:
        try:
            with _open_pipe(calls) as readable:
                descriptors = {_INFO: writing, _FILTER: readable}
                words = [str(descriptors.get(word, word)) for word in command]
                process = await _spawn(words, list(descriptors.values()))
        finally:
            os.close(writing)
        try:
            return _ConfinedProcess(process, await asyncio.wait_for(_open_first_process(info), _STARTING_SECONDS))
        except TimeoutError:
            await _end(_ConfinedProcess(process, None))
            raise SandboxFailed("the sandbox failed: it did not start in time") from None


async def _abandon(beginning: "asyncio.Future[_ConfinedProcess]") -> None:
    with suppress(SandboxFailed, OSError):
        await _end(await beginning)


async def _end(confined: _ConfinedProcess) -> None:
    confined.kill()
    await confined.process.wait()
    if confined.first is not None:
        await _reap(confined.first)
        os.close(confined.first)


async def _reap(first: int) -> None:
    """Collect the exit status of bubblewrap's child, which has been killed, if it has become this process's child.

    Bubblewrap ends before it does. If the service is the first process of its container, nobody else collects it. It
    ends as soon as the kernel has freed its memory.
    """
    with suppress(ChildProcessError, TimeoutError):  # not our child; or the kernel is stuck
        async with asyncio.timeout(_STARTING_SECONDS):
            while os.waitid(os.P_PIDFD, first, os.WEXITED | os.WNOHANG) is None:  # noqa: ASYNC222 - it does not block
                await asyncio.sleep(_REAP_SECONDS)


@contextmanager
def _open_pipe(content: bytes) -> Iterator[int]:
    """A descriptor from which to read ``content``, which must fit into a pipe."""
    reading, writing = os.pipe()
    try:
        os.write(writing, content)
        os.close(writing)
        yield reading
    finally:
        os.close(reading)


async def _spawn(command: Sequence[str], descriptors: Sequence[int]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=descriptors,
        limit=_READ_AHEAD,
        env={},  # the environment of bubblewrap's first process can be read inside, at /proc/1/environ
        cwd="/",
        start_new_session=True,
    )


async def _open_first_process(info: BinaryIO) -> int | None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, info)
    try:
        started = json.loads(await reader.readuntil(b"}"))
        return os.pidfd_open(started["child-pid"])
    except (asyncio.IncompleteReadError, ProcessLookupError):
        return None
    finally:
        transport.close()


async def _read_head(stream: asyncio.StreamReader | None, limit: int, begun: asyncio.Event | None = None) -> bytes:
    """Read the first ``limit`` bytes. The rest is read and dropped, so that the writer is not blocked.

    ``begun`` is set once the mark _BEGUN, or the end of the stream, has come.
    """
    kept = bytearray()
    while stream and (piece := await stream.read(65_536)):
        kept += piece[: limit - len(kept)]
        if begun and _BEGUN in piece:
            begun.set()
        await asyncio.sleep(_PACE_SECONDS)
    if begun:
        begun.set()
    return bytes(kept)


async def _feed(stream: asyncio.StreamWriter | None, content: bytes) -> None:
    if stream:
        with suppress(BrokenPipeError, ConnectionResetError):  # it ended without reading all
            stream.write(content)
            await stream.drain()
        stream.close()


def _make_confinement(bwrap: str, base: Path, interpreter: Path) -> list[str]:
    """The part of the command that does not depend on the limits. ``base`` holds the interpreter."""
    libraries = dict.fromkeys([*_LIBRARIES, f"{base}/lib", f"{base}/lib64", str(interpreter)])
    packages = {
        str(path.resolve())
        for parent in (Path("/usr"), base)
        for path in parent.glob("lib*/python3*/*-packages")
        if path.is_dir()
    }
    return [
        bwrap,
        *("--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"),
        *("--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox"),
        *("--die-with-parent", "--new-session", "--info-fd", _INFO),
        *("--clearenv", "--setenv", "HOME", "/tmp", "--setenv", "MALLOC_ARENA_MAX", "1"),  # noqa: S108 - its own
        *(word for path in libraries for word in ("--ro-bind-try", path, path)),
        *(word for path in sorted(packages) for word in ("--tmpfs", path, "--remount-ro", path)),
        *(word for path in _DEVICES for word in ("--dev-bind", path, path)),
        *("--proc", "/proc", "--dir", "/tmp", "--dir", "/dev/shm", "--remount-ro", "/"),  # noqa: S108 - its own
    ]


_LAY_OPEN = """
PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022
cd "$2"
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir -p "$2"
mount --no-canonicalize --bind . "$2"
cd /
shift 2
exec "$@"
"""
"""Makes ``$1`` a folder that anybody may enter, with nothing in it but ``$2``, for the command that follows."""


def nobody_prefix(base: Path) -> list[str]:
    """What to put before a command so that root runs it as nobody. Root is exempt from the limit on processes.

    Nobody must be able to read the interpreter. If it lies where only root may go ("/root"), the command sees nothing
    else there. The prefix replaces itself with the command, so the command's parent is the service, and the
    command dies with it.
    """
    if os.geteuid() != 0:
        return []
    setpriv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    closed = next((path for path in reversed(base.parents) if not path.stat().st_mode & stat.S_IXOTH), None)
    if closed is None:
        return setpriv
    return ["unshare", "--mount", "--", "sh", "-euc", _LAY_OPEN, "sh", str(closed), str(base), *setpriv]
