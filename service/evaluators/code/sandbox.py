"""Runs a Python program that a stranger wrote, inside bubblewrap (0.8 or later).

The program sees a read-only root with the system's libraries, the interpreter and its standard library, without
anybody's packages; an empty ``/tmp`` and an empty ``/dev/shm`` of bounded sizes, the only places to write; its own
``/proc``; four harmless devices. It has its own namespaces of every kind, so no network but a loopback of its own, no
other process, no host name; no variable of the service's environment, no capability, no way to gain one, and no further
user namespace. Where the service is root it runs as nobody, else as the service's user, whom it sees as nobody. Wall
and processor time, the memory of each process and what they share, the number of processes and threads, the size of
files, how many are open and what is kept of the output are limited. When the first process ends or the time is over the
kernel kills whatever is left.

Not covered:

* Holes in the kernel: the system calls that need no capability are open, but for the few that ``seccomp.py`` refuses,
  and on machines that it does not know all of them. Side channels through shared caches and the load of the machine.
* The memory of all processes together: each may take its limit, and kernel objects (inodes, the buffers of pipes and
  sockets) count for none. A program begins as the first that the kernel kills where memory is short, and can take that
  back. An operator bounds it from outside, by the memory of the container or the unit.
* Time on the processor within the limits, and what ``/proc`` tells of the machine: its model, memory and load.
* A service that is itself killed while a program has made bubblewrap's first process let go of it: that program then
  lives on inside, until its processor time is spent.
* Before Linux 5.14, processes are counted for each user instead of each sandbox: programs may then find that they
  cannot start any.
* What a program makes of its own interpreter. A report is as honest as the program that writes it.
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
"""Stands in the command for the descriptor on which bubblewrap tells what it has started."""
_FILTER = "<filter>"
"""Stands in the command for the descriptor from which bubblewrap reads the filter of system calls."""
_STARTING_SECONDS = 10.0
_PACE_SECONDS = 0.002
"""Between two reads of output, so that a program that writes byte by byte does not keep the service busy."""
_REAP_SECONDS = 0.002
"""Between two looks for the end of a process that has been killed."""
_READ_AHEAD = 1
"""Bytes after which the loop stops reading until they are taken; one write may bring more of them."""


class SandboxFailed(EvaluationFailed):
    """The program did not begin, through no fault of its own."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``seconds`` of wall time from when the interpreter is ready; each process may use as much processor time.

    ``memory_mib``: what the program may use for each process, beyond the interpreter's own. ``shared_mib`` of it is
    what all processes together may hold in ``/dev/shm``; the rest is divided into the address spaces of the processes.
    ``processes`` counts threads too. ``disk_mib``: all that is in ``/tmp``. Of the output and the report the first
    bytes are kept.

    With the defaults 16 processes may take 248 MiB each and share 128 MiB: together no more than 16 times 256 MiB.
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
        """Soft and hard limits by their names in ``resource``, but for the memory."""
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
    """``status``: the exit status, or 128 and the number of the signal that ended the program; None where the wall time
    ran out. ``timed_out``: wall or processor time ran out. ``output``: standard output and error, mixed.
    ``report``: what was written to the report."""

    status: int | None
    timed_out: bool
    output: bytes
    report: bytes


class Sandbox:
    """Runs at most ``at_once`` programs at a time, of one client at most half as many; the others wait."""

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
        """A sandbox that has been tried once; None, with the reason in the log, where it does not work.

        ``at_once``: by default, the number of processors.
        """
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            log.warning("no sandbox: bubblewrap is not installed")
            return None
        try:
            sandbox = cls(bwrap, at_once or os.cpu_count() or 1)
            await sandbox.run("", None, Limits(), client=sandbox)
        except (SandboxFailed, OSError) as error:
            log.warning("no sandbox: %s", error)
            return None
        return sandbox

    async def run(self, program: str, payload: Any, limits: Limits, client: object) -> Outcome:
        """Run Python source that finds ``payload`` (of JSON's types) and ``report`` (a descriptor to write to) among
        its globals. When this returns, raises or is cancelled, nothing of the program stays. Raises SandboxFailed.

        ``client``: for whom it is run. It can be hashed and weakly referred to.
        """
        async with self._shares.setdefault(client, asyncio.Semaphore(self._share)), self._places:
            return await self._run(program, payload, limits)

    def _make_command(self, limits: Limits) -> list[str]:
        disk = ["--size", str(limits.disk_mib * MIB), "--tmpfs", "/tmp", "--chdir", "/tmp"]  # noqa: S108 - its own
        shared = ["--size", str(limits.shared_mib * MIB), "--tmpfs", "/dev/shm"]  # noqa: S108 - its own
        interpreter = [str(self._interpreter), "-I", "-S", "-B", "-X", "utf8"]  # none of the host's packages
        filtered = ["--seccomp", _FILTER] if self._filter else []
        return [*self._confinement, *disk, *shared, *filtered, "--", *interpreter, "-c", self._launcher]

    def _make_order(self, program: str, payload: Any, limits: Limits) -> bytes:
        taken = {"limits": limits.resources(), "memory": limits.address_space}
        return json.dumps({**taken, "program": program, "payload": payload}).encode()

    async def _run(self, program: str, payload: Any, limits: Limits) -> Outcome:
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
    end; None where it did not get that far. A program can trace that one, and make it outlive bubblewrap."""

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
    """A launcher that waits for its order. ``calls``: the filter of system calls, if there is one."""
    # Shielded: what is killed halfway leaves processes that nobody knows.
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
    """Take the exit status of bubblewrap's child, where it has become this process's own: bubblewrap ends before it,
    and where the service is the first process of its container nobody else would. It has been killed by now.

    Its end takes as long as the kernel needs to free its memory.
    """
    with suppress(ChildProcessError, TimeoutError):  # somebody else's; a kernel that is stuck
        async with asyncio.timeout(_STARTING_SECONDS):
            while os.waitid(os.P_PIDFD, first, os.WEXITED | os.WNOHANG) is None:  # noqa: ASYNC222 - it does not block
                await asyncio.sleep(_REAP_SECONDS)


@contextmanager
def _open_pipe(content: bytes) -> Iterator[int]:
    """A descriptor to read ``content`` from, which must fit into a pipe."""
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
        told = json.loads(await reader.readuntil(b"}"))
        return os.pidfd_open(told["child-pid"])
    except (asyncio.IncompleteReadError, ProcessLookupError):
        return None
    finally:
        transport.close()


async def _read_head(stream: asyncio.StreamReader | None, limit: int, begun: asyncio.Event | None = None) -> bytes:
    """The first ``limit`` bytes. The rest is read and dropped, so that the writer is not held up. ``begun`` is set once
    there is the mark that says so, or no more to come."""
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
    """The command up to what is told apart by the limits. ``base`` holds the interpreter."""
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
"""For the command that follows, ``$1`` is a folder that anybody may enter, with nothing in it but ``$2``."""


def nobody_prefix(base: Path) -> list[str]:
    """What to put before a command so that root runs it as nobody; root is exempt from the limit on processes.

    Nobody must reach the interpreter. If it lies where only root may go ("/root"), the command sees nothing else there.
    All of it becomes the command in one process, so that the command's parent is the service, and dies with it.
    """
    if os.geteuid() != 0:
        return []
    setpriv = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
    closed = next((path for path in reversed(base.parents) if not path.stat().st_mode & stat.S_IXOTH), None)
    if closed is None:
        return setpriv
    return ["unshare", "--mount", "--", "sh", "-euc", _LAY_OPEN, "sh", str(closed), str(base), *setpriv]
