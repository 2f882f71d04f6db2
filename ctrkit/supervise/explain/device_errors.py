"""GPU errors that are reported after they happened: a failed assertion, a stray access."""

from __future__ import annotations

import re

from ctrkit.supervise.explain.scene import Scene
from ctrkit.supervise.explain.sentences import REFERENCES, Cause
from ctrkit.supervise.explain.stacks import parse_traceback, user_frame

_ERROR = re.compile(
    r"(?:CUDA|HIP) error: (device-side assert triggered|an illegal memory access was encountered"
    r"|unspecified launch failure|misaligned address|an illegal instruction was encountered)",
    re.IGNORECASE,
)
#: The message that a failing kernel prints, once per failing device thread.
_ASSERTION = re.compile(r"Assertion `([^`\n]+)` failed")
_TRACEBACK = re.compile(r"^Traceback \(most recent call last\):$", re.MULTILINE)


def device_error(scene: Scene) -> Cause | None:
    """A kernel failed. The host notices at a later call, and names that call's line."""
    match = _ERROR.search(scene.words)
    if match is None:
        return None
    begin = [found.start() for found in _TRACEBACK.finditer(scene.words)]
    last = max((at for at in begin if at < match.start()), default=0)
    frame = user_frame(parse_traceback(scene.words[last : match.end()]))
    assertion = _ASSERTION.search(scene.words)
    what = match[1].lower()
    sentence = f"the GPU reported: {what}"
    sentence += f" (`{assertion[1]}` does not hold)" if assertion else ""
    sentence += f" (at {frame}, which is where it was noticed)" if frame else ""
    index = "; an index or a label is out of range in most cases" if "assert" in what else ""
    return Cause(
        name="error on the device", sentence=sentence, guilty_pid=None, guilty=None,
        place=str(frame) if frame else None,
        fix="set CUDA_LAUNCH_BLOCKING=1 and run again: then the line is the one that asked for it"
        + index,
        references=REFERENCES.get("error on the device", ()),
    )  # fmt: skip
