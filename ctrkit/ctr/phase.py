"""The settings of MDAF: what is trained and how, and which values each setting can have."""

from __future__ import annotations

from dataclasses import dataclass, field

from ctrkit.core.conditions import parse_condition
from ctrkit.core.config import Watch
from ctrkit.core.errors import UsageError

#: the columns of `epochs.csv`
EPOCH_COLUMNS = (
    "epoch", "train_loss", "train_auc", "train_logloss", "val_loss", "val_auc", "val_logloss",
    "train_val_gap", "gate_mean", "gate_std", "learning_rate", "rows", "wall_s",
    "train_gauc", "val_gauc",
)  # fmt: skip
#: the metric that decides on best.pt and patience
WATCH: Watch = ("val_auc", "max")
MODELS = ("mamba", "bst")
SCHEDULES = ("constant", "warmup-cosine")
SHUFFLES = ("full", "block")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What to train and how: the flat keys of a phase file.

    Attributes:
        weight_decay: L2 as Adam adds it to the gradient.
        label_smoothing: e maps a label y to y (1 - e) + e / 2.
        patience: epochs without a better validation AUC before the run ends.
        warmup_epochs: epochs of linear warm-up, by step.
        history_length: the most events of a history.
        shuffle: `full`: all rows of an epoch; `block`: by blocks of `block_rows` rows, for data
            larger than memory.
        criteria: the only table: conditions (`parse_condition`) per class, the best class first, by
            which a finished run is classified. It does not change the experiment.
    """

    name: str = "phase3"
    model: str = "mamba"
    epochs: int = 15
    batch_size: int = 2048
    seed: int = 42
    patience: int = 5
    dropout: float = 0.3
    weight_decay: float = 5e-5
    label_smoothing: float = 0.1
    grad_clip: float = 1.0
    lr: float = 3e-4
    schedule: str = "warmup-cosine"
    warmup_epochs: float = 2
    history_length: int = 50
    shuffle: str = "full"
    block_rows: int = 65_536
    criteria: dict[str, dict[str, str]] = field(default_factory=dict)


def check_phase(phase: Phase, where: str) -> None:
    """Check that every value can be trained with.

    Raises:
        UsageError: one cannot; the message begins with `where`.
    """
    for name, value, known in (
        ("model", phase.model, MODELS),
        ("schedule", phase.schedule, SCHEDULES),
        ("shuffle", phase.shuffle, SHUFFLES),
    ):
        if value not in known:
            raise UsageError(f"{where}: {name} is '{value}'; known are {', '.join(known)}")
    for name, number, low, high in (
        ("epochs", phase.epochs, 1, 100_000),
        ("batch_size", phase.batch_size, 1, 2**24),
        ("patience", phase.patience, 1, 100_000),
        ("dropout", phase.dropout, 0, 0.999),
        ("weight_decay", phase.weight_decay, 0, 1e6),
        ("label_smoothing", phase.label_smoothing, 0, 1),
        ("grad_clip", phase.grad_clip, 1e-12, 1e12),
        ("lr", phase.lr, 0, 1e3),
        ("warmup_epochs", phase.warmup_epochs, 0, 100_000),
        ("history_length", phase.history_length, 1, 4096),
        ("block_rows", phase.block_rows, 1, 2**31),
    ):
        if not low <= number <= high:
            raise UsageError(f"{where}: {name} is {number}, but must lie in {low} .. {high}")
    for tier, conditions in phase.criteria.items():
        for name, text in conditions.items():
            try:
                parse_condition(text)
            except UsageError as error:
                raise UsageError(f"{where}: criteria.{tier}.{name}: {error}") from None
