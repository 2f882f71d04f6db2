"""`python -m ctrkit`: the command line. Under `torchrun` it is a rank of `ctrkit train`."""

from __future__ import annotations

import os
import sys

from ctrkit.core.lifeline import rank_of_environment


def main() -> None:
    """Run the command line; on a rank other than 0, become the child."""
    rank = rank_of_environment()
    if rank:
        os.execv(sys.executable, [sys.executable, "-P", "-m", "ctrkit.child"])
    from ctrkit.cli.app import main as run

    if rank is not None:
        sys.argv[1:] = _arguments_of_rank_0()
    run()


def _arguments_of_rank_0() -> list[str]:
    import psutil

    from ctrkit.commands.torchrun import begun_run, note_restart, resuming_arguments
    from ctrkit.core.errors import UsageError
    from ctrkit.core.runs import known_runs

    argv = sys.argv[1:]
    try:
        run = begun_run(argv, known_runs(), psutil.Process(os.getppid()).create_time())
        if run is None:
            return argv
        note_restart(run)
        return resuming_arguments(argv, run)
    except UsageError as error:
        print(f"ctrkit: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
