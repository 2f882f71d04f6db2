"""Answers a recorder's questions about a script's process: device, CPU time, reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctrkit.child.recording import family_reads
from ctrkit.child.recording.device_clock import DeviceClock, event_maker
from ctrkit.child.recording.loop_process import LoopProcess
from ctrkit.child.script.cpu import family_cpu_s

if TYPE_CHECKING:
    from ctrkit.child.script.observer import Observer
    from ctrkit.child.script.presence import Owner


class ScriptProcess(LoopProcess):
    """The process in which the observer runs."""

    observer: Observer
    owner: Owner

    def synchronize(self) -> None:
        torch, device = self.observer.torch, self.observer.device
        if device in ("cuda", "xpu"):
            getattr(torch, device).synchronize(self.observer.place)
        elif device == "mps":
            torch.mps.synchronize()

    def device_clock(self) -> DeviceClock:
        observer = self.observer
        return DeviceClock(event_maker(observer.torch, observer.device, observer.place))

    def cpu_s(self) -> float | None:
        return family_cpu_s()

    def counters(self) -> Mapping[str, float]:
        return family_reads.counters()

    def files_in_use(self) -> Mapping[str, Any]:
        return {
            **family_reads.files_in_use(self.owner.folder),
            **family_reads.threads_of_workers(),
        }

    def peak_device_bytes(self) -> int | None:
        """Peak device memory in bytes; None if unknown."""
        if self.observer.device != "cuda":
            return None
        return int(self.observer.torch.cuda.max_memory_allocated(self.observer.place))
