"""Real runs on an accelerator: resumed bit for bit, saved so that the CPU can load it.

All of it needs a device, and is skipped where there is none.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from devices import ON_DEVICES
from support import COMMAND

SIZE = ("--rows", "20000", "--users", "300", "--items", "500")
OPTIONS = ("--set", "history_length=8", "--batch-size", "128", "--epochs", "1", "--quiet")


def ctrkit(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [COMMAND, *arguments], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=250, env=os.environ | {"CTRKIT_HOME": str(folder / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("accelerator")
    ctrkit(made, "data", "synth", "--out", "store", *SIZE)
    return made


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Places where two states differ, with by how much; times are left out."""
    if isinstance(one, torch.Tensor):
        if torch.equal(one, other):
            return []
        apart = (one.double() - other.double()).abs().max().item()
        return [f"{place}: up to {apart:.3g}"]
    if isinstance(one, dict):
        keys = [key for key in one if key not in ("wall_s", "code")]
        return [
            text for key in keys for text in differences(one[key], other[key], f"{place}.{key}")
        ]
    if isinstance(one, list | tuple):
        pairs = enumerate(zip(one, other, strict=True))
        return [text for i, (a, b) in pairs for text in differences(a, b, f"{place}[{i}]")]
    same = one == other or (one != one and other != other)
    return [] if same else [f"{place}: {one} and {other}"]


@pytest.mark.parametrize("device", ON_DEVICES)
@pytest.mark.parametrize("model", ["mamba", "bst"])
def test_a_run_goes_on_bit_for_bit(folder: Path, device: str, model: str) -> None:
    own = ("--data", "store", "--device", device, "--set", f"model={model}", *OPTIONS)
    whole, cut = f"whole-{device}-{model}", f"cut-{device}-{model}"
    ctrkit(folder, "train", *own, "--out", whole)
    ctrkit(folder, "train", *own, "--out", cut, "--max-steps", "40")
    ctrkit(folder, "train", "--resume", cut, "--quiet", "--max-steps", "100000")
    states = [
        torch.load(folder / run / "checkpoints" / "last.pt", weights_only=True, map_location="cpu")
        for run in (whole, cut)
    ]
    assert differences(*(state["task"] for state in states)) == []


@pytest.mark.parametrize("device", ON_DEVICES)
def test_a_checkpoint_of_a_device_is_scored_alike_on_the_cpu(folder: Path, device: str) -> None:
    own = ("--data", "store", *OPTIONS, "--set", "model=bst")
    ctrkit(
        folder, "train", *own, "--device", device, "--out", f"part-{device}", "--max-steps", "40"
    )
    ctrkit(folder, "train", "--resume", f"part-{device}", "--device", "cpu", "--quiet",
           "--max-steps", "41")  # fmt: skip
    state = torch.load(folder / f"part-{device}/checkpoints/last.pt", weights_only=True)
    assert state["position"]["steps"] == 41
