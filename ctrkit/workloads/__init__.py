"""What the author of a workload imports; the code lives in `ctrkit.child.workloads`."""

from ctrkit.child.workloads.custom import IterableLoader
from ctrkit.child.workloads.protocol import EpochLoader, Task, Workload
from ctrkit.core.config import Cell, RunSizes

__all__ = ["Cell", "EpochLoader", "IterableLoader", "RunSizes", "Task", "Workload"]
