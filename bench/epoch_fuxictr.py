"""FuxiCTR's side of `epoch.py`: its DCNv2, its `BaseModel.fit`, its NPZ loader.

The package has no ranking DCNv2 (the model zoo in its repository has): the one here is made of the
package's own layers in the zoo's arrangement. All else is called as it is; what is overridden only
reads the clock or keeps the predictions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import Tensor, nn

from ctrkit.core.files import write_json


class DCNv2(BaseModel):  # type: ignore[misc]
    """DCNv2 in its `parallel` form, without the low-rank mixture."""

    answer: Answer

    def __init__(self, feature_map: FeatureMap, settings: Settings, **kwargs: Any) -> None:
        super().__init__(feature_map, model_id="DCNv2", **kwargs)
        inputs = feature_map.sum_emb_out_dim()
        self.embedding_layer = FeatureEmbedding(feature_map, settings.width)
        self.crossnet = CrossNetV2(inputs, settings.cross_layers)
        self.parallel_dnn = MLP_Block(inputs, hidden_units=list(settings.hidden), batch_norm=True)
        self.fc = nn.Linear(inputs + settings.hidden[-1], 1)
        self.compile("adam", "binary_crossentropy", settings.lr)

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        x = self.embedding_layer(self.get_inputs(inputs), flatten_emb=True)
        both = torch.cat([self.crossnet(x), self.parallel_dnn(x)], dim=-1)
        return {"y_pred": self.output_activation(self.fc(both))}

    def train_epoch(self, data_generator: Any) -> None:
        self.answer.begin()
        super().train_epoch(data_generator)

    def eval_step(self) -> None:
        self.answer.end()
        super().eval_step()

    def evaluate_metrics(self, y_true: Any, y_pred: Any, *rest: Any) -> Any:
        self.answer.score(y_true, y_pred)
        return super().evaluate_metrics(y_true, y_pred, *rest)


def feature_map(settings: Settings) -> FeatureMap:
    """A feature map that is written to FuxiCTR's format and read back, as its programs do."""
    vocabulary = settings.vocabulary()
    features: list[dict[str, Any]] = []
    for name in settings.fields:
        table = SHARED.get(name, name)
        spec: dict[str, Any] = {"source": "", "type": "categorical", "padding_idx": 0}
        spec["vocab_size"] = vocabulary[table]
        if name in SHARED:
            spec |= {"type": "sequence", "max_len": settings.history, "share_embedding": table}
            spec["feature_encoder"] = "layers.MaskedAveragePooling()"
        features.append({name: spec})
    path = Path(settings.result).with_name("feature_map.json")
    write_json(path, {"dataset_id": "store", "labels": ["label"], "features": features})
    found = FeatureMap("store", str(path.parent))
    found.load(str(path), {"embedding_dim": settings.width})
    return found


def ours(name: str) -> str:
    """Our name for one of its parameters."""
    part, *rest = name.split(".")
    if part == "embedding_layer":
        return f"table.{rest[2]}"
    if part == "crossnet":
        return f"cross.{'.'.join(rest[1:])}"
    if part == "fc":
        return f"head.{rest[0]}"
    layer, place = divmod(int(rest[1]), 3)  # Linear, BatchNorm, ReLU
    return f"{('deep', 'norm')[place]}.{layer}.{rest[2]}"


def run(settings: Settings) -> None:
    features = feature_map(settings)
    model = DCNv2(
        features,
        settings,
        metrics=["AUC"],
        verbose=0,
        model_root=str(Path(settings.result).parent),
        reduce_lr_on_plateau=False,
        early_stop_patience=settings.epochs + 1,
    )
    put(model, first_parameters(settings), {n: ours(n) for n, _ in model.named_parameters()})
    model.answer = Answer(settings, model, model.optimizer)
    if settings.check:
        model.answer.save(**check(model, settings))
        return
    Path(model.model_dir).mkdir(parents=True, exist_ok=True)
    train, validation = RankDataLoader(
        features,
        stage="train",
        train_data=f"{settings.rows}/train.npz",
        valid_data=f"{settings.rows}/validation.npz",
        batch_size=settings.batch_size,
        data_format="npz",
        num_workers=settings.workers,
    )
    model.fit(train, settings.epochs, validation, max_gradient_norm=settings.clip)
    model.answer.save()


def check(model: DCNv2, settings: Settings) -> dict[str, Any]:
    """Predictions for the first validation rows, before and after a few steps."""
    rows = {
        n: torch.from_numpy(c[:CHECK_ROWS]) for n, c in read_rows(settings, "validation").items()
    }

    def predictions() -> list[float]:
        model.eval()
        with torch.no_grad():
            return model(rows)["y_pred"].view(-1).tolist()  # type: ignore[no-any-return]

    before = predictions()
    model.train()
    model._max_gradient_norm = settings.clip
    for batch in check_batches(settings):
        model.train_step({name: torch.from_numpy(column) for name, column in batch.items()})
    return {"before": before, "after": predictions()}


if __name__ == "__main__":
    contend(run)
