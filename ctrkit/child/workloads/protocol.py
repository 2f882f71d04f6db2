"""The protocol of a workload: what ctrkit needs of a training loop to probe and train it.

A `Workload` makes loaders and a `Task` for a cell; the loop in `ctrkit.child.training` drives them.
Nothing in probe, supervise, measure or report knows more of a workload than this file.
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
"""`mark("forward")` says that the stage of this name has just ended."""


class EpochLoader(Protocol):
    """Batches of one split, the same for every cell of equal batch size.

    `iter()` once per epoch. `set_epoch` chooses the order of the next `iter()`, and where in it to
    begin: batches before `first_batch` are left out without being read. A probe relies on that, to
    time batches of other places, where the loader has an attribute `skips_unread` that is true.
    """

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def close(self) -> None:
        """End workers and threads. Called once, also after an error."""
        ...


class Task(ABC):
    """A model and its optimiser on a device, with the metrics of the epoch in hand."""

    def begin_epoch(self, epoch: int) -> None:  # noqa: B027 - an empty default is meant
        """Training of epoch 1, 2, ... begins: reset what is kept per epoch."""

    @abstractmethod
    def transfer(self, batch: Batch) -> Batch:
        """The batch on this task's device."""

    @abstractmethod
    def train_step(self, batch: Batch, mark: Mark) -> None:
        """Forward, backward, optimiser; call `mark` with `forward`, `backward`, `optimizer`."""

    def begin_validation(self) -> None:  # noqa: B027 - an empty default is meant
        """Validation begins: reset what is kept of it."""

    def validation_step(self, batch: Batch) -> None:  # noqa: B027 - an empty default is meant
        """Score one validation batch."""

    def recent_loss(self) -> float | None:
        """Training loss for the display; may be some steps old, must not slow the step."""
        return None

    def losses(self) -> list[float]:
        """Training loss of each step of the epoch so far; empty where not kept. May be slow."""
        return []

    def notes(self) -> list[str]:
        """What is not as it was asked for, in words: a line each."""
        return []

    def metrics(self) -> dict[str, float]:
        """Of the epoch trained and validated last, by names of one's own: columns of `epochs.csv`.

        `learning_rate` goes into the column of that name.
        """
        return {}

    def synchronize(self) -> None:  # noqa: B027 - an empty default is meant
        """Wait until the device has done all that was asked of it."""

    def peak_device_bytes(self) -> int | None:
        """Most device memory that was in use at once; None where it cannot be known."""
        return None

    def checksum(self) -> int:
        """Equal on all ranks as long as their parameters are, bit for bit."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """All that training needs to go on from here: tensors, plain values and containers.

        NumPy values and the standard library's containers come back as they were; what cannot be
        saved so that it can be loaded again is refused by its place when training begins.
        All ranks call it together; only rank 0's is kept, and every rank loads that.
        """
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on from a `state_dict`."""


class Workload(ABC):
    """One training run, in any configuration of the machine."""

    name: str = "workload"
    #: axes of a cell which this workload takes; others keep one value in the matrix. `nproc` only
    #: where each rank loads its part of a batch and gradients are summed, with
    #: `ctrkit.child.training.distributed`
    axes: tuple[str, ...] = ("device", "workers", "start_method", "prefetch", "batch_size")
    #: loaders it knows; `custom` is the one and only of a workload that makes its own
    loaders: tuple[str, ...] = ("custom",)
    #: the metric that decides on best.pt and patience, e.g. `("val_accuracy", "max")`; None: there
    #: is no best.pt, and no run ends early
    watch: Watch | None = None
    #: the first columns of `epochs.csv` where their order is fixed; other metrics follow
    epoch_columns: tuple[str, ...] = ()

    @property
    def own_defaults(self) -> Mapping[str, Any]:
        """The values of axes that it takes where nobody names another."""
        return {}

    def fingerprint(self) -> str:
        """Equal as long as model and phase are the same; data has a fingerprint of its own."""
        return self.name

    def settings(self) -> dict[str, Any]:
        """What `fingerprint` is made of, by name: plain values, to say what differs."""
        return {}

    def data_fingerprint(self) -> str:
        """Equal as long as the data are the same."""
        return ""

    def default_batch_size(self) -> int:
        """Batch size of the real run."""
        return 2048

    @abstractmethod
    def sizes(self, batch_size: int) -> RunSizes:
        """Epochs, rows and batches of the real run at this batch size."""

    def loader_needs(self) -> LoaderNeeds:
        """What is known of a batch before there is one: its bytes per row, its tensors."""
        return LoaderNeeds()

    @abstractmethod
    def train_loader(self, cell: Cell) -> EpochLoader:
        """The training batches of this cell."""

    def validation_loader(self, cell: Cell) -> EpochLoader | None:
        """The validation batches, None where there is no validation."""
        return None

    def make_task(self, cell: Cell) -> Task | None:
        """Model and optimiser on `cell.device`; None: a step is only taking a batch."""
        return None
