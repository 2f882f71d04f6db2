"""What ctrkit knows of the workload before anything is trained; it imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ctrkit.workloads import Metric, Plugin

if TYPE_CHECKING:
    from circles_workload.training import Circles


@dataclass(frozen=True, kw_only=True)
class Settings:
    """`--set KEY=VALUE` changes one of these."""

    epochs: int = 5
    patience: int = 2
    rows: int = 2000
    batch_size: int = 100
    lr: float = 0.05


class CirclesPlugin(Plugin):
    """Its settings, its metrics, and which of them is watched."""

    settings_type = Settings
    watch = ("val_accuracy", "max")
    metrics = (
        Metric(name="val_accuracy", label="accuracy", live="accuracy", decimals=3),
        Metric(name="train_loss", label="train loss", live="loss"),
    )

    def workload(self, settings: Settings, data: str | None) -> Circles:
        """The workload itself: only a child process calls this."""
        from circles_workload.training import Circles

        return Circles(settings)
