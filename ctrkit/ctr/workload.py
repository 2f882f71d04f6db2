"""The default workload: trains MDAF on impressions with histories, with a phase's settings."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ctrkit.child.training import devices
from ctrkit.child.training.copying import Copier
from ctrkit.child.training.distributed import (
    ALONE,
    Ranks,
    SummedModel,
    checksum,
    current_ranks,
    in_global_order,
)
from ctrkit.child.training.seeding import seed_everything
from ctrkit.child.workloads.protocol import EpochLoader, Mark, Task, Workload
from ctrkit.core.child_records import LoaderNeeds
from ctrkit.core.config import LOADERS, NUMERICS, Cell, RunSizes, encode
from ctrkit.core.environment import fingerprint
from ctrkit.core.errors import UsageError
from ctrkit.ctr.auc import auc
from ctrkit.ctr.data.gather import gather
from ctrkit.ctr.data.loaders import make_loader
from ctrkit.ctr.data.store import Store
from ctrkit.ctr.models import mamba
from ctrkit.ctr.models.mdaf import MDAF, WIDTH, Model
from ctrkit.ctr.models.scan_choice import scan_note
from ctrkit.ctr.phase import EPOCH_COLUMNS, WATCH, Phase
from ctrkit.ctr.training.lazy_adam import Together
from ctrkit.ctr.training.metrics import Scores, grouped_auc, log_loss
from ctrkit.ctr.training.objective import objective
from ctrkit.ctr.training.optimizers import clip_gradients, lr_at, make_optimizer, set_lr

MdafBatch = Mapping[str, Tensor]
Columns = dict[str, NDArray[np.generic]]

#: steps between two readings of the loss on devices where reading waits for the device
_STEPS_PER_LOOK = 50


class MdafWorkload(Workload):
    """MDAF on a store. Loader, workers and device never change the experiment.

    Args:
        data: a store's folder.
        phase: what to train and how; its `epochs` are the horizon of the schedule.

    Raises:
        UsageError: `data` is no store.
    """

    name = "mdaf"
    axes = (
        "device", "loader", "workers", "start_method", "prefetch", "persistent", "pin", "threads",
        "batch_size", "nproc", *NUMERICS,
    )  # fmt: skip
    loaders = LOADERS
    watch = WATCH
    epoch_columns = EPOCH_COLUMNS

    def __init__(self, data: Path, phase: Phase) -> None:
        self.store = Store.open(data)
        self.phase = phase

    def settings(self) -> dict[str, Any]:
        """The phase's keys that change the mathematics of a step.

        `epochs` and `patience` only decide when to end (the task checks a schedule's horizon), and
        `criteria` only judge the result.
        """
        left_out = ("name", "epochs", "patience", "criteria")
        return {key: value for key, value in encode(self.phase).items() if key not in left_out}

    def fingerprint(self) -> str:
        return fingerprint({"workload": self.name, **self.settings()})

    def data_fingerprint(self) -> str:
        return self.store.meta.fingerprint

    def default_batch_size(self) -> int:
        return self.phase.batch_size

    def sizes(self, batch_size: int) -> RunSizes:
        train_rows, validation_rows = (
            self.store.meta.rows[split] for split in ("train", "validation")
        )
        return RunSizes(
            epochs=self.phase.epochs,
            train_rows=train_rows,
            train_batches=-(-train_rows // batch_size),
            validation_rows=validation_rows,
            validation_batches=-(-validation_rows // batch_size),
            patience=self.phase.patience,
        )

    def loader_needs(self) -> LoaderNeeds:
        nothing = np.empty(0, np.int64)
        columns = gather(self.store, nothing, self.phase.history_length).values()
        row_bytes = sum(column.itemsize * math.prod(column.shape[1:]) for column in columns)
        return LoaderNeeds(row_bytes=row_bytes, tensors_per_batch=len(columns))

    def train_loader(self, cell: Cell) -> EpochLoader:
        return make_loader(
            self.store,
            cell,
            split="train",
            seed=self.phase.seed,
            history_length=self.phase.history_length,
            rank=current_ranks().rank,
            ranks=current_ranks().count,
            block_rows=self.phase.block_rows if self.phase.shuffle == "block" else None,
        )

    def validation_loader(self, cell: Cell) -> EpochLoader | None:
        """The validation rows in the store's order; None if the store has none."""
        if not self.store.meta.rows["validation"]:
            return None
        return make_loader(
            self.store,
            cell,
            split="validation",
            seed=self.phase.seed,
            history_length=self.phase.history_length,
            rank=current_ranks().rank,
            ranks=current_ranks().count,
        )

    def make_task(self, cell: Cell) -> MdafTask:
        steps_per_epoch = self.sizes(cell.batch_size).train_batches
        assert steps_per_epoch is not None
        return MdafTask(
            self.store.meta.vocabulary,
            self.phase,
            steps_per_epoch=steps_per_epoch,
            device=torch.device(cell.device),
            pinned=cell.pin,
            ranks=current_ranks(),
            optimizer=cell.optimizer,
            precision=cell.precision,
            compile_rows=-(-cell.batch_size // current_ranks().count) if cell.compile else 0,
        )


class MdafTask(Task):
    """MDAF and its optimizer on a device.

    The parameters are drawn on the CPU from the phase's seed and then moved, so that every device
    starts from the same ones.

    With several `ranks`, each has a part of every batch (possibly none of it). Its loss is weighted
    by its share of the rows, gradients are summed, and metrics cover all rows, in the order of the
    data.
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        phase: Phase,
        *,
        steps_per_epoch: int,
        device: torch.device,
        pinned: bool = False,
        ranks: Ranks = ALONE,
        optimizer: str = "adam",
        precision: str = "float32",
        compile_rows: int = 0,
    ) -> None:
        self._notes: list[str] = []
        seed_everything(phase.seed)
        model = MDAF(
            vocabulary,
            model=cast(Model, phase.model),
            dropout=phase.dropout,
            history_length=phase.history_length,
        )
        self.model = model.to(device)
        self.ranks, self.summed = ranks, SummedModel(self.model, ranks)
        self.tables = self.model.tables()
        self.optimizer = make_optimizer(optimizer, self.model.parameters(), self.tables, phase)
        # in float32 nothing is asked of it: torch before 2.5 has none for MPS
        self.autocast: AbstractContextManager[Any] = (
            torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()
        )
        if phase.model == "mamba":
            self._note(scan_note(device, mamba.EXPAND * WIDTH, mamba.STATE))
        if compile_rows:
            with self.autocast:
                self._note(self.model.compile_dense(compile_rows))
        self.phase, self.steps_per_epoch, self.device = phase, steps_per_epoch, device
        self._copy = Copier(device=device) if pinned and device.type == "cuda" else None
        self.step = 0
        self.train_scores = Scores("logit", "label", "user")
        self.validation_scores = Scores("logit", "label", "user", "gate")
        # CUDA copies each loss here asynchronously, so a reader may find an older one
        self.shown_loss = torch.full((), torch.nan, pin_memory=device.type == "cuda")

    def begin_epoch(self, epoch: int) -> None:
        self.model.train()
        self.train_scores.clear()
        self.validation_scores.clear()

    def transfer(self, batch: MdafBatch) -> MdafBatch:
        if self.device.type == "cpu":
            return batch
        if self._copy is not None and all(tensor.is_pinned() for tensor in batch.values()):
            return self._copy(batch)
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def train_step(self, batch: MdafBatch, mark: Mark) -> None:
        self.step += 1
        self.optimizer.zero_grad(set_to_none=True)
        rows = len(batch["label"])
        (all_rows,) = self.ranks.sum(rows)
        computed = batch if rows else _blank_row(batch)  # its loss does not count
        with self.autocast:
            logits, _ = self.summed.forward(computed)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = objective(logits, computed["label"], self.phase.label_smoothing)
        weighted = loss if rows == all_rows else loss * (rows / all_rows)
        logits = logits[:rows]
        mark("forward")
        torch.autograd.backward(weighted)
        self.summed.reduce()
        mark("backward")
        clip_gradients(self.model.parameters(), self.phase.grad_clip, self.tables)
        set_lr(self.optimizer, self.learning_rate())
        self.optimizer.step()
        self.train_scores.append(logits, batch["label"], batch["user"])
        if self.device.type != "mps" or self.step % _STEPS_PER_LOOK == 1:
            self.shown_loss.copy_(loss.detach(), non_blocking=self.device.type == "cuda")
        mark("optimizer")

    def begin_validation(self) -> None:
        self.model.eval()
        self.validation_scores.clear()
        if isinstance(self.optimizer, Together):
            self.optimizer.settle()

    @torch.no_grad()  # not inference mode: the threads of the scan would not be in it
    def validation_step(self, batch: MdafBatch) -> None:
        rows = len(batch["label"])
        with self.autocast:
            logits, gate = (
                column.float() for column in self.model(batch if rows else _blank_row(batch))
            )
        self.validation_scores.append(logits[:rows], batch["label"], batch["user"], gate[:rows])

    def learning_rate(self) -> float:
        """The learning rate of the latest step."""
        return lr_at(self.step, self.steps_per_epoch, self.phase, self.phase.epochs)

    def recent_loss(self) -> float | None:
        loss = float(self.shown_loss)
        return None if loss != loss else loss

    def losses(self) -> list[float]:
        """The losses of this epoch's steps, from the stored predictions."""
        return [
            objective(logits, labels, self.phase.label_smoothing).item()
            for logits, labels in self.train_scores.batches("logit", "label")
        ]

    def notes(self) -> list[str]:
        return self._notes

    def _note(self, text: str) -> None:
        if text:
            self._notes.append(text)
            print(f"ctrkit: {text}", file=sys.stderr, flush=True)

    def metrics(self) -> dict[str, float]:
        """The epoch's metrics: `_loss` with label smoothing as trained, `_logloss` without.

        Gate on validation.

        The training metrics come from predictions made during training, with dropout. With several
        ranks, rank 0 computes them over all rows and tells the others.
        """
        train, validation = (
            self._gathered(self.train_scores),
            self._gathered(self.validation_scores),
        )
        found = self._metrics(train, validation) if self.ranks.rank == 0 else {}
        return self.ranks.share(found)

    def _metrics(self, train: Columns, validation: Columns) -> dict[str, float]:
        found = _quality("train", train, self.phase.label_smoothing)
        found["learning_rate"] = self.learning_rate()
        if len(validation["label"]):
            found |= _quality("val", validation, self.phase.label_smoothing)
            found["train_val_gap"] = found["train_auc"] - found["val_auc"]
            gate = validation["gate"].astype(np.float64)
            found |= {"gate_mean": float(gate.mean()), "gate_std": float(gate.std())}
        return found

    def _gathered(self, scores: Scores) -> Columns:
        """The rows of all ranks, on rank 0."""
        parts = self.ranks.gather((scores.state_dict(), scores.pieces()))
        columns = {} if parts is None else in_global_order(parts)
        return {name: column.numpy() for name, column in columns.items()}

    def synchronize(self) -> None:
        devices.synchronize(self.device.type)

    def peak_device_bytes(self) -> int | None:
        return devices.peak_device_bytes(self.device.type)

    def checksum(self) -> int:
        return checksum(self.model)

    def state_dict(self) -> dict[str, Any]:
        scores = self._gathered(self.train_scores)
        return {
            "horizon_epochs": self.phase.epochs,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "train_scores": {name: torch.from_numpy(rows) for name, rows in scores.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`.

        Raises:
            UsageError: the learning rate would now follow another schedule.
        """
        horizon = state["horizon_epochs"]
        if self.phase.schedule != "constant" and horizon != self.phase.epochs:
            raise UsageError(
                f"cannot be resumed: the learning rate was scheduled for {horizon} epochs, "
                f"now for {self.phase.epochs}; keep the number of epochs, or start over"
            )
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ranks.rank == 0:  # the state holds rows gathered from all ranks
            self.train_scores.load_state_dict(state["train_scores"], self.device)


def _blank_row(batch: MdafBatch) -> MdafBatch:
    """A row of padding for an empty batch: the model needs one to take part with the others."""
    return {name: column.new_zeros(1, *column.shape[1:]) for name, column in batch.items()}


def _quality(split: str, scores: Mapping[str, Any], smoothing: float) -> dict[str, float]:
    labels, logits = scores["label"], scores["logit"]
    return {
        f"{split}_loss": log_loss(labels, logits, smoothing),
        f"{split}_auc": auc(labels, logits),
        f"{split}_logloss": log_loss(labels, logits),
        f"{split}_gauc": grouped_auc(labels, logits, scores["user"]),
    }
