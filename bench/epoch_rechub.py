"""torch-rechub's side of `epoch.py`: its DCNv2, its `CTRTrainer`, its `DataGenerator`.

All is called as it is; what is overridden only reads the clock or keeps the predictions. Its cross
layer adds the bias outside of the product: x <- x0 * (W x) + b + x.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from epoch_settings import (
    CHECK_ROWS,
    SHARED,
    Answer,
    Settings,
    check_batches,
    contend,
    first_parameters,
    put,
    read_rows,
)
from torch_rechub.basic.features import SequenceFeature, SparseFeature
from torch_rechub.models.ranking.dcn_v2 import DCNv2
from torch_rechub.trainers import CTRTrainer
from torch_rechub.utils.data import DataGenerator


class Trainer(CTRTrainer):  # type: ignore[misc]
    """A `CTRTrainer` that times its epochs."""

    answer: Answer

    def train_one_epoch(self, *arguments: Any, **options: Any) -> Any:
        self.answer.begin()
        loss = super().train_one_epoch(*arguments, **options)
        self.answer.end()
        return loss


def features(settings: Settings) -> list[Any]:
    vocabulary = settings.vocabulary()
    found: list[Any] = []
    for name in settings.fields:
        table = SHARED.get(name, name)
        common = {"vocab_size": vocabulary[table], "embed_dim": settings.width, "padding_idx": 0}
        if name in SHARED:
            found.append(SequenceFeature(name, pooling="mean", shared_with=table, **common))
        else:
            found.append(SparseFeature(name, **common))
    return found


def ours(name: str) -> str:
    """Our name for one of its parameters."""
    part, *rest = name.split(".")
    if part == "embedding":
        return f"table.{rest[1]}"
    if part == "crossnet":
        return f"cross.{rest[1]}.{'weight' if rest[0] == 'w' else 'bias'}"
    if part == "linear":
        return f"head.{rest[1]}"
    layer, place = divmod(int(rest[1]), 4)  # Linear, BatchNorm, ReLU, Dropout
    return f"{('deep', 'norm')[place]}.{layer}.{rest[2]}"


def split(columns: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Split the columns into the trainer's `x` and `y`."""
    return {n: c for n, c in columns.items() if n != "label"}, columns["label"].astype(np.float32)


def run(settings: Settings) -> None:
    model = DCNv2(
        features(settings),
        n_cross_layers=settings.cross_layers,
        mlp_params={"dims": list(settings.hidden), "activation": "relu", "dropout": 0},
        use_low_rank_mixture=False,
    )
    put(model, first_parameters(settings), {n: ours(n) for n, _ in model.named_parameters()})
    trainer = Trainer(
        model,
        optimizer_params={"lr": settings.lr},
        n_epoch=settings.epochs,
        earlystop_patience=settings.epochs + 1,
        model_path=str(Path(settings.result).parent),
    )
    answer = trainer.answer = Answer(settings, model, trainer.optimizer)
    validation = split(read_rows(settings, "validation"))
    if settings.check:
        answer.save(**check(trainer, validation[0], settings))
        return
    judge = trainer.evaluate_fn

    def evaluate(labels: Any, scores: Any) -> Any:
        answer.score(labels, scores)
        return judge(labels, scores)

    trainer.evaluate_fn = evaluate
    train, valid, _ = DataGenerator(*split(read_rows(settings, "train"))).generate_dataloader(
        *validation, *validation, batch_size=settings.batch_size, num_workers=settings.workers
    )
    trainer.fit(train, valid)
    answer.save()


def check(trainer: Trainer, rows: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Predictions for the first validation rows, before and after a few steps."""
    first = {name: torch.from_numpy(column[:CHECK_ROWS]) for name, column in rows.items()}

    def predictions() -> Any:
        return trainer.predict(trainer.model, [(first, torch.zeros(1))])

    before = predictions()
    batches = [split(batch) for batch in check_batches(settings)]
    trainer.train_one_epoch(
        [({n: torch.from_numpy(c) for n, c in x.items()}, torch.from_numpy(y)) for x, y in batches]
    )
    return {"before": before, "after": predictions()}


if __name__ == "__main__":
    contend(run)
