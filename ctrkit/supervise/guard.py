"""The guard: a small process that ends a child's family when the supervisor dies.

It waits on its stdin, a pipe that only the supervisor holds open. The supervisor writes a line with
the child's pid, and at the end `done`. If the pipe ends without `done`, the supervisor was killed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress

from ctrkit.core import stops

DONE = "done"


#: Seconds to wait for the guard's end, asked for or forced.
_END_S = 5.0


class Guard:
    """The supervisor's side."""

    def __init__(self, run_id: str, env: dict[str, str]) -> None:
        argv = [sys.executable, "-P", "-m", "ctrkit.supervise.guard", run_id]
        with stops.blocked():  # a signal that ends the supervisor must not end its guard
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True, env=env, text=True,
            )  # fmt: skip

    def watch(self, pid: int) -> None:
        """Tell the guard the child's pid."""
        self._say(str(pid))

    def dismiss(self) -> None:
        """The family has ended: end the guard and reap it, unless it hangs in the kernel."""
        self._say(DONE)
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_END_S)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the guard may have been killed
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()


def main() -> None:
    """Wait for the end of the pipe. psutil is imported only if it is needed."""
    stops.ignore()
    run_id, pid, created_s = sys.argv[1], 0, time.time()
    for line in sys.stdin:
        if line.strip() == DONE:
            return
        pid = int(line)
    from ctrkit.supervise.cleanup import Family, end_family, remove_sockets

    end_family(Family(root_pid=pid, created_s=created_s, run_id=run_id))
    remove_sockets(run_id)


if __name__ == "__main__":
    main()
