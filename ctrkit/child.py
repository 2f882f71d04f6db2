"""The child process: loads the workload its spec names, runs the loop, writes the results.

Started as `python -m ctrkit.child SPEC.json`. It ends by returning from `main`: exit code 0 when
its result is complete, 1 when an error is written into the result, 2 when the input is unusable.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrkit import lifeline
from ctrkit.config import ChildSpec, decode
from ctrkit.environment import code_versions, fingerprint
from ctrkit.errors import UsageError
from ctrkit.files import read_json, write_json
from ctrkit.progress import ProgressWriter, Stage
from ctrkit.records import ChildError, Inspection, Measurement, WorkerExit
from ctrkit.runs import save_measurement

if TYPE_CHECKING:
    from ctrkit.workloads.protocol import Workload

SETUP_STAGES = (Stage.IMPORT, Stage.DATA, Stage.MODEL)

_stop_requested = False


def main(arguments: list[str]) -> int:
    """Run the spec in the file `arguments[0]`."""
    spec = decode(ChildSpec, read_json(Path(arguments[0])), arguments[0])
    folder = Path(spec.folder)
    lifeline.end_with_supervisor()
    lifeline.arm_stacks(folder)
    lifeline.share_sockets_folder()
    with ProgressWriter(folder / "progress.bin") as progress:
        code = _run(spec, progress)
        # After an error the workers have yet to be wound up: that is a shutdown still.
        progress.enter(Stage.SHUTDOWN if code else Stage.DONE)
    return code


def _run(spec: ChildSpec, progress: ProgressWriter) -> int:
    measured = Measurement(kind=spec.kind)
    path = Path(spec.folder) / "measurement.json"

    def save(measurement: Measurement) -> None:
        nonlocal measured
        measured = measurement
        save_measurement(path, measurement)

    try:
        import torch

        torch.set_num_threads(spec.cell.threads)
        from ctrkit.training.workers import watch_workers
        from ctrkit.workloads.load import load_workload

        watch_workers()

        progress.enter(Stage.DATA)
        workload = load_workload(spec.workload)
        if spec.kind in ("inspect", "examine"):
            save_measurement(Path(spec.folder) / "inspection.json", inspect_here(workload, spec))
            if spec.kind == "examine":
                from ctrkit.workloads.examine import examine_workload

                examination = examine_workload(spec, workload)
                write_json(Path(spec.folder) / "examination.json", examination)
        elif spec.kind == "train":
            _train(spec, workload, progress)
        else:
            from ctrkit.training.trial import run_trial

            run_trial(spec, workload, progress, save)
    except Exception as error:
        # torch's handler of a dead worker raises at any bytecode: not while the result is saved
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        problem = child_error(error, progress.stage)
        progress.enter(Stage.SHUTDOWN)
        problem = dataclasses.replace(problem, dead_workers=_dead_workers(error))
        print(problem.traceback, file=sys.stderr, flush=True)
        save_measurement(path, dataclasses.replace(measured, error=problem))
        return 2 if isinstance(error, UsageError) else 1
    return 0


def child_error(error: BaseException, stage: Stage) -> ChildError:
    """What an exception in `stage` means for the trial, as a verdict."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UsageError):
        verdict = "usage"
    else:  # the supervisor looks closer: it tells memory and workers from other reasons
        verdict = "setup-failed" if stage in SETUP_STAGES else "crashed"
    text = "".join(traceback.format_exception(error))
    if not isinstance(error, UsageError):
        message = f"{type(error).__name__}: {message}"
    return ChildError(verdict=verdict, stage=stage.label, message=message[:500], traceback=text)


def _dead_workers(error: Exception) -> list[WorkerExit]:
    if "ctrkit.training.workers" not in sys.modules:  # it failed before there could be any
        return []
    from ctrkit.training.workers import dead_workers

    return dead_workers(error)


def inspect_here(workload: Workload, spec: ChildSpec) -> Inspection:
    """Devices, torch and the workload, before anything is built."""
    import torch

    from ctrkit.training.devices import available_devices, device_name
    from ctrkit.workloads.examine import known_needs
    from ctrkit.workloads.protocol import Workload

    devices = available_devices()
    return Inspection(
        devices=devices,
        device_names={device: device_name(device) for device in devices},
        torch_version=str(torch.__version__),
        workload_name=workload.name,
        workload_fingerprint=_fingerprint(workload, spec.workload.target),
        data_fingerprint=workload.data_fingerprint(),
        axes=list(workload.axes),
        loaders=list(workload.loaders),
        default_batch_size=workload.default_batch_size(),
        has_task=type(workload).make_task is not Workload.make_task,
        sizes=workload.sizes(workload.default_batch_size()),
        needs=known_needs(workload),
    )


def _fingerprint(workload: Workload, target: str) -> str:
    """The workload's own fingerprint; of a user's file its text as well."""
    if target == "mdaf":
        return workload.fingerprint()
    text = Path(target.rpartition(":")[0]).read_text("utf-8", errors="replace")
    return fingerprint({"workload": workload.fingerprint(), "target": target, "text": text})


def _train(spec: ChildSpec, workload: Workload, progress: ProgressWriter) -> None:
    from ctrkit.training.loop import run_training

    assert spec.train is not None, "a train spec has a train plan"
    signal.signal(signal.SIGINT, _request_stop)
    outcome = run_training(
        workload, spec.cell, spec.train, progress, stop_requested=lambda: _stop_requested,
        code=code_versions(spec.workload.target),
    )  # fmt: skip
    write_json(Path(spec.folder) / "outcome.json", outcome)


def _request_stop(number: int, frame: Any) -> None:
    global _stop_requested
    _stop_requested = True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
