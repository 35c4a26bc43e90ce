"""Processes that end with this one, however it ends."""

import os
import subprocess
from collections.abc import Iterable

_WATCH = 'read _; sleep "$1"; shift; kill -s KILL -- "$@"'


class Leash:
    """Kills processes once this one has ended, even by SIGKILL.

    A shell waits for the end of a pipe whose other end only this process holds.
    """

    def __init__(self, processes: Iterable[int], grace: float = 0.0) -> None:
        """
        processes: their ids; that of a group is negative. The shell itself is in none of this process's groups.
        grace: how many seconds they have to end by themselves.
        """
        watched, self._held = os.pipe()
        try:
            self._shell = subprocess.Popen(  # noqa: S603 - fixed words and numbers
                ["sh", "-c", _WATCH, "leash", str(grace), *map(str, processes)],  # noqa: S607 - any shell will do
                stdin=watched,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # a signal to this process's group must not end it first
            )
        except OSError:
            os.close(self._held)
            raise
        finally:
            os.close(watched)

    def release(self) -> None:
        """Let the processes be, once they have ended: by then their ids may be those of others."""
        self._shell.kill()
        self._shell.wait()
        os.close(self._held)
