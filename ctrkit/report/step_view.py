"""Shows what a step of the recommended cell consists of, and the work beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ctrkit.core.child_records import STAGES
from ctrkit.core.records import Recommendation, TrialRecord
from ctrkit.core.units import format_bytes, format_duration
from ctrkit.report.blocks import Block, Column, Paragraph, Section, Table
from ctrkit.report.matrix_view import has_figures
from ctrkit.report.mean_launch import mean_launch
from ctrkit.report.words import percent, step_words

#: Stages of the loader; one that reads ahead does them beside the step.
_LOADER_STAGES = ("fetch", "collate", "ipc")
_DATA_WAIT = "data wait"
_BAR_WIDTH = 24
#: Below this share of a step, time beside its stages is no row of its own.
_LEAST_REST = 0.05
#: Above this share of data wait, a step only takes a batch.
_ALL_WAITING = 0.99


def stage_sections(trials: Sequence[TrialRecord], recommendation: Recommendation) -> list[Section]:
    """Sections on the parts of the recommended cell's step, and on the work beside it."""
    cell_id = recommendation.cell.cell_id
    ran = [r for r in trials if r.cell_id == cell_id and has_figures(r)]
    if not ran:
        return []
    record = mean_launch(ran)
    blocks: list[Block] = []
    if record.stage_s:
        blocks.append(_stage_table(_parts_of_step(record)))
        if record.cell.loads_ahead and (made := _beside_words(record)):
            blocks.append(Paragraph(made, "dim"))
    beside = [
        ("start-up", record.startup_s), ("first batch", record.first_batch_s),
        ("warm-up, once, beyond usual steps", record.warm_up_s),
        ("new epoch", record.epoch_restart_s), ("validation", record.validation_s),
        ("metrics", record.metrics_s), ("checkpoint", record.checkpoint_s),
    ]  # fmt: skip
    words = [f"{name} {format_duration(value)}" for name, value in beside if value is not None]
    if record.peak_rss_bytes is not None:
        words.append(f"peak memory {format_bytes(record.peak_rss_bytes)}")
    if record.peak_device_bytes is not None:
        words.append(f"on the device {format_bytes(record.peak_device_bytes)}")
    if words:
        blocks.append(Paragraph("Besides the steps: " + ", ".join(words) + "."))
    return [Section("A step of the recommended configuration", tuple(blocks))] if blocks else []


def _parts_of_step(record: TrialRecord) -> Mapping[str, float]:
    """The parts of a step for the training process, which sum to the whole step.

    A loader that reads ahead works beside the step, so only the wait for it is a part. If no stage
    was timed, the rest of the step is one part.
    """
    step_s, wait = record.step_s, record.data_wait_share
    if step_s is None or wait is None:
        return record.stage_s
    stage_s = dict(record.stage_s)
    if record.cell.loads_ahead:
        own = {stage: s for stage, s in stage_s.items() if stage not in _LOADER_STAGES}
        stage_s = {_DATA_WAIT: step_s * wait, **own}
    told = any(stage in stage_s for stage in ("forward", "backward", "optimizer"))
    if wait > _ALL_WAITING:
        return stage_s
    if told:
        rest_s = step_s - sum(stage_s.values())
        return stage_s if rest_s <= _LEAST_REST * step_s else {**stage_s, "other": rest_s}
    return {**stage_s, "compute": step_s * (1 - wait)}


def _beside_words(record: TrialRecord) -> str:
    """What a loader that reads ahead does beside the step, per batch."""
    stage_s = record.stage_s
    each = [f"{format_duration(stage_s[s])} ({s})" for s in _LOADER_STAGES if s in stage_s]
    if not each:
        return ""
    workers = record.cell.workers
    who = "1 worker prepares" if workers else "a thread prepares"
    if workers > 1:
        who = f"{workers} workers prepare"
    whose = "a worker" if workers > 1 else "it"
    return f"Meanwhile {who} the next batches; {whose} needs {' + '.join(each)} for each."


def _stage_table(stage_s: Mapping[str, float]) -> Table:
    known = [
        (stage, stage_s[stage])
        for stage in (_DATA_WAIT, *STAGES, "compute", "other")
        if stage in stage_s
    ]
    whole_s = sum(value for _, value in known)
    rows = []
    for stage, value in known:
        share = value / whole_s if whole_s > 0 else 0.0
        bar = "█" * round(share * _BAR_WIDTH)
        rows.append((stage, step_words(value, None, None), percent(share), bar))
    columns = (
        Column("stage", right=False), Column("time"), Column("share"), Column("", right=False),
    )  # fmt: skip
    return Table(columns, tuple(rows))
