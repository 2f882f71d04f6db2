"""Shows what a probe found for a script: speed against as written, sameness, the change."""

from __future__ import annotations

from collections.abc import Sequence

from ctrkit.core.config import ScriptSpec
from ctrkit.core.records import Finding, Recommendation
from ctrkit.core.script_records import ScriptAnswer
from ctrkit.report.blocks import Block, Bullets, Code, Paragraph, Section
from ctrkit.report.shell_lines import command_lines
from ctrkit.report.words import cell_words, clean, factor_writer, percent, plural

_MOST_FILES = 12
_EXPERIMENT = {
    "same batches": "the same batches in the same order as the script as written, as far as seen",
    "same rows, other order": "the same rows in another order than the script as written",
    "other content": "the same rows in the same order, but their content differs: random "
    "augmentation or masking now runs in the workers, with other random numbers",
    "cannot tell": "perhaps other batches than the script as written: ctrkit could not tell",
}


def script_rows(
    answer: ScriptAnswer, recommendation: Recommendation, data_wait_share: float | None = None
) -> list[tuple[str, str]]:
    """Rows of the answer; `data_wait_share` is of the script as written, None if unknown."""
    rows = []
    if recommendation.cell != answer.as_written:
        wait = percent(data_wait_share)
        waits = f"; a step waits for data {wait} of its time" if wait else ""
        rows.append(("as written", cell_words(answer.as_written) + waits))
    if answer.faster_x is not None:
        rows.append(("gain", gain_words(answer)))
    if answer.experiment and recommendation.cell != answer.as_written:
        why = f" ({clean(answer.experiment_why)})" if answer.experiment_why else ""
        rows.append(("trains on", _EXPERIMENT.get(answer.experiment, answer.experiment) + why))
    return rows


def is_said_by_rows(finding: Finding) -> bool:
    """Whether the row `trains on` already says this."""
    return finding.stage == "experiment" and finding.text.startswith("this configuration ")


def gain_words(answer: ScriptAnswer) -> str:
    """`2.31x as fast as the script as written (2.02 .. 2.64)`."""
    if answer.faster_x is None:
        return ""
    low, high = answer.faster_x_low, answer.faster_x_high
    write = factor_writer(answer.faster_x, low, high, decimals=2)
    words = f"{write(answer.faster_x)}x as fast as the script as written"
    if low is not None and high is not None:
        words += f" ({write(low)} .. {write(high)})"
    return words


def script_sections(
    script: ScriptSpec, answer: ScriptAnswer, config_file: str, *, changed: bool
) -> list[Section]:
    """How to run the script with the answer, what to change in it, and files that trials left.

    Args:
        script: the script.
        answer: what the recommendation means for it.
        config_file: the recommendation's file, as a path to paste.
        changed: whether something other than as written is recommended.
    """
    said = "Run the unchanged script under ctrkit:" if changed else (
        "Run it as it is; ctrkit can watch it and account for its time:"
    )  # fmt: skip
    supervised = run_command(script, answer, config_file, changed=changed)
    blocks: list[Block] = [Paragraph(said), Code(tuple(command_lines(supervised)), "sh")]
    if changed and answer.command != script.command:
        blocks += [
            Paragraph("Or use its own flags:"),
            Code(tuple(command_lines([*_environment(script), *answer.command])), "sh"),
        ]
    if answer.change:
        lines = tuple(_diff_line(line) for line in answer.change.splitlines())
        blocks += [Paragraph("Or change the script:"), Code(lines, "diff")]
    elif changed and answer.change_words:
        blocks.append(Paragraph(f"In the script: {clean(answer.change_words)}."))
    return [Section("Use it", tuple(blocks)), *_files(answer)]


def run_command(
    script: ScriptSpec, answer: ScriptAnswer, config_file: str, *, changed: bool
) -> list[str]:
    """The words of `ctrkit train` for the script as recommended; arguments: `script_sections`."""
    kept = _again(script)
    if changed:
        return ["ctrkit", "train", "--config", config_file, *kept, "--", *script.command]
    return ["ctrkit", "train", *kept, "--", *(answer.command or script.command)]


def _diff_line(line: str) -> str:
    """A line of a diff made safe, with its mark and indentation kept."""
    mark, text = line[:1], line[1:]
    indent = text[: len(text) - len(text.lstrip(" \t"))].expandtabs()
    return f"{mark}{indent}{clean(text)}"


def _again(script: ScriptSpec) -> list[str]:
    """The options of the probe that a run must repeat, or it would be another one."""
    words = [word for pair in script.environment.items() for word in ("--env", "=".join(pair))]
    return words + (["--epochs", str(script.epochs)] if script.epochs is not None else [])


def _environment(script: ScriptSpec) -> list[str]:
    """`env KEY=VALUE` before a command, if variables were given."""
    words = ["=".join(pair) for pair in script.environment.items()]
    return ["env", *words] if words else []


def _files(answer: ScriptAnswer) -> list[Section]:
    """Files that appeared or changed: trials run the real script in its folder.

    It is unknown who wrote a file, since other programs may also work in the folder.
    """
    lines = [*_listed("made", answer.files_made), *_listed("changed", answer.files_changed)]
    if not lines:
        return []
    said = Paragraph(
        "The trials ran the real script in its folder. The script, or another program, wrote there:"
    )
    title = "Files that appeared or changed in the folder while the trials ran"
    return [Section(title, (said, Bullets(tuple(lines))))]


def _listed(what: str, paths: Sequence[str]) -> list[str]:
    shown = [f"{what}: {clean(path, 200)}" for path in paths[:_MOST_FILES]]
    left = len(paths) - len(shown)
    return [*shown, *([f"{what}: {plural(left, 'more file')}"] if left > 0 else [])]
