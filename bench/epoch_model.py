"""Our model and step for `epoch.py`: the same DCNv2, with all fields in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from epoch_settings import (
    CHECK_ROWS,
    SHARED,
    Answer,
    Settings,
    check_batches,
    first_parameters,
    put,
    read_rows,
)
from torch import Tensor, nn

from ctrkit.child.training.embedding_tables import EmbeddingTable
from ctrkit.child.workloads.protocol import Mark, Task
from ctrkit.ctr.data.gather import ID_COLUMNS
from ctrkit.ctr.plugin import load_phase
from ctrkit.ctr.training.metrics import Scores
from ctrkit.ctr.training.optimizers import clip_gradients, make_adam


class DCNv2(nn.Module):
    """Cross layers beside a deep part, over the rows of one table.

    `forward` takes integers (batch,) per id column, `history_length` (batch,) and (batch, length)
    per history, padded on the right, and returns logits (batch,).
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        sizes = settings.vocabulary()
        self.history = bool(settings.history)
        firsts = torch.tensor([0, *sizes.values()]).cumsum(0).int()
        self.first = {name: int(first) for name, first in zip(sizes, firsts, strict=False)}
        self.table = EmbeddingTable(int(firsts[-1]), settings.width)
        inputs = settings.width * len(settings.fields)
        self.cross = nn.ModuleList(nn.Linear(inputs, inputs) for _ in range(settings.cross_layers))
        layers: list[nn.Module] = []
        columns = inputs
        for rows in settings.hidden:
            layers += [nn.Linear(columns, rows), nn.BatchNorm1d(rows), nn.ReLU()]
            columns = rows
        self.deep = nn.Sequential(*layers)
        self.head = nn.Linear(inputs + columns, 1)

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        x0 = self.embed(batch)
        x = x0
        for layer in self.cross:
            x = torch.addcmul(x, x0, layer(x))
        logits: Tensor = self.head(torch.cat([x, self.deep(x0)], dim=1))
        return logits.squeeze(1)

    def embed(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The embeddings of a batch, of shape (batch, fields * width).

        Every field is a weighted bag of rows: an id a bag of one, a history the mean of its real
        steps. A batch names each row several times, so the table is asked for unique rows only.
        """
        ids = torch.cat([batch[name] + self.first[name] for name in ID_COLUMNS])
        starts, weights = torch.arange(len(ids)), torch.ones(len(ids))
        if self.history:
            lengths = batch["history_length"].long()
            ends = lengths.cumsum(0)
            mean = torch.repeat_interleave(1 / lengths.clamp(min=1), lengths)
            padded = batch["history_item"].shape[1]
            real = (torch.arange(padded) < lengths.unsqueeze(1)).view(-1).nonzero().squeeze(1)
            histories = [
                batch[name].reshape(-1).index_select(0, real) + self.first[table]
                for name, table in SHARED.items()
            ]
            item = len(ids) + ends - lengths
            starts = torch.cat([starts, item, item + len(real)])
            ids, weights = torch.cat([ids, *histories]), torch.cat([weights, mean, mean])
        rows, places = torch.unique(ids, return_inverse=True)
        bags = F.embedding_bag(
            places, self.table(rows), starts, mode="sum", per_sample_weights=weights
        )
        batch_rows = len(batch["label"])
        return torch.cat(bags.view(-1, batch_rows, bags.shape[1]).unbind(), dim=1)

    def put_first(self, values: Mapping[str, Tensor]) -> None:
        """Copy the first parameters, with the tables one after another."""
        tables = [values[f"table.{name}"] for name in self.first]
        rest = {name: value for name, value in values.items() if not name.startswith("table.")}
        put(
            self,
            {**rest, "table": torch.cat(tables)},
            {n: ours(n) for n, _ in self.named_parameters()},
        )


def ours(name: str) -> str:
    """A parameter's name among the first parameters."""
    part, *rest = name.split(".")
    if part == "table":
        return "table"
    if part != "deep":
        return name
    layer, place = divmod(int(rest[0]), 3)  # Linear, BatchNorm, ReLU
    return f"{('deep', 'norm')[place]}.{layer}.{rest[1]}"


class EpochTask(Task):
    """The training step of ctrkit's own workload: fused Adam, and clipping by touched rows."""

    def __init__(self, settings: Settings) -> None:
        self.clip = settings.clip
        self.model = DCNv2(settings)
        self.model.put_first(first_parameters(settings))
        phase = replace(load_phase("phase1"), lr=settings.lr, weight_decay=0.0)
        self.optimizer = make_adam(self.model.parameters(), phase)
        self.answer = Answer(settings, self.model, self.optimizer)
        self.scores = Scores("logit", "label")
        self.loss = torch.full((), torch.nan)

    def begin_epoch(self, epoch: int) -> None:
        self.answer.begin()
        self.model.train()
        self.scores.clear()

    def transfer(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return batch

    def train_step(self, batch: Mapping[str, Tensor], mark: Mark) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        loss = F.binary_cross_entropy_with_logits(self.model(batch), batch["label"])
        mark("forward")
        torch.autograd.backward(loss)
        mark("backward")
        clip_gradients(self.model.parameters(), self.clip, [self.model.table])
        self.optimizer.step()
        self.loss = loss.detach()
        mark("optimizer")

    def recent_loss(self) -> float:
        return float(self.loss)

    def begin_validation(self) -> None:
        self.answer.end()
        self.model.eval()

    @torch.no_grad()
    def validation_step(self, batch: Mapping[str, Tensor]) -> None:
        self.scores.append(self.model(batch), batch["label"])

    def metrics(self) -> dict[str, float]:
        found = self.scores.arrays()
        self.answer.score(found["label"], found["logit"])
        self.answer.save()
        return {"val_auc": self.answer.values["val_auc"][-1]}

    def state_dict(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}


def with_lengths(columns: Mapping[str, Any]) -> dict[str, Tensor]:
    """A batch of exported columns, as our loaders yield it; id 0 is padding."""
    batch = {name: torch.from_numpy(column) for name, column in columns.items()}
    batch["label"] = batch["label"].float()
    if "history_item" in batch:
        batch["history_length"] = (batch["history_item"] != 0).sum(1, dtype=torch.int32)
    return batch


def check(task: EpochTask, settings: Settings) -> dict[str, Any]:
    """Predictions for the first validation rows, before and after a few steps."""
    columns = read_rows(settings, "validation")
    rows = with_lengths({name: column[:CHECK_ROWS] for name, column in columns.items()})

    def predictions() -> Any:
        task.model.eval()
        with torch.no_grad():
            return task.model(rows).sigmoid().tolist()

    before = predictions()
    task.model.train()
    for batch in check_batches(settings):
        task.train_step(with_lengths(batch), lambda _stage: None)
    return {"before": before, "after": predictions()}
