"""MDAF as a plug-in: its phases, its data, and the figures of the original runs. Needs no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrkit.core.errors import UsageError
from ctrkit.core.plugins import DataFacts, KnownEpoch, Metric, OnProgress, Plugin
from ctrkit.ctr.phase import WATCH, Phase, check_phase

if TYPE_CHECKING:
    from ctrkit.ctr.workload import MdafWorkload

NAME = "mdaf"


def _metric(name: str, label: str, **shown: Any) -> Metric:
    return Metric(name=name, label=label, decimals=4, **shown)


def _known_epoch(run: str, label_smoothing: float, **metrics: float) -> KnownEpoch:
    smoothed = {"label_smoothing": label_smoothing}
    return KnownEpoch(
        run=run,
        epoch=1,
        metrics=metrics,
        comparable_if={"train_loss": smoothed, "val_loss": smoothed},
    )


class MdafPlugin(Plugin):
    """The click model on Taobao data, trained with the settings of a phase file."""

    name = NAME
    settings_type = Phase
    phases = resources.files("ctrkit.ctr") / "phases"
    default_phase = "phase3"
    free_settings = ("name", "epochs", "patience", "criteria")
    takes_data = True
    default_data = "the default generated store"
    watch = WATCH
    metrics = (
        _metric("train_loss", "train loss", panel="Loss, as optimised", live="loss"),
        _metric("train_logloss", "train log loss", left_out=5),
        _metric("train_auc", "train AUC", panel="AUC", live="AUC"),
        _metric("train_gauc", "train gAUC", left_out=6),
        _metric("val_loss", "val loss", panel="Loss, as optimised", live="validation loss"),
        _metric("val_logloss", "val log loss", left_out=4),
        _metric("val_auc", "val AUC", panel="AUC", live="validation AUC"),
        _metric("val_gauc", "val gAUC", left_out=3),
        _metric("train_val_gap", "gap", left_out=7),
        _metric("gate_mean", "gate mean", panel="Gate mean"),
        _metric("gate_std", "gate std", left_out=8),
    )
    #: Figures of the original runs: 1,052,081 training and 225,446 validation rows of the Taobao ad
    #: data, batch 2048, on MPS; losses as optimised.
    known_epochs = (
        _known_epoch(
            "phase1", 0.0, train_loss=0.1960, train_auc=0.5410, val_loss=0.1880, val_auc=0.5829,
            gate_mean=0.3003,
        ),
        _known_epoch(
            "phase3", 0.1, train_loss=0.3799, train_auc=0.5121, val_loss=0.3075, val_auc=0.5698,
            gate_mean=0.1666,
        ),
    )  # fmt: skip
    known_note = (
        "Known: first epochs of the original runs on the real Taobao data; other data give other "
        "figures. Losses with different label smoothing are not comparable."
    )

    def check_settings(self, settings: Phase, where: str) -> None:
        check_phase(settings, where)

    def prepare_data(self, data: Path | None, on_progress: OnProgress) -> Path | None:
        """A sound store; without `--data` the default one, built if needed."""
        from ctrkit.ctr.data.default import default_store
        from ctrkit.ctr.data.store import Store

        if data is None:
            return default_store(on_progress)
        Store.open(data)
        return data

    def data_facts(self, data: Path) -> DataFacts | None:
        from ctrkit.ctr.data.store import Store

        meta = Store.open(data).meta
        return DataFacts(fingerprint=meta.fingerprint, train_rows=meta.rows["train"])

    def with_epochs(self, settings: Phase, epochs: int) -> Phase:
        """The settings for `--epochs`: the schedule's horizon grows to it, and never shrinks."""
        return dataclasses.replace(settings, epochs=max(settings.epochs, epochs))

    def criteria(self, settings: Phase) -> Mapping[str, Mapping[str, str]]:
        return settings.criteria

    def workload(self, settings: Phase, data: str | None) -> MdafWorkload:
        from ctrkit.ctr.workload import MdafWorkload

        if data is None:
            raise UsageError(f"workload {NAME}: it needs a store; give --data DIR")
        return MdafWorkload(Path(data), settings)


def load_phase(name_or_file: str, overrides: Mapping[str, str] | None = None) -> Phase:
    """The phase of a shipped name or a TOML file, with `--set key=value` overrides.

    Raises:
        UsageError: unknown name, unreadable file, unknown key, wrong type or value out of range.
    """
    phase = MdafPlugin().read_settings(name_or_file, overrides or {})
    assert isinstance(phase, Phase)
    return phase
