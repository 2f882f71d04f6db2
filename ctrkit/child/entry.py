"""Runs the child process: loads the workload that its spec names, runs it, writes the results.

It is started as `python -m ctrkit.child SPEC.json`, and ends by returning from `main`. Exit codes:
0 the result is complete; 1 the result holds an error; 2 the input is unusable; 130 it was asked to
stop and had nothing to save. If the cell trains in several processes, this one starts them: each
runs this module with the same spec.
"""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrkit.child.sudden_exit import tell_sudden_exits
from ctrkit.core import lifeline, stops
from ctrkit.core.child_files import load_measurement, save_measurement
from ctrkit.core.child_records import ChildError, Inspection, Measurement, WorkerExit
from ctrkit.core.config import ChildSpec, WorkloadSpec, decode, encode
from ctrkit.core.environment import code_versions, fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.core.files import read_json, write_json
from ctrkit.core.imported_files import files_of
from ctrkit.core.progress import ProgressWriter, Stage, rank_folder
from ctrkit.core.registry import is_file_target, plugin_of, source_of, source_version
from ctrkit.core.runs import WARNINGS_FILE
from ctrkit.core.stacks_signal import arm_stacks

if TYPE_CHECKING:
    from ctrkit.child.training.distributed import Ranks
    from ctrkit.child.training.rendezvous import RankGroup
    from ctrkit.child.workloads.protocol import Workload

SETUP_STAGES = (Stage.IMPORT, Stage.DATA, Stage.MODEL)


def main(arguments: list[str]) -> int:
    """Run the spec in the file `arguments[0]`; a rank without arguments gets the spec of rank 0.

    Returns:
        The exit code.
    """
    stops.note_stops()
    try:
        stops.let(stops.Raises.AT_ONCE)
        return _main_of(arguments)
    except stops.Stopped:
        return stops.EXIT_CODE
    finally:
        stops.end()


def _main_of(arguments: list[str]) -> int:
    if arguments:
        spec = decode(ChildSpec, read_json(Path(arguments[0])), arguments[0])
        return _main(spec, arguments[0])
    from ctrkit.child.training.rendezvous import find_ranks

    group = find_ranks({})
    spec = decode(ChildSpec, group.said, "the spec of rank 0")
    if Path(spec.folder).is_dir():
        return _main(spec, "", group)
    # on another machine that folder does not exist, and no supervisor reads it
    with tempfile.TemporaryDirectory(prefix="ctrkit-rank-") as temporary:
        return _main(dataclasses.replace(spec, folder=temporary), "", group)


def _main(spec: ChildSpec, path: str, group: RankGroup | None = None) -> int:
    folder = Path(spec.folder)
    lifeline.end_with_supervisor()
    arm_stacks(folder)
    tell_sudden_exits()
    rank = lifeline.rank_of_environment()
    if spec.cell.nproc > 1 and spec.kind not in ("inspect", "examine"):
        if rank is None:
            return _lead(spec, path)
        spec = _spec_of_rank(spec, rank)
        folder = Path(spec.folder)
    lifeline.share_sockets_folder()
    with ProgressWriter(folder / "progress.bin") as progress:
        code = _run(spec, progress, group)
        # After an error the workers still have to end, which belongs to the shutdown.
        progress.enter(Stage.SHUTDOWN if code else Stage.DONE)
    return code


def _lead(spec: ChildSpec, path: str) -> int:
    """Let the ranks run the spec; the error of the rank that fails first is the child's result."""
    from ctrkit.child.training.rank_launcher import run_ranks

    folder = Path(spec.folder)
    for name in ("measurement.json", "progress.bin"):  # of an earlier launch
        for old in folder.glob(f"rank-*/{name}"):
            old.unlink()
    problem = run_ranks(path, folder, spec.cell.nproc)
    if problem is None:
        return 0
    measured = load_measurement(folder / "measurement.json") or Measurement(kind=spec.kind)
    measured = dataclasses.replace(measured, error=problem)
    save_measurement(folder / "measurement.json", measured)
    return 2 if problem.verdict == "usage" else 1


def _spec_of_rank(spec: ChildSpec, rank: int) -> ChildSpec:
    """Rank 0 writes where the supervisor looks; the others have folders of their own."""
    folder = rank_folder(Path(spec.folder), rank)
    folder.mkdir(exist_ok=True)
    return dataclasses.replace(spec, folder=str(folder))


def _run(spec: ChildSpec, progress: ProgressWriter, group: RankGroup | None) -> int:
    measured = Measurement(kind=spec.kind)
    path = Path(spec.folder) / "measurement.json"

    def save(measurement: Measurement) -> None:
        nonlocal measured
        measured = measurement
        save_measurement(path, measurement)

    try:
        import_libraries(trial=spec.kind != "train")
        import torch

        from ctrkit.child.training.workers import watch_workers
        from ctrkit.child.workloads.load import load_workload

        torch.set_num_threads(spec.cell.threads)
        watch_workers(outlive_stops=spec.kind == "train")
        import_s = time.monotonic() - spec.spawned_at_s

        progress.enter(Stage.DATA)
        workload = load_workload(spec.workload)
        if spec.kind in ("inspect", "examine"):
            save_measurement(Path(spec.folder) / "inspection.json", inspect_here(workload, spec))
            if spec.kind == "examine":
                from ctrkit.child.workloads.examine import examine_workload

                examination = examine_workload(spec, workload)
                write_json(Path(spec.folder) / "examination.json", examination)
        else:
            with _joined(spec, workload, progress, group) as ranks:
                if spec.kind == "train":
                    _train(spec, workload, progress, ranks)
                else:
                    from ctrkit.child.training.trial import run_trial

                    run_trial(spec, workload, progress, save, import_s=import_s)
    except (Exception, SystemExit) as error:
        # torch's handler for dead workers can raise at any bytecode; the result must be saved first
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        problem = child_error(error, progress.stage)
        progress.enter(Stage.SHUTDOWN)
        problem = dataclasses.replace(problem, dead_workers=_dead_workers(error))
        with suppress(OSError):  # on a full disk neither can be written; the exit code still tells
            print(problem.traceback, file=sys.stderr, flush=True)
        with suppress(OSError):
            save_measurement(path, dataclasses.replace(measured, error=problem))
        return 2 if isinstance(error, UsageError) else 1
    return 0


def import_libraries(*, trial: bool = True) -> None:
    """Import torch, and what a trial needs (`trial=True`), before any code of the user's.

    The fork server calls this, too, so that its trials have the modules that a new process would
    have. Imported objects live until the process ends. `gc.freeze` excludes them from garbage
    collection, which would spend half a second on them at each start and end of a process.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        import_module("torch")
        import_module("ctrkit.child.workloads.load")
        if trial:
            import_module("ctrkit.child.training.trial")
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def child_error(error: BaseException, stage: Stage) -> ChildError:
    """An exception in `stage` as the error of a trial, with its verdict."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UsageError):
        verdict = "usage"
    else:  # the supervisor refines this: it can tell lack of memory and dead workers
        verdict = "setup-failed" if stage in SETUP_STAGES else "crashed"
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, UsageError):
        message = f"{type(error).__name__}: {message}"
    return ChildError(verdict=verdict, stage=stage.label, message=message[:500], traceback=text)


def _dead_workers(error: BaseException) -> list[WorkerExit]:
    if "ctrkit.child.training.workers" not in sys.modules:  # it failed before any worker existed
        return []
    from ctrkit.child.training.workers import dead_workers

    return dead_workers(error)


def inspect_here(workload: Workload, spec: ChildSpec) -> Inspection:
    """Inspect devices, torch and the workload, without building loaders or models."""
    import torch

    from ctrkit.child.training.devices import available_devices, device_name, free_device_bytes
    from ctrkit.child.training.own_metrics import check_watch
    from ctrkit.child.workloads.examine import known_needs, running_threads, threaded_libraries
    from ctrkit.child.workloads.protocol import Workload

    devices = available_devices()
    return Inspection(
        devices=devices,
        device_names={device: device_name(device) for device in devices},
        device_memory_bytes={
            device: free for device in devices if (free := free_device_bytes(device)) is not None
        },
        torch_version=str(torch.__version__),
        workload_name=workload.name,
        workload_fingerprint=_fingerprint(workload, spec.workload),
        data_fingerprint=workload.data_fingerprint(),
        axes=list(workload.axes),
        loaders=list(workload.loaders),
        default_batch_size=workload.default_batch_size(),
        has_task=type(workload).make_task is not Workload.make_task,
        sizes=workload.sizes(workload.default_batch_size()),
        watch=check_watch(workload.watch),
        threads=running_threads(),
        threaded_libraries=threaded_libraries(),
        own_defaults=dict(workload.own_defaults),
        needs=known_needs(workload),
    )


def _fingerprint(workload: Workload, spec: WorkloadSpec) -> str:
    """The workload's own fingerprint, with its source and settings.

    A plug-in's workload that defines `fingerprint` itself is taken at its word.
    """
    from ctrkit.child.workloads.protocol import Workload

    source = source_of(spec.target)
    if source is None or not source.is_file():
        return workload.fingerprint()
    own: dict[str, Any] = {"workload": workload.fingerprint()}
    if is_file_target(spec.target):
        own["target"] = spec.target
    elif type(workload).fingerprint is not Workload.fingerprint:
        return workload.fingerprint()
    else:
        free = plugin_of(spec.target).free_settings
        own["settings"] = {k: v for k, v in spec.settings.items() if k not in free}
    files = files_of(source)
    own["text"] = files[0].text if files else ""
    if files[1:]:
        own["imports"] = {os.path.relpath(f.path, source.parent): f.text for f in files[1:]}
    return fingerprint(own)


@contextmanager
def _joined(
    spec: ChildSpec, workload: Workload, progress: ProgressWriter, group: RankGroup | None
) -> Iterator[Ranks]:
    """Within this context the process has joined the other ranks, or trains alone (nproc 1)."""
    from ctrkit.child.training.distributed import ALONE, joined
    from ctrkit.child.training.rendezvous import find_ranks

    if spec.cell.nproc == 1:
        yield ALONE
        return
    if "nproc" not in workload.axes:
        raise UsageError(
            f"--nproc {spec.cell.nproc}: {workload.name} has no parts of a batch for several "
            "processes; take --nproc 1"
        )
    # waiting for the others counts as progress: that wait has a deadline of its own
    group = group or find_ranks(encode(spec), lambda: progress.enter(Stage.DATA))
    folder = os.environ.get(lifeline.FOLDER_VARIABLE)
    stops.let(stops.Raises.NEVER)  # from here on no rank stops without the others
    with joined(spec.cell.device, None if folder is None else Path(folder), group) as ranks:
        yield ranks


def _train(spec: ChildSpec, workload: Workload, progress: ProgressWriter, ranks: Ranks) -> None:
    from ctrkit.child.training.loop import run_training
    from ctrkit.child.training.torch_warnings import TorchWarnings

    assert spec.train is not None, "a train spec has a train plan"
    stops.catch_again(signal.SIGINT)  # the supervisor asks for a stop by SIGINT

    def keep(counts: Mapping[str, int]) -> None:
        with suppress(OSError):
            write_json(Path(spec.folder) / WARNINGS_FILE, dict(counts))

    kept = TorchWarnings(keep)
    try:
        outcome = run_training(
            workload, spec.cell, spec.train, progress, stop_requested=stops.noted,
            code=code_versions(source_version(spec.workload.target)), ranks=ranks,
        )  # fmt: skip
    finally:
        kept.end()
        if kept.counts:
            keep(kept.counts)
    write_json(Path(spec.folder) / "outcome.json", outcome)
