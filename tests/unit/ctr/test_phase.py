"""The settings of MDAF: shipped phases, users' own files, overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctrkit.core.config import decode, encode
from ctrkit.core.errors import UsageError
from ctrkit.ctr.phase import Phase
from ctrkit.ctr.plugin import MdafPlugin, load_phase


def test_phases_are_those_of_the_design() -> None:
    assert MdafPlugin().phase_names() == ["phase1", "phase3", "phase3-revised"]
    assert load_phase("phase3") == Phase(
        name="phase3", model="mamba", epochs=15, batch_size=2048, seed=42, patience=5, dropout=0.3,
        weight_decay=5e-5, label_smoothing=0.1, grad_clip=1.0, lr=3e-4, schedule="warmup-cosine",
        warmup_epochs=2, history_length=50,
    )  # fmt: skip
    assert load_phase("phase1").schedule == "constant"
    assert load_phase("phase3-revised").dropout == 0.25


def test_overrides() -> None:
    phase = load_phase("phase3", {"model": "bst", "lr": "1e-3", "epochs": "2"})
    assert (phase.model, phase.lr, phase.epochs) == ("bst", 1e-3, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs = 'many'", "epochs"),
        ("epochz = 3", "unknown key 'epochz'"),
        ("epochs = ", "not valid TOML"),
        ("epochs = 0", "epochs is 0"),
        ("model = 'gru'", "model is 'gru'; known are mamba, bst"),
        ("dropout = 1.5", "dropout is 1.5"),
        ("shuffle = 'none'", "shuffle is 'none'; known are full, block"),
        ("block_rows = 0", "block_rows is 0"),
    ],
)
def test_bad_phase_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as raised:
        load_phase(str(path))
    assert "mine.toml" in str(raised.value)


def test_unknown_phase() -> None:
    with pytest.raises(UsageError, match="neither a phase"):
        load_phase("phase9")


def test_criteria_of_a_phase_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('epochs = 3\n[criteria.good]\nbest_val_auc = ">= 0.6"\n')
    phase = load_phase(str(file))
    assert phase.criteria == {"good": {"best_val_auc": ">= 0.6"}}
    assert decode(Phase, encode(phase), "x") == phase
    file.write_text('[criteria.good]\nbest_val_auc = "high"\n')
    with pytest.raises(UsageError, match="criteria.good.best_val_auc: 'high' is no condition"):
        load_phase(str(file))
    file.write_text("[criteria]\ngood = 3\n")
    with pytest.raises(UsageError, match="must be a table, not a whole number"):
        load_phase(str(file))
