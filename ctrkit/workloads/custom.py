"""`IterableLoader` under the name that workloads written before 0.2 import."""

from ctrkit.child.workloads.iterable_loader import IterableLoader as IterableLoader
