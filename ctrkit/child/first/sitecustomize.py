"""Runs first in every Python process that ctrkit supervises, and prepares it for supervision.

The supervisor puts this folder first on PYTHONPATH. So the child, and the workers that it spawns,
can write their stacks on request before they unpickle or import anything that could hang. Processes
that multiprocessing starts find the modules of the user's file as the child did. In a user's script
this also installs the observer, which does nothing until the script imports torch. If another
`sitecustomize` exists, it runs afterwards, as if this one did not exist.

It runs in any Python from 3.9 on, whether or not ctrkit is installed there.
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
            return  # such a process runs all the same; the supervisor never signals it


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
    except Exception:  # the script runs all the same; the parent says that nothing was observed
        return


def _run_the_next() -> None:
    """Find the `sitecustomize` that this one hides, and run it under its own name."""
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
