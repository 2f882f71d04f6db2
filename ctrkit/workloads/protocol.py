"""`Task` and `Workload` under the names that workloads written before 0.2 import."""

from ctrkit.child.workloads.protocol import Task as Task
from ctrkit.child.workloads.protocol import Workload as Workload
