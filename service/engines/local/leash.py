"""The engine's processes end with the service, however it ends."""

import os
import subprocess
from collections.abc import Iterable


class Leash:
    """Kills processes once this one has ended, even by SIGKILL. vLLM's would live on, with the memory of the model.

    A shell waits for the end of a pipe whose other end only this process holds.
    """

    def __init__(self, processes: Iterable[int]) -> None:
        """``processes``: their ids."""
        watched, self._held = os.pipe()
        try:
            self._shell = subprocess.Popen(  # noqa: S603 - fixed words and numbers
                ["sh", "-c", 'read _; kill -9 "$@"', "sh", *map(str, processes)],  # noqa: S607 - any shell will do
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
