"""Runs first in every Python process that ctrkit supervises, and prepares it for supervision.

The supervisor puts this folder first on PYTHONPATH, so that the child, and workers that it spawns,
can be asked for their stacks before they unpickle or import anything that could hang. What
multiprocessing starts finds the modules of the user's file as the child did. In a user's script the
observer is made ready, too: it does nothing before the script imports torch. A
`sitecustomize` that was there before is run afterwards, as if this one did not exist.

Runs in any Python from 3.9 on, whether or not ctrkit is installed there.
"""

import os
import sys


def _arm() -> None:
    try:
        from ctrkit.core import lifeline, stacks_signal, stops
    except ImportError:  # another Python, started by the user's code
        return
    stops.note_stops()
    folder = os.environ.get(lifeline.FOLDER_VARIABLE)
    if folder:
        try:
            stacks_signal.arm_stacks(folder)
        except (OSError, ValueError, RuntimeError):
            return  # a process that cannot be armed runs all the same; it is never signalled


def _find_user_modules() -> None:
    if "CTRKIT_USER_MODULES" not in os.environ:
        return
    try:
        from ctrkit.core import user_modules
    except ImportError:
        return
    user_modules.install_from_environment()


def _observe() -> None:
    if os.environ.get("CTRKIT_SCRIPT") != "1":
        return
    try:
        from ctrkit.child.script import hook

        hook.install()
    except Exception:  # a script runs all the same; that nothing was seen is said by the parent
        return


def _run_the_next() -> None:
    """The `sitecustomize` that this one hides, found and run under its own name."""
    import importlib

    here = os.path.dirname(os.path.abspath(__file__))
    mine = sys.modules.pop("sitecustomize", None)
    hidden = [entry for entry in sys.path if os.path.abspath(entry or ".") == here]
    sys.path[:] = [entry for entry in sys.path if entry not in hidden]
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if mine is not None:
            sys.modules["sitecustomize"] = mine


_arm()
_find_user_modules()
_observe()
_run_the_next()
