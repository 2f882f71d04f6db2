"""`Cell` and `RunSizes` under the names that workloads written before 0.2 import."""

from ctrkit.core.config import Cell as Cell
from ctrkit.core.config import RunSizes as RunSizes
