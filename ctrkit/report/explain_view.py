"""Shows what `ctrkit explain` found: the state, the cause, the process tree, the stacks."""

from __future__ import annotations

import re

from ctrkit.core.command_line import without_secrets
from ctrkit.core.units import format_bytes
from ctrkit.report.blocks import Block, Code, Facts, Paragraph, Report, Section
from ctrkit.report.words import clean, sentence
from ctrkit.supervise.explain.movement import State
from ctrkit.supervise.explain.outside import Explanation
from ctrkit.supervise.explain.scene import Process, Role, place_of
from ctrkit.supervise.explain.sentences import kernel_wait
from ctrkit.supervise.explain.stacks import Frame, Thread, is_users, user_frame

_MAX_FRAMES, _MAX_THREADS = 16, 3
_MAX_WORDS = 200
_LIBRARIES = re.compile(r"^.*/(site-packages|dist-packages|lib/python3\.\d+t?)/")
_TONES = {State.PROGRESSING: "good", State.STOPPED: "bad"}


def explain_view(found: Explanation) -> Report:
    """The report: the conclusion first, then the evidence."""
    main = found.family.main_pid
    title = f"Process {main}: {_command_words(found, main)}"
    subtitle = (sentence(found.family.note),) if found.family.note else ()
    sections = [Section("", tuple(_answer(found)))]
    sections.append(Section(_tree_heading(found), (_tree(found),)))
    if stacks := _stacks(found):
        sections.append(Section("Stacks, innermost call first", stacks))
    if found.missing is not None and found.scene is not None:
        sections.append(_missing(found))
    return Report(title, subtitle, tuple(sections))


def _answer(found: Explanation) -> list[Block]:
    movement, cause = found.movement, found.cause
    if found.scene is None:
        return [
            Paragraph(
                "There is no Python process in it, so ctrkit can only show what the system tells."
            )
        ]
    blocks: list[Block] = []
    progressing = movement is not None and movement.state is State.PROGRESSING
    if movement is not None:
        tone = _TONES.get(movement.state, "plain")
        text = f"It is {movement.state}: {clean(movement.because)}."
        blocks.append(Paragraph(text, "good" if tone == "good" else "plain"))
    else:
        blocks.append(
            Paragraph(
                "ctrkit looked once, so it cannot tell whether this makes progress; `--wait 30s` "
                "looks twice.",
                "dim",
            )
        )
    if cause is not None and not progressing:
        label = "why" if movement is not None else "if it hangs"
        rows = [(label, sentence(cause.sentence))]
        if cause.fix:
            rows.append(("what to do", sentence(cause.fix)))
        rows += [("see", reference) for reference in cause.references]
        blocks.append(Facts(tuple(rows)))
    elif not progressing and movement is not None:
        blocks.append(Paragraph("ctrkit cannot see from outside why."))
    return blocks


def _tree_heading(found: Explanation) -> str:
    read = f"Python stacks by {found.read_by}" if found.read_by else "no Python stacks"
    count = len(found.processes)
    whose = "What it waits for" if count == 1 else f"What its {count} processes wait for"
    return f"{whose} ({read})"


def _tree(found: Explanation) -> Facts:
    """A row for each process, with children indented."""
    depth = {found.family.top_pid: 0}
    rows = []
    for process in found.processes:
        depth.setdefault(process.pid, depth.get(process.parent_pid or 0, 0) + 1)
        rows.append(("  " * min(depth[process.pid], 4) + str(process.pid), _row(found, process)))
    return Facts(tuple(rows))


def _row(found: Explanation, process: Process) -> str:
    """`DataLoader worker, sleeping, 210 MB; at rows.py:9 in read; waits for a lock (futex)`."""
    state = [role_words(found, process), process.status]
    if process.rss_bytes:
        state.append(format_bytes(process.rss_bytes))
    place, waits = place_of(process), waiting_words(process)
    if process.is_dead:
        return f"{state[0]}, {waits}"
    parts = [", ".join(state), f"at {place}" if place is not None else "", waits or ""]
    return clean("; ".join(filter(None, parts)), 300)


def role_words(found: Explanation, process: Process) -> str:
    """The part that a process of the tree plays, in words."""
    if process.pid in found.family.ranks:
        return f"rank {found.family.ranks[process.pid]}"
    if process.pid == found.family.main_pid:
        return "main process" if found.scene is not None else "process"
    listed = found.listed.get(process.pid)
    if found.scene is not None:
        role = found.scene.role(process)
        if role is Role.WORKER:
            return "DataLoader worker"
        if role not in (Role.OTHER, Role.MAIN):
            return role.value
        parent = found.listed.get(process.parent_pid or 0)
        same = listed is not None and parent is not None and listed.command == parent.command
        if same and listed is not None and listed.python:
            return "forked process"
    return clean(process.name or "process", 24)


def waiting_words(process: Process) -> str | None:
    """What its main thread waits for, or what it does instead."""
    if process.is_dead:
        code = process.exit_code
        return "has ended" if code is None else f"has ended with exit code {code}"
    if process.is_burning:
        return f"burns {process.cores or 0:.1f} cores"
    return kernel_wait(process)


def _stacks(found: Explanation) -> tuple[Block, ...]:
    """The stacks of the guilty process, with its threads in user code, then of the main process."""
    blocks: list[Block] = []
    guilty = found.cause.guilty_pid if found.cause is not None else None
    wanted = dict.fromkeys(filter(None, (guilty, found.family.main_pid)))
    by_pid = {one.pid: one for one in found.processes}
    for pid in wanted:
        process = by_pid.get(pid)
        if process is None or not process.stack:
            continue
        who = f"{role_words(found, process)} {pid}"
        blocks += _thread_words(found, who, process.stack)
        if pid == guilty:
            others = [one for one in process.threads[:-1] if user_frame(one)]
            for thread in others[:_MAX_THREADS]:
                blocks += _thread_words(found, f"another thread of {who}", thread)
    return tuple(blocks)


def _thread_words(found: Explanation, who: str, thread: Thread) -> list[Block]:
    lines = [_frame_words(found, frame) for frame in thread[:_MAX_FRAMES]]
    left = len(thread) - _MAX_FRAMES
    lines += [f"... {left} more"] if left > 0 else []
    return [Paragraph(f"{who}:"), Code(tuple(lines), "text")]


def _frame_words(found: Explanation, frame: Frame) -> str:
    mark = ">" if is_users(frame) else "-"
    file = _LIBRARIES.sub("", frame.file)
    words = clean(f"{mark} {file}:{frame.line} in {frame.function}", 200)
    source = found.scene.source(frame) if found.scene is not None else ""
    return f"{words}: {clean(source)}" if source else words


def _missing(found: Explanation) -> Section:
    assert found.missing is not None
    text = f"ctrkit cannot name the line without Python stacks: {clean(found.missing.what)}."
    blocks: list[Block] = [Paragraph(text)]
    if found.missing.commands:
        one = len(found.missing.commands) == 1
        which = "This command gives" if one else "Any one of these commands gives"
        blocks.append(Paragraph(f"{which} them:"))
        blocks.append(Code(found.missing.commands, "sh"))
    return Section("What is missing", tuple(blocks))


def _command_words(found: Explanation, pid: int) -> str:
    listed = found.listed.get(pid)
    words = " ".join(without_secrets(listed.command)) if listed is not None else ""
    return clean(words, _MAX_WORDS) or "?"
