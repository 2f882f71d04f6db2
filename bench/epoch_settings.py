"""The settings of all sides of `epoch.py`: one model, one start, the same rows, one result format.

The model is DCNv2 (Wang et al. 2021, arXiv 2008.13535) in its parallel form: cross layers
x <- x0 * (W x + b) + x beside a deep part of Linear, BatchNorm and ReLU, then a linear layer.
Its input are the five ids of an impression and the means of its two histories, which share the
tables of item and category.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctrkit.core.files import write_json
from ctrkit.ctr.data.gather import ID_COLUMNS, gather
from ctrkit.ctr.data.store import Store

CLOCK = {"hour": 24, "weekday": 7}
SHARED = {"history_item": "item", "history_category": "category"}
EMBEDDING_STD = 0.01
CHECK_BATCHES, CHECK_ROWS = 3, 512


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One contender's run; `history` 0 leaves the histories out, `workers` are its loader's."""

    store: str
    rows: str  # folder of the exported rows
    result: str
    batch_size: int
    epochs: int
    threads: int
    history: int
    width: int
    cross_layers: int
    hidden: tuple[int, ...]
    lr: float
    clip: float
    seed: int
    workers: int = 0
    check: bool = False
    order: int = 0  # of the rows, another in each round

    @classmethod
    def read(cls, path: str | Path) -> Settings:
        values = json.loads(Path(path).read_text())
        return cls(**{**values, "hidden": tuple(values["hidden"])})

    def write(self, path: Path) -> None:
        write_json(path, asdict(self))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields, in the order of the model's input."""
        return (*ID_COLUMNS, *(SHARED if self.history else ()))

    def vocabulary(self) -> dict[str, int]:
        """The number of rows of each embedding table."""
        known = Store.open(self.store).meta.vocabulary
        return {name: {**known, **CLOCK}[name] for name in ID_COLUMNS}


def first_parameters(settings: Settings) -> dict[str, Tensor]:
    """The float32 parameters that all start from, by our names: tables, cross, deep, norm, head."""
    random = torch.Generator().manual_seed(settings.seed)
    found: dict[str, Tensor] = {}
    for name, size in settings.vocabulary().items():
        table = torch.empty(size, settings.width).normal_(0, EMBEDDING_STD, generator=random)
        table[0] = 0
        found[f"table.{name}"] = table

    def linear(name: str, columns: int, rows: int) -> None:
        std = (2 / (columns + rows)) ** 0.5
        found[f"{name}.weight"] = torch.empty(rows, columns).normal_(0, std, generator=random)
        found[f"{name}.bias"] = torch.zeros(rows)

    inputs = settings.width * len(settings.fields)
    for layer in range(settings.cross_layers):
        linear(f"cross.{layer}", inputs, inputs)
    columns = inputs
    for layer, rows in enumerate(settings.hidden):
        linear(f"deep.{layer}", columns, rows)
        found[f"norm.{layer}.weight"], found[f"norm.{layer}.bias"] = (
            torch.ones(rows),
            torch.zeros(rows),
        )
        columns = rows
    linear("head", inputs + columns, 1)
    return found


def put(target: torch.nn.Module, values: Mapping[str, Tensor], names: Mapping[str, str]) -> None:
    """Copy the first parameters into a model; `names` maps each of its parameters to ours.

    Raises:
        ValueError: a parameter of the model that has no counterpart, or one of ours left over.
    """
    known = dict(target.named_parameters())
    if known.keys() != names.keys() or set(names.values()) != values.keys():
        strays = sorted(known.keys() ^ names.keys()), sorted(set(names.values()) ^ values.keys())
        raise ValueError(f"the models differ: {strays}")
    with torch.no_grad():
        for name, parameter in known.items():
            parameter.copy_(values[names[name]].view_as(parameter))


def count(model: torch.nn.Module) -> int:
    """The number of trainable parameters; a table that two fields share counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def export(settings: Settings) -> None:
    """Write the rows of both splits as NPZ files, a column each: what the peers read."""
    store = Store.open(settings.store)
    folder = Path(settings.rows)
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation"):
        rows = store.rows(split)
        parts = [
            gather(store, np.arange(begin, min(begin + 65536, rows.stop)), settings.history or 1)
            for begin in range(rows.start, rows.stop, 65536)
        ]
        columns = {
            name: np.concatenate([part[name] for part in parts]).astype(np.int32)
            for name in (*settings.fields, "label")
        }
        np.savez(folder / f"{split}.npz", **columns)


def read_rows(settings: Settings, split: str) -> dict[str, np.ndarray[Any, Any]]:
    """The exported columns of a split."""
    with np.load(Path(settings.rows) / f"{split}.npz") as file:
        return {name: file[name] for name in file.files}


def check_batches(settings: Settings) -> list[dict[str, np.ndarray[Any, Any]]]:
    """A few training batches, the same for all, to train on and compare the models afterwards."""
    columns, size = read_rows(settings, "train"), settings.batch_size
    return [
        {name: column[i * size : (i + 1) * size] for name, column in columns.items()}
        for i in range(CHECK_BATCHES)
    ]


class Answer:
    """A contender's answer: seconds and AUC of each epoch, and facts about its model.

    The training part is from asking for the epoch's iterator to the end of its last step. `cpu_s`
    is what this process, but not a loader's workers, burnt in it.
    """

    def __init__(self, settings: Settings, model: torch.nn.Module, optimizer: object) -> None:
        self.path = Path(settings.result)
        self.train_s: list[float] = []
        self.cpu_s: list[float] = []
        self.values: dict[str, Any] = {
            "parameters": count(model),
            "optimizer": type(optimizer).__name__,
            "train_s": self.train_s,
            "cpu_s": self.cpu_s,
            "val_auc": [],
            "val_labels": [],
        }
        self._began: tuple[float, float] | None = None

    def begin(self) -> None:
        """Start the clock: an epoch's training begins."""
        self._began = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Stop the clock; what follows until the next `begin` does not count."""
        if self._began is not None:
            began_s, began_cpu_s = self._began
            self.train_s.append(time.perf_counter() - began_s)
            self.cpu_s.append(time.process_time() - began_cpu_s)
            self._began = None

    def score(self, labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> None:
        """Compute an epoch's AUC on the validation rows, in the order in which they are stored."""
        from sklearn.metrics import roc_auc_score

        labels = np.asarray(labels).reshape(-1)
        self.values["val_auc"].append(float(roc_auc_score(labels, np.asarray(scores).reshape(-1))))
        self.values["val_labels"].append([len(labels), int(labels.sum())])

    def save(self, **more: object) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        unit = 1 if sys.platform == "darwin" else 1024
        write_json(self.path, {**self.values, "peak_rss_bytes": peak * unit, **more})


def contend(run: Callable[[Settings], None]) -> None:
    """The main function of a contender's process: reads the settings, runs, writes the answer."""
    settings = Settings.read(sys.argv[1])
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed + settings.order)
    run(settings)
