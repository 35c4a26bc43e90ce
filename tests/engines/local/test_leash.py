"""Processes that end with this one, however it ends."""

import signal
import subprocess
import sys

import psutil

from service.engines.local.leash import Leash

KEEPER = """
import subprocess, sys, time
from service.engines.local.leash import Leash

kept = subprocess.Popen(["sleep", "300"])
leash = Leash([kept.pid])
print(kept.pid, flush=True)
time.sleep(300)
"""


def test_processes_end_with_a_process_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", KEEPER], stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        kept = psutil.Process(int(keeper.stdout.readline()))
        keeper.send_signal(signal.SIGKILL)
        keeper.wait()

    _, alive = psutil.wait_procs([kept], timeout=30)
    assert alive == []


def test_processes_that_are_let_go_live_on() -> None:
    with subprocess.Popen(["sleep", "300"]) as kept:
        leash = Leash([kept.pid])
        leash.release()
        ended = kept.poll()
        kept.kill()

    assert ended is None
    assert leash._shell.returncode == -signal.SIGKILL
