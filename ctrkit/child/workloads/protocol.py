"""The protocol of a workload: what ctrkit needs of a training loop to probe and train it.

A `Workload` makes loaders and a `Task` for a cell, and the loop in `ctrkit.child.training` drives
them. The rooms probe, supervise, measure and report know nothing else about a workload.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ctrkit.core.child_records import LoaderNeeds
from ctrkit.core.config import Cell, RunSizes, Watch

Batch = Any
"""A batch as the loader yields it: a tensor, or dicts, lists and tuples of tensors."""

Mark = Callable[[str], None]
"""`mark("forward")` means: the stage of this name has just ended."""


class EpochLoader(Protocol):
    """Batches of one split, the same for every cell with the same batch size.

    The loop calls `iter()` once per epoch. Before that, `set_epoch` chooses the order of the epoch,
    and `first_batch`, the batch to begin at: earlier batches are not read. If the loader has a true
    attribute `skips_unread`, a probe relies on that to time batches at other places.
    """

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def close(self) -> None:
        """End workers and threads. Called once, also after an error."""
        ...


class Task(ABC):
    """A model and its optimizer on a device, with the metrics of the current epoch."""

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027 - an empty default is meant
        """Training of epoch 1, 2, ... begins: reset whatever is kept per epoch."""

    @abstractmethod
    def transfer(self, batch: Batch) -> Batch:
        """The batch on this task's device."""

    @abstractmethod
    def train_step(self, batch: Batch, mark: Mark) -> None:
        """One training step; call `mark` after its stages `forward`, `backward` and `optimizer`."""

    def begin_validation(self) -> None:  # noqa: B027 - an empty default is meant
        """Validation begins: reset whatever is kept per validation."""

    def validation_step(self, batch: Batch) -> None:  # noqa: B027 - an empty default is meant
        """Score one validation batch."""

    def recent_loss(self) -> float | None:
        """A training loss for the display. It may be some steps old, and must not slow the step."""
        return None

    def losses(self) -> list[float]:
        """Training loss of each step of the epoch so far; empty if not kept. May be slow."""
        return []

    def notes(self) -> list[str]:
        """Messages, a line each, on settings that could not be followed as asked."""
        return []

    def metrics(self) -> dict[str, float]:
        """The metrics of the epoch trained and validated last, by name.

        Each becomes a column of `epochs.csv`; `learning_rate` goes into the column of that name.
        """
        return {}

    def synchronize(self) -> None:  # noqa: B027 - an empty default is meant
        """Wait until the device has done all queued work."""

    def peak_device_bytes(self) -> int | None:
        """Peak device memory in bytes; None if unknown."""
        return None

    def checksum(self) -> int:
        """An integer that is equal on all ranks as long as their parameters are, bit for bit."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Everything that training needs to continue: tensors, plain values and containers.

        NumPy values and the standard library's containers come back as they were. A value that
        cannot be saved and loaded again is refused, with its place, when training begins. All ranks
        call this together. Only rank 0's state is saved, and every rank loads that.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Continue from a `state_dict`."""


class Workload(ABC):
    """One training run, in any configuration of the machine."""

    name: str = "workload"
    #: The axes of a cell that this workload heeds; each other axis keeps one value in the matrix.
    #: Name `nproc` only if each rank loads its part of a batch and gradients are summed, with
    #: `ctrkit.child.training.distributed`.
    axes: tuple[str, ...] = ("device", "workers", "start_method", "prefetch", "batch_size")
    #: The names of its loaders; a workload that makes its own loader has only `custom`.
    loaders: tuple[str, ...] = ("custom",)
    #: The metric that decides on best.pt and patience, such as `("val_accuracy", "max")`. None:
    #: there is no best.pt, and no run ends early.
    watch: Watch | None = None
    #: The first columns of `epochs.csv`, if their order is fixed; other metrics follow them.
    epoch_columns: tuple[str, ...] = ()

    @property
    def own_defaults(self) -> Mapping[str, Any]:
        """The values that it uses for axes which the user does not name."""
        return {}

    def fingerprint(self) -> str:
        """A text that stays equal as long as model and phase do; data has its own fingerprint."""
        return self.name

    def settings(self) -> dict[str, Any]:
        """The plain values that `fingerprint` is made of, by name, for messages on differences."""
        return {}

    def data_fingerprint(self) -> str:
        """A text that stays equal as long as the data does."""
        return ""

    def default_batch_size(self) -> int:
        """Batch size of the real run."""
        return 2048

    @abstractmethod
    def sizes(self, batch_size: int) -> RunSizes:
        """Epochs, rows and batches of the real run at this batch size."""

    def loader_needs(self) -> LoaderNeeds:
        """What is known about a batch before it is made: bytes per row, number of tensors."""
        return LoaderNeeds()

    @abstractmethod
    def train_loader(self, cell: Cell) -> EpochLoader:
        """The training batches of this cell."""

    def validation_loader(self, cell: Cell) -> EpochLoader | None:
        """The validation batches; None if there is no validation."""
        return None

    def make_task(self, cell: Cell) -> Task | None:
        """Model and optimizer on `cell.device`; None if a step only takes a batch."""
        return None
