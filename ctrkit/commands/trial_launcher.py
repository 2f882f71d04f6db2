"""Launches the trials of a probe, each in a supervised child, and keeps their stamps."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctrkit.core.child_files import load_measurement, load_seen
from ctrkit.core.child_records import Measurement
from ctrkit.core.config import Cell, ChildSpec, WorkloadSpec
from ctrkit.core.files import write_table
from ctrkit.core.memory_points import MemoryPoint
from ctrkit.core.progress import Stage
from ctrkit.core.runs import RunFolder
from ctrkit.core.script_records import ScriptSeen
from ctrkit.core.trial_tables import stamps_table
from ctrkit.measure.warm_up import without_warm_up
from ctrkit.probe.trials import TrialRequest, TrialResult
from ctrkit.report.live_probe import ProbeDisplay
from ctrkit.report.silence import SilenceNotice
from ctrkit.supervise.forkserver import ForkServer
from ctrkit.supervise.other_load import LoadLook, look_at_load, other_cores_by_epoch
from ctrkit.supervise.sampler import private_bytes
from ctrkit.supervise.stop import StopRequest
from ctrkit.supervise.supervisor import Outcome, run_child
from ctrkit.supervise.time_limits import StageTimes, TimeLimits
from ctrkit.supervise.watching import Tick

_PAUSE_S = 1.0
_MEMORY_EVERY_S = 0.5
#: assumed share of the import time that forking saves, before a trial was forked
_LIKELY_SAVED = 0.9


class TrialLauncher:
    """The `launch(request, deadline_s)` of a search, with real processes."""

    def __init__(
        self,
        run: RunFolder,
        workload: WorkloadSpec,
        time_limits: TimeLimits,
        stop: StopRequest,
        display: ProbeDisplay,
        server: ForkServer | None = None,
    ) -> None:
        self.run, self.workload, self.time_limits = run, workload, time_limits
        self.stop, self.display = stop, display
        self.server = server
        self.launches = 0
        #: seconds that the first process started anew took to import torch
        self.import_s: float | None = None
        self._saved_s = 0.0
        #: longest silences of the stages in the trials so far
        self.times = StageTimes()
        #: axes of a cell that the observer changes inside a script
        self.put_in: Callable[[Cell], list[str]] = lambda cell: []
        self._silence = SilenceNotice()
        self._stamps: dict[str, list[Any]] = {}
        self._memory: list[MemoryPoint] = []  # of the current trial
        self._load: list[LoadLook] = []  # likewise

    def __call__(self, request: TrialRequest, deadline_s: float) -> TrialResult:
        """Run a trial to its end, its verdict or its deadline."""
        self.launches += 1
        # before a script is known, its cell is made up, and only the label says what runs
        what = request.label.replace(" ", "-") or request.cell.cell_id
        name = f"{self.launches:03d}-{request.kind}-{what}"
        folder = self.run.path / "trials" / name
        self._memory, self._load = [], []
        self.display.started(request.label or request.cell, request.kind)
        server = self._server(request)
        outcome = run_child(
            ChildSpec(
                kind=request.kind,
                folder=str(folder),
                workload=self.workload,
                cell=request.cell,
                windows=request.windows,
                put_in=self.put_in(request.cell),
            ),
            time_limits=self.time_limits.of_cell(request.cell),
            evidence_folder=self.run.path / "evidence" / name,
            deadline_s=deadline_s,
            on_tick=self._tick,
            stop=self.stop,
            times=self.times,
            server=server,
        )
        self.times = self.times.seen(outcome.longest_s)
        measurement = load_measurement(folder / "measurement.json")
        saved_s = 0.0
        if measurement is not None:
            measurement, saved_s = self._as_started_anew(measurement, outcome)
            self._keep_stamps(name, request, measurement)
            measurement = dataclasses.replace(
                without_warm_up(measurement), other_cores=other_cores_by_epoch(self._load)
            )
        seen = load_seen(folder / "script.json") if self.workload.script is not None else None
        shutil.rmtree(folder, ignore_errors=True)
        return dataclasses.replace(self._result(outcome, measurement, seen), saved_s=saved_s)

    def _server(self, request: TrialRequest) -> ForkServer | None:
        """The server that may fork this trial; None to start it anew.

        A trial started anew shows a run's start-up. Trials that a projection rests on are also
        started anew, since forks share the layout of their memory. The server imports torch before
        the first trial, not while it runs.
        """
        if self.server is None or not self.server.prepare():
            return None
        return None if self.import_s is None or request.confirms else self.server

    def _as_started_anew(
        self, measurement: Measurement, outcome: Outcome
    ) -> tuple[Measurement, float]:
        """The measurement with the start-up of a real run, and the seconds that forking saves."""
        import_s, startup_s = measurement.import_s, measurement.startup_s
        if import_s is None:
            return measurement, self._saved_s
        if not outcome.forked:
            if self.import_s is None and self.server is not None and not self.server.problem:
                self._saved_s = _LIKELY_SAVED * import_s
            self.import_s = self.import_s or import_s
        elif self.import_s is not None:
            self._saved_s = max(0.0, self.import_s - import_s)
            if startup_s is not None:
                startup_s += self._saved_s
                measurement = dataclasses.replace(measurement, startup_s=startup_s)
        if self.server is not None and self.server.problem:  # the server has stopped forking
            self._saved_s = 0.0
        return measurement, self._saved_s

    def _tick(self, tick: Tick) -> None:
        self.display.tick(tick.progress)
        if point := memory_point(tick, self._memory[-1].at_s if self._memory else 0.0):
            self._memory.append(point)
        if look := look_at_load(tick, self._load[-1].at_s if self._load else 0.0):
            self._load.append(look)
        if line := self._silence(tick):
            self.display.message(line)

    def _result(
        self, outcome: Outcome, measurement: Measurement | None, seen: ScriptSeen | None
    ) -> TrialResult:
        evidence = outcome.evidence
        return TrialResult(
            verdict=outcome.verdict,
            reason=outcome.reason,
            measurement=measurement,
            wall_s=outcome.wall_s,
            peak_rss_bytes=outcome.peak_rss_bytes,
            evidence=None if evidence is None else str(Path(evidence).relative_to(self.run.path)),
            interrupted=outcome.interrupted,
            exit_code=outcome.exit_code,
            seen=seen,
            gpu_use=outcome.gpu_use,
            memory=tuple(self._memory),
            stage=outcome.failed_stage,
            misused=outcome.error is not None and outcome.error.verdict == "usage",
            flags=tuple(
                flag
                for flag, lasted_s in (
                    ("host slept", outcome.host_slept_s),
                    ("was stopped", outcome.stopped_s),
                )
                if lasted_s >= _PAUSE_S
            ),
        )

    def _keep_stamps(self, name: str, request: TrialRequest, measurement: Measurement) -> None:
        columns = dataclasses.asdict(measurement.stamps)
        steps = len(columns["step"])
        if not steps:
            return
        constants = {"trial": name, "cell_id": request.cell.cell_id, "kind": request.kind}
        for column, value in constants.items():
            self._stamps.setdefault(column, []).extend([value] * steps)
        for column, values in columns.items():
            self._stamps.setdefault(column, []).extend(values or [None] * steps)
        write_table(self.run.path / "stamps.parquet", stamps_table(self._stamps))

    def clean_up(self) -> None:
        """Remove the trials' folders; the run folder's files have what matters."""
        shutil.rmtree(self.run.path / "trials", ignore_errors=True)


def memory_point(tick: Tick, after_s: float) -> MemoryPoint | None:
    """The memory of the tree between steps; None until it is time for another sample."""
    progress = tick.progress
    if tick.sample is None or progress is None or progress.stage is not Stage.STEP:
        return None
    if tick.wall_s - after_s < _MEMORY_EVERY_S:
        return None
    private = private_bytes(process.pid for process in tick.sample.processes)
    if private is None:
        return None
    return MemoryPoint(
        epoch=progress.epoch, step=progress.step, at_s=tick.wall_s, private_bytes=private
    )
