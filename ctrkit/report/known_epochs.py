"""Known first epochs of the original runs, to put a new run's epochs beside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class KnownEpoch:
    """One epoch of a run that was really made; `train_loss` and `val_loss` are as optimised."""

    phase: str
    epoch: int
    train_loss: float
    train_auc: float
    val_loss: float
    val_auc: float
    gate_mean: float


# The workload whose original runs are known, with the figures that were noted down of them: Taobao
# ad data, 1,052,081 training and 225,446 validation rows, batch 2048, on MPS.
KNOWN_TARGET = "mdaf"
KNOWN_EPOCHS = (
    KnownEpoch(
        phase="phase1", epoch=1, train_loss=0.1960, train_auc=0.5410, val_loss=0.1880,
        val_auc=0.5829, gate_mean=0.3003,
    ),
    KnownEpoch(
        phase="phase3", epoch=1, train_loss=0.3799, train_auc=0.5121, val_loss=0.3075,
        val_auc=0.5698, gate_mean=0.1666,
    ),
)  # fmt: skip
KNOWN_NOTE = (
    "Known: first epochs of the original runs on the real Taobao data; other data give other "
    "figures. Losses with different label smoothing are not comparable."
)
