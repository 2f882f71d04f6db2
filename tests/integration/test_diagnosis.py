"""Delays in a real loop are named from its processes' stamps: a few cases of the bench."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "diagnosis.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_diagnosis", BENCH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("stage", "workers"), [("collate", 1), ("backward", 0), ("startup", 1)])
def test_a_delay_in_a_real_loop_is_named(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, workers: int
) -> None:
    monkeypatch.setenv("DELAYS", "{}")  # put back at the end
    case = bench.injected(stage, workers, 0.9)
    measured = bench.Bench(tmp_path).launch(case, case.delays)
    found = bench.findings(case, measured)
    assert found[0].stage == stage, found
