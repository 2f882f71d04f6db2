"""What the author of a workload imports. Imports torch only when it is needed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ctrkit.core.config import Cell, RunSizes
from ctrkit.core.plugins import DataFacts, KnownEpoch, Metric, Plugin

if TYPE_CHECKING:
    from ctrkit.child.workloads.iterable_loader import IterableLoader
    from ctrkit.child.workloads.protocol import EpochLoader, Task, Workload

__all__ = [
    "Cell",
    "DataFacts",
    "EpochLoader",
    "IterableLoader",
    "KnownEpoch",
    "Metric",
    "Plugin",
    "RunSizes",
    "Task",
    "Workload",
]

#: the child's parts, and their modules
_OF_CHILD = {
    "IterableLoader": "ctrkit.child.workloads.custom",
    "EpochLoader": "ctrkit.child.workloads.protocol",
    "Task": "ctrkit.child.workloads.protocol",
    "Workload": "ctrkit.child.workloads.protocol",
}


def __getattr__(name: str) -> Any:
    """Import the child's parts when they are first used."""
    if name not in _OF_CHILD:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(_OF_CHILD[name]), name)
