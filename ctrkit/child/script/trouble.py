"""Notes the observer's own errors, neither on the script's terminal nor raised into it."""

from __future__ import annotations

import os
import traceback

from ctrkit.core.lifeline import child_folder


def note_trouble(what: str, error: BaseException) -> None:
    """Append an error to `observer-trouble.txt` in the child's folder; never raises."""
    folder = child_folder()
    if folder is None:
        return
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        with open(os.path.join(folder, "observer-trouble.txt"), "a", encoding="utf-8") as file:
            file.write(f"pid {os.getpid()}: {what}\n{text}\n")
    except OSError:
        return
