"""Processes that end with this one, however it ends."""

import signal
import subprocess
import sys
import time

import psutil

from service.leash import Leash

KEEPER = """
import subprocess, sys, time
from service.leash import Leash

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


def test_a_whole_group_ends_after_its_grace() -> None:
    script = KEEPER.replace('["sleep", "300"]', '["sh", "-c", "sleep 300 & wait"], start_new_session=True')
    script = script.replace("[kept.pid]", "[-kept.pid], grace=0.5")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as keeper:
        assert keeper.stdout is not None
        kept = psutil.Process(int(keeper.stdout.readline()))
        while not (group := kept.children()):
            time.sleep(0.01)
        keeper.send_signal(signal.SIGKILL)
        keeper.wait()

    _, alive = psutil.wait_procs([kept, *group], timeout=30)
    assert alive == []


def test_processes_that_are_let_go_live_on() -> None:
    with subprocess.Popen(["sleep", "300"]) as kept:
        leash = Leash([kept.pid])
        leash.release()
        ended = kept.poll()
        kept.kill()

    assert ended is None
    assert leash._shell.returncode == -signal.SIGKILL
