"""`bench/accelerator.py` without an accelerator: one line, or a rehearsal on the CPU."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

BENCH = Path(__file__).parents[2] / "bench"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "accelerator.py"), *options],
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.skipif(
    torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is one"
)
def test_without_an_accelerator_it_says_so_in_one_line() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "no CUDA or MPS here: nothing was run (--device cpu rehearses)\n"


def test_a_part_that_is_none_is_named() -> None:
    done = run("--parts", "steps,speed", "--device", "cpu")
    assert done.returncode == 2
    assert "--parts speed: known are tests, probe, steps, projection, hangs" in done.stderr


def test_a_rehearsal_runs_the_marked_tests_and_is_called_so(tmp_path: Path) -> None:
    done = run("--device", "cpu", "--parts", "tests", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "# Rehearsal on the CPU: no result" in done.stdout
    document = json.loads((tmp_path / "accelerator-rehearsal.json").read_text())
    assert document["is_rehearsal"]
    (row,) = document["parts"]["tests"]
    assert "skipped" in row["result"] or "passed" in row["result"]


def made(tmp_path: Path, limit_s: float) -> Any:
    bench = load("accelerator")
    now_s = bench.time.monotonic()
    return bench, bench.Bench("cpu", tmp_path, limit_s, now_s + limit_s, now_s + limit_s)


def test_a_command_that_does_not_end_is_ended_and_its_last_words_are_told(tmp_path: Path) -> None:
    _, bench = made(tmp_path, 60)
    endless = "print('computing', flush=True)\nimport time\nwhile True: time.sleep(1)"
    with pytest.raises(TimeoutError, match=r"ended after 2 s; (computing|.*KeyboardInterrupt)"):
        bench.run("-c", endless, most_s=2)


def test_what_outlives_a_command_holds_up_nobody(tmp_path: Path) -> None:
    """A process that left the session has its streams still, as one that a driver holds has."""
    module, bench = made(tmp_path, 60)
    leaves = (
        "import subprocess, sys\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'],\n"
        "                     start_new_session=True)\n"
        "print(p.pid)"
    )
    began_s = module.time.monotonic()
    done = bench.run("-c", leaves)
    module.os.kill(int(done.stdout), module.signal.SIGKILL)
    assert module.time.monotonic() - began_s < 25


def test_each_part_leaves_time_to_those_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, bench = made(tmp_path, 1000)
    left = {}

    def part(name: str) -> Any:
        def takes_all(bench: Any) -> list[dict[str, Any]]:
            left[name] = bench.left_s()
            clock[0] = bench.part_ends_s
            return [{"what": name, "ok": True, "result": ""}]

        return takes_all

    clock = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    bench.ends_s = 1000.0
    monkeypatch.setattr(module, "PARTS", {name: part(name) for name in module.PARTS})
    module.measure(bench, list(module.PARTS))
    assert clock[0] <= 1000
    assert all(left[name] >= 1000 * module.KEPT[name] - 1e-6 for name in left)
    assert left["hangs"] >= 240


def test_the_steps_child_measures_rates_and_a_step(tmp_path: Path) -> None:
    from ctrkit.ctr.data.synthetic import generate_store

    generate_store(tmp_path / "store", rows=700, users=60, items=80, seed=5)

    def child(**spec: Any) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(BENCH / "accelerator_step.py"), json.dumps(spec)],
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    found = child(what="step", device="cpu", store=str(tmp_path / "store"), loader="resident",
                  precision="float32", batch=16, warmup=1, seconds=0.1, most_steps=3,
                  gradients="whole")  # fmt: skip
    assert 0 < found["queued_s"] <= found["high_s"]
    assert found["waits"] == []  # nobody looked: it is no CUDA
    assert 0 < found["low_s"] <= found["step_s"] <= found["high_s"]
    assert found["notes"] == []


def test_the_floor_counts_the_products_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from ctrkit.ctr.models.mamba import MambaLayer
    from ctrkit.ctr.models.mdaf import MDAF

    def without_products(x: Any, dt: Any, a: Any, b: Any, c: Any, *_: Any) -> Any:
        return x * dt + (b + c).sum(1, keepdim=True)

    floor = load("accelerator_floor")
    batch, length = 32, 50
    vocabulary = dict.fromkeys(("item", "category", "user", "history_item", "history_category"), 9)
    model = MDAF(vocabulary, model="mamba", dropout=0.0, history_length=length)
    ids = {name: torch.ones(batch, dtype=torch.int32) for name in (
        "item", "category", "user", "hour", "weekday")}  # fmt: skip
    history = torch.ones(batch, length, dtype=torch.int32)
    rows = {**ids, "history_length": torch.full((batch,), length), "history_item": history,
            "history_category": history}  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MambaLayer, "forward", MambaLayer.whole)  # as on an accelerator
        # the scan step by step is made of products, too: on a GPU it is one kernel
        patch.setattr("ctrkit.ctr.models.mamba.scan_of", lambda x, state: without_products)
        with FlopCounterMode(display=False) as counter:
            model(rows)[0].sum().backward()
    assert floor.step_work(batch, length).flops == pytest.approx(
        counter.get_total_flops(), rel=0.03
    )


def test_the_floor_is_the_larger_of_both() -> None:
    work = load("accelerator_floor").Work(flops=6.0, bytes=8.0)
    assert work.floor_s(flops_per_s=2.0, bytes_per_s=1.0) == 8.0
    assert work.floor_s(flops_per_s=0.5, bytes_per_s=1.0) == 12.0
