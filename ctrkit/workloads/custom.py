"""`IterableLoader` under the name that workloads of before 0.2 import."""

from ctrkit.child.workloads.custom import IterableLoader as IterableLoader
