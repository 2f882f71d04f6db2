import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.axes import default_workers, workers_beside_a_gpu
from ctrkit.core.checkup import MachineLimits
from ctrkit.core.child_records import LoaderNeeds
from ctrkit.core.errors import UsageError
from ctrkit.probe import matrix
from ctrkit.probe.hazards.facts import HazardFacts
from ctrkit.probe.matrix import build_matrix


def build(inspection, asked=None, *, cores=4, system="Linux", run_refused=False, **changes):
    return build_matrix(
        inspection(**changes), asked, cores=cores, system=system, run_refused=run_refused
    )


def axis(plan, name):
    return {getattr(cell, name) for cell in plan.cells}


def test_the_default_matrix_has_every_loader_once_without_workers(inspection):
    plan = build(inspection)
    assert plan.refused == ()
    assert axis(plan, "loader") == {"rows", "batches", "thread", "resident"}
    for loader in ("thread", "resident"):
        assert [c.workers for c in plan.cells if c.loader == loader] == [0]
    assert {c.workers for c in plan.cells if c.loader == "rows"} == {0, 2, 3}
    assert {c.start_method for c in plan.cells if c.workers} == {"spawn"}
    assert {c.prefetch for c in plan.cells if c.workers} == {2}
    assert axis(plan, "threads") == {4}
    assert axis(plan, "batch_size") == {2048}


@pytest.mark.parametrize(
    ("cores", "workers"),
    [
        (1, (0, 1)),
        (2, (0, 2)),
        (4, (0, 2, 3)),
        (8, (0, 2, 7)),
        (16, (0, 2, 8, 15)),
        (96, (0, 2, 8, 32)),
    ],
)
def test_default_workers_fit_the_cores(cores, workers):
    assert default_workers(cores) == workers


def test_cuda_has_more_workers_prefetch_and_pinned_memory_and_no_other_device_has(
    inspection, monkeypatch
):
    monkeypatch.setattr(matrix, "usable_cores", lambda: 12.0)
    plan = build(inspection, devices=["cuda", "cpu"], cores=12)
    of = {device: [c for c in plan.cells if c.device == device] for device in ("cuda", "cpu")}
    assert {c.workers for c in of["cuda"]} == {0, 2, 4, 8, 12}
    assert {c.prefetch for c in of["cuda"] if c.workers} == {2, 4}
    assert {(c.loader, c.pin) for c in of["cuda"]} == {
        *((loader, pin) for loader in ("rows", "batches", "thread") for pin in (False, True)),
        ("resident", False),  # there is nothing to copy
    }
    assert {c.workers for c in of["cpu"]} == {0, 2, 8, 11}
    assert {(c.prefetch, c.pin) for c in of["cpu"] if c.workers} == {(2, False)}
    assert {c.pin for c in of["cpu"]} == {False}
    assert plan.refused == ()
    named = build(inspection, {"pin": (True,), "prefetch": (3,), "loader": ("rows",)},
                  devices=["cuda"])  # fmt: skip
    assert {(c.prefetch, c.pin) for c in named.cells} == {(3, True), (None, True)}


@pytest.mark.parametrize(
    ("usable", "workers"),
    [(0.5, (0,)), (1, (0, 1)), (2, (0, 2)), (6, (0, 2, 4, 6)), (64, (0, 2, 4, 8, 16, 32))],
)
def test_workers_beside_a_gpu_go_up_to_the_cores(usable, workers):
    assert workers_beside_a_gpu(usable) == workers


def test_all_devices_are_probed_unless_some_are_named(inspection):
    both = ["mps", "cpu"]
    assert axis(build(inspection, devices=both), "device") == {"mps", "cpu"}
    assert axis(build(inspection, {"device": ("auto",)}, devices=both), "device") == set(both)
    assert axis(build(inspection, {"device": ("cpu",)}, devices=both), "device") == {"cpu"}


def test_auto_beside_other_devices_stands_for_what_is_found(inspection):
    for named in (("auto", "cpu"), ("cpu", "auto"), ("auto", "mps", "cpu")):
        plan = build(inspection, {"device": named}, devices=["mps", "cpu"])
        assert axis(plan, "device") == {"mps", "cpu"}
    assert axis(build(inspection, {"device": ("auto", "cpu")}, devices=["cpu"]), "device") == {
        "cpu"
    }
    with pytest.raises(UsageError, match="cuda"):
        build(inspection, {"device": ("auto", "cuda")}, devices=["cpu"])


def test_workers_that_nobody_named_are_tried_kept_between_epochs_too(inspection):
    kept = {(cell.workers > 0, cell.persistent) for cell in build(inspection).cells}
    assert kept == {(False, False), (True, False), (True, True)}
    assert axis(build(inspection, {"workers": (2,)}), "persistent") == {False}
    assert axis(build(inspection, {"persistent": (True,), "workers": (2,)}), "persistent") == {True}


def test_a_named_axis_is_exactly_the_set_of_cells(inspection):
    plan = build(inspection, {"workers": (2,), "batch_size": (512, 1024), "prefetch": (1, 4)})
    assert plan.refused == ()
    assert axis(plan, "workers") == {2}
    assert axis(plan, "loader") == {"rows", "batches"}
    assert axis(plan, "batch_size") == {512, 1024}
    assert axis(plan, "prefetch") == {1, 4}
    assert len(plan.cells) == 8
    assert plan.batch_sizes == (512, 1024)


def test_a_loader_without_workers_appears_once_and_without_noise(inspection):
    plan = build(inspection, {"workers": (0, 2), "loader": ("thread", "batches")})
    assert plan.refused == ()
    assert sorted((c.loader, c.workers) for c in plan.cells) == [
        ("batches", 0), ("batches", 2), ("thread", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        ({"loader": ("thread",), "workers": (2,)}, "no worker processes"),
        ({"prefetch": (4,), "workers": (0,)}, "--prefetch 4 needs workers"),
        ({"start_method": ("fork",), "workers": (0,)}, "--start-method fork needs workers"),
        ({"persistent": (True,), "loader": ("thread",)}, "no worker processes"),
        ({"pin": (True,)}, "pinned memory"),
    ],
)
def test_what_was_asked_for_and_fits_no_cell_is_one_refused_row(inspection, axes, why):
    plan = build(inspection, axes)
    ((cell, reason),) = plan.refused
    assert why in reason
    for name, (value,) in axes.items():
        if name in ("prefetch", "start_method", "persistent", "pin", "workers"):
            assert getattr(cell, name) == value


def test_a_value_that_fits_some_cell_is_not_refused(inspection):
    plan = build(inspection, {"pin": (True, False)}, devices=["cuda", "cpu"])
    assert plan.refused == ()
    assert {(c.device, c.pin) for c in plan.cells} == {
        ("cuda", True), ("cuda", False), ("cpu", False),
    }  # fmt: skip


FORKS = {"start_method": ("fork", "spawn"), "workers": (0, 2), "loader": ("batches",)}


def test_fork_with_mps_is_refused_even_when_asked_for(inspection):
    assert "fork" not in axis(build(inspection, devices=["mps", "cpu"]), "start_method")
    plan = build(inspection, FORKS, devices=["mps", "cpu"])
    ((cell, reason),) = plan.refused
    assert (cell.device, cell.start_method) == ("mps", "fork")
    assert "http" in reason
    assert any(c.device == "cpu" and c.start_method == "fork" for c in plan.cells)
    forced = build(inspection, FORKS, devices=["mps", "cpu"], run_refused=True)
    assert forced.refused == ()
    assert cell in forced.cells


def test_fork_with_cuda_is_run_when_asked_for(inspection):
    """A worker that makes its batches on the CPU is none the worse for it."""
    assert "fork" not in axis(build(inspection, devices=["cuda", "cpu"]), "start_method")
    plan = build(inspection, FORKS, devices=["cuda", "cpu"])
    assert plan.refused == ()
    assert any(c.device == "cuda" and c.start_method == "fork" for c in plan.cells)


def test_a_users_loader_is_never_refused_on_suspicion(inspection):
    plan = build(
        inspection, {"device": ("mps",), "start_method": ("fork",), "workers": (2,)},
        devices=["mps", "cpu"], loaders=["custom"], has_task=False,
        axes=["device", "workers", "start_method"],
    )  # fmt: skip
    assert plan.refused == ()
    assert [c.start_method for c in plan.cells] == ["fork"]


def test_axes_that_a_workload_does_not_take_keep_one_value(inspection):
    plan = build(
        inspection, {"workers": (0, 2), "prefetch": (1, 4), "device": ("cpu",)},
        devices=["mps", "cpu"], loaders=["custom"], axes=["workers"], has_task=False,
    )  # fmt: skip
    assert [(c.workers, c.device) for c in plan.cells] == [(0, "cpu"), (2, "cpu")]
    assert any("--prefetch" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"device": ("tpu",)}, "--device: unknown 'tpu'"),
        ({"device": ("cuda",)}, "--device cuda: not available on this machine; available: cpu"),
        ({"loader": ("custom",)}, "--loader custom: not available for the workload mdaf"),
        ({"loader": ("csv",)}, "--loader: unknown 'csv'"),
        ({"start_method": ("vfork",)}, "--start-method: unknown"),
        ({"workers": (-1,)}, "--workers: is -1, but must be at least 0"),
        ({"batch_size": (0,)}, "--batch-size: is 0, but"),
        ({"colour": ("red",)}, "unknown axis 'colour'"),
    ],
)
def test_bad_values_are_one_clear_line(inspection, axes, message):
    with pytest.raises(UsageError) as raised:
        build(inspection, axes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@given(
    workers=st.lists(st.integers(0, 4), min_size=1, max_size=3),
    prefetch=st.lists(st.integers(1, 4), max_size=2),
    pin=st.lists(st.booleans(), max_size=2),
    devices=st.sampled_from([["cpu"], ["mps", "cpu"], ["cuda", "cpu"]]),
)
def test_no_cell_is_invalid_or_there_twice(inspection, workers, prefetch, pin, devices):
    asked = {"workers": tuple(workers), "prefetch": tuple(prefetch), "pin": tuple(pin)}
    plan = build(inspection, asked, devices=devices)
    ids = [cell.cell_id for cell in plan.cells]
    assert len(ids) == len(set(ids))
    for cell in plan.cells:
        assert cell.pin <= (cell.device == "cuda")
        assert (cell.prefetch is None) == (cell.workers == 0)
        assert cell.workers == 0 or cell.loader in ("rows", "batches")
        assert cell.workers in workers


def test_the_memory_rule_refuses_here_and_other_hazards_are_warnings_in_a_line(inspection):
    facts = HazardFacts(
        limits=MachineLimits(memory_bytes=1000), needs=LoaderNeeds(worker_bytes=300),
        threads=("reader",),
    )  # fmt: skip
    asked = {"workers": [0, 2, 3], "loader": ["rows"], "start_method": ["spawn", "fork"]}
    plan = build_matrix(inspection(), asked, cores=4, facts=facts)
    refused = {(cell.workers, cell.start_method) for cell, _ in plan.refused}
    assert refused == {(3, "spawn")}
    assert "more than 80 %" in plan.refused[0][1]
    (line,) = plan.warnings
    assert line.startswith("warning, fork with threads: ")
    everything = build_matrix(inspection(), asked, cores=4, facts=facts, run_refused=True)
    assert everything.refused == ()
    assert len(everything.cells) == len(plan.cells) + 1


def test_processes_share_the_cores_out_and_are_an_axis_only_where_they_are_taken(inspection):
    asked = {"nproc": (1, 2), "loader": ("thread",)}
    plan = build(inspection, asked, axes=["device", "loader", "workers", "threads", "nproc"])
    assert {(cell.nproc, cell.threads) for cell in plan.cells} == {(1, 4), (2, 2)}
    named = build(inspection, asked | {"threads": (3,)}, axes=["device", "threads", "nproc"])
    assert axis(named, "threads") == {3}
    without = build(inspection, asked, axes=["device", "loader"])
    assert axis(without, "nproc") == {1}
    assert any("--nproc is ignored" in note for note in without.notes)
    mps = build(inspection, {"nproc": (2,)}, axes=["device", "nproc"], devices=["mps"])
    assert {reason for _, reason in mps.refused} == {"device mps has one process"}
    with pytest.raises(UsageError, match="--nproc: is 0, but"):
        build(inspection, {"nproc": (0,)})


def test_numerics_are_axes_with_one_value_unless_asked_for(inspection):
    seen = inspection(axes=[*inspection().axes, "optimizer", "precision", "compile"])
    assert all(not cell.numerics for cell in build_matrix(seen).cells)
    asked = {"optimizer": ("adam", "sparse-adam"), "compile": (False, True), "loader": ("thread",)}
    cells = build_matrix(seen, asked, cores=2).cells
    assert len(cells) == 4
    assert {(cell.optimizer, cell.compile) for cell in cells} == {
        ("adam", False), ("adam", True), ("sparse-adam", False), ("sparse-adam", True),
    }  # fmt: skip
    plan = build_matrix(inspection(), {"precision": ("bf16",)}, cores=2)
    assert any("--precision is ignored" in note for note in plan.notes)
    with pytest.raises(UsageError, match="--optimizer: unknown 'sgd'; known are adam, sparse-adam"):
        build_matrix(seen, {"optimizer": ("sgd",)})


def test_defaults_of_the_users_own_function_stand_where_nobody_names_an_axis(inspection):
    given = {"axes": ["workers", "start_method", "prefetch", "batch_size"], "loaders": ["custom"],
             "own_defaults": {"workers": 3, "start_method": "fork", "batch_size": 50}}  # fmt: skip
    (cell,) = build(inspection, **given).cells
    assert (cell.workers, cell.start_method, cell.batch_size) == (3, "fork", 50)
    plan = build(inspection, {"workers": (0, 2)}, **given)
    assert [(c.workers, c.batch_size) for c in plan.cells] == [(0, 50), (2, 50)]
    assert "own defaults (--start-method fork, --batch-size 50)" in plan.own
    assert plan.own in plan.notes


def test_a_default_device_that_is_not_here_does_not_stand(inspection):
    given = {"axes": ["device"], "loaders": ["custom"], "own_defaults": {"device": "cuda"}}
    (cell,) = build(inspection, devices=["cpu"], **given).cells
    assert cell.device == "cpu"
    both = build(inspection, {"device": ("auto",)}, devices=["cpu", "cuda"], **given)
    assert [cell.device for cell in both.cells] == ["cpu", "cuda"]
