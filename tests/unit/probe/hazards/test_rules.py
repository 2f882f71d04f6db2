import dataclasses

import pytest

from ctrkit.core.checkup import MachineLimits
from ctrkit.core.child_records import Examination, LoaderNeeds, LoaderPart
from ctrkit.core.config import make_cell
from ctrkit.probe.hazards.facts import HazardFacts, known_facts
from ctrkit.probe.hazards.rules import findings_of, hazards_of, refusal, warning_lines
from ctrkit.probe.hazards.source import SourceNote

MACOS = MachineLimits(system="Darwin", python="3.13.1", start_method="spawn", shm_bytes=None)
GB = 10**9


def cell_with(**axes):
    return make_cell(**({"loader": "batches", "workers": 2, "start_method": "fork"} | axes))


def spawned(**axes):
    return cell_with(**({"start_method": "spawn"} | axes))


def names(cell, **facts):
    return [hazard.name for hazard in hazards_of(cell, HazardFacts(**facts))]


def named(name, cell, **facts):
    (hazard,) = [h for h in hazards_of(cell, HazardFacts(**facts)) if h.name == name]
    return hazard


def test_a_fork_beside_mps_in_use_is_refused_with_its_sources():
    hazard = refusal(cell_with(device="mps"))
    assert hazard is not None
    assert all(reference.startswith("https://") for reference in hazard.references)
    assert hazard.references[0] in hazard.reason
    assert hazard.advice in hazard.reason


@pytest.mark.parametrize(
    "cell",
    [
        cell_with(device="mps", workers=0, start_method=None),
        spawned(device="mps"),
        cell_with(device="cuda", start_method="forkserver"),
        cell_with(device="cpu"),
        make_cell(device="mps", loader="thread"),
    ],
)
def test_nothing_else_is_refused(cell):
    assert refusal(cell) is None
    assert refusal(cell, HazardFacts(limits=MACOS)) is None


def test_a_users_loader_is_warned_of_and_not_refused():
    cell = cell_with(device="mps")
    assert refusal(cell, HazardFacts(has_task=False)) is None
    assert named("fork with MPS", cell, has_task=False).level == "warning"


def test_forked_workers_beside_cuda_are_what_most_scripts_have():
    """torch ends a worker that asks for CUDA with an error, so there is nothing to refuse."""
    cell = cell_with(device="cuda")
    assert refusal(cell, HazardFacts()) is None
    assert named("fork with CUDA", cell).level == "note"
    assert "fork with CUDA" not in names(spawned(device="cuda"))


def test_refusals_come_first_and_notes_last():
    found = hazards_of(cell_with(device="mps"), HazardFacts(limits=MACOS))
    assert [h.name for h in found[:2]] == ["fork with MPS", "fork on macOS"]
    assert [h.level for h in found] == ["refusal", "warning", "note", "note"]


def test_fork_is_warned_of_only_where_threads_are_there():
    assert names(cell_with()) == []
    assert names(cell_with(), threads=("reader",)) == ["fork with threads"]
    assert (
        "running here: reader" in named("fork with threads", cell_with(), threads=("reader",)).text
    )
    assert names(spawned(), threads=("reader",), threaded_libraries=("cv2",)) == []


def test_a_loader_that_is_not_told_how_starts_its_workers_as_the_system_does():
    facts = {"uses_start_method": False, "threads": ("reader",)}
    assert names(spawned(), **facts) == ["fork with threads"]
    assert names(cell_with(), limits=MachineLimits(start_method="spawn"), **facts) == []
    forkserver = Examination(start_method="forkserver")
    assert names(spawned(), examination=forkserver, **facts) == []


def test_loaded_libraries_with_threads_are_named_with_their_own_reference():
    hazard = named("fork with threads", cell_with(), threaded_libraries=("tokenizers",))
    assert "loaded here: tokenizers" in hazard.text
    assert hazard.references == ("https://github.com/huggingface/transformers/issues/5486",)


def test_openmp_over_fork_only_where_a_worker_raises_its_threads():
    raised = (SourceNote("threads", 7, "init calls set_num_threads"),)
    hazard = named("OpenMP threads over fork", cell_with(), source=raised)
    assert "init calls set_num_threads (line 7)" in hazard.text
    assert "OpenMP threads over fork" not in names(spawned(), source=raised)


@pytest.mark.parametrize(("available", "refused"), [(12_501, False), (12_499, True)])
def test_memory_refuses_beyond_four_fifths_of_what_is_available(available, refused):
    # 2 workers of 1000 bytes and 2 x 2 batches of 2 rows of 1000 bytes: 10 000 of it
    facts = HazardFacts(
        limits=MachineLimits(memory_bytes=available),
        needs=LoaderNeeds(worker_bytes=1000, row_bytes=1000),
    )
    found = refusal(spawned(batch_size=2), facts)
    assert (found is not None) == refused
    forked = refusal(cell_with(batch_size=2), facts)
    assert forked is None  # its pages are its parent's


def test_memory_says_what_takes_it_and_who_limits_it():
    limits = MachineLimits(memory_bytes=GB, memory_is_capped=True)
    needs = LoaderNeeds(worker_bytes=GB)
    hazard = named("too little memory", spawned(), limits=limits, needs=needs)
    assert "2 workers of 1 GB take 2 GB" in hazard.text
    assert "its control group allows" in hazard.text


def test_what_is_not_known_is_not_held_against_a_cell():
    assert names(spawned(workers=64), limits=MachineLimits(memory_bytes=1, open_files=1)) == []
    assert names(spawned(), needs=LoaderNeeds(worker_bytes=GB, row_bytes=GB)) == []


@pytest.mark.parametrize(("free", "warned"), [(8000, False), (7999, True)])
def test_shared_memory_must_hold_the_queue(free, warned):
    limits = MachineLimits(shm_bytes=free)
    found = names(spawned(batch_size=2), limits=limits, needs=LoaderNeeds(row_bytes=1000))
    assert ("/dev/shm is too small" in found) == warned


def test_shared_memory_must_hold_the_tensors_of_a_data_set_that_is_pickled():
    look = Examination(parts=[LoaderPart(name="dataset", kind="Rows", shared_bytes=GB)])
    limits = MachineLimits(shm_bytes=GB - 1)
    assert "/dev/shm is too small" in names(spawned(), limits=limits, examination=look)
    assert "/dev/shm is too small" not in names(cell_with(), limits=limits, examination=look)


def test_open_files_count_only_where_tensors_are_shared_by_descriptor():
    limits, needs = MachineLimits(open_files=256), LoaderNeeds(tensors_per_batch=50)
    assert "too few open files" in names(spawned(), limits=limits, needs=needs)
    by_name = Examination(sharing_strategy="file_system")
    assert "too few open files" not in names(
        spawned(), limits=limits, needs=needs, examination=by_name
    )
    macos = dataclasses.replace(MACOS, open_files=256)
    assert "too few open files" not in names(spawned(), limits=macos, needs=needs)
    fewer = LoaderNeeds(tensors_per_batch=48)  # 4 x 48 + 64 = 256
    assert "too few open files" not in names(spawned(), limits=limits, needs=fewer)


def test_a_temporary_folder_with_a_long_name_is_told_where_workers_need_sockets():
    long = "/scratch/" + "x" * 90
    helped = MachineLimits(long_temporary_folder=long, short_temporary_folder="/tmp")
    note = named("temporary folder with a long name", spawned(), limits=helped)
    assert note.level == "note"
    assert "/tmp is taken" in note.text
    (warning,) = hazards_of(
        spawned(), HazardFacts(limits=MachineLimits(long_temporary_folder=long))
    )
    assert warning.level == "warning"
    assert long in warning.text
    assert "TMPDIR" in warning.advice
    assert names(make_cell(workers=0), limits=helped) == []


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_what_cannot_be_pickled_is_named_with_the_reason(method):
    part = LoaderPart(name="dataset", kind="Rows", place="dataset.lock", error="cannot pickle it")
    look = Examination(parts=[part])
    hazard = named("not picklable", spawned(start_method=method), examination=look)
    assert "dataset.lock: cannot pickle it" in hazard.text
    assert method in hazard.text
    assert "not picklable" not in names(cell_with(), examination=look)


def test_what_was_pickled_outranks_what_is_written():
    note = SourceNote("unpicklable", 3, "a lambda", "collate_fn")
    assert (
        "collate_fn is a lambda (line 3)" in named("not picklable", spawned(), source=(note,)).text
    )
    pickled = Examination(parts=[LoaderPart(name="collate_fn", kind="stack", pickled_bytes=9)])
    assert names(spawned(), source=(note,), examination=pickled) == []


def test_a_missing_main_guard_matters_to_workers_that_import_the_file():
    note = SourceNote("unguarded", 9, "calls Pool")
    assert "line 9" in named("no main guard", spawned(), source=(note,)).text
    assert "no main guard" not in names(cell_with(), source=(note,))
    assert "no main guard" not in names(make_cell(), source=(note,))


@pytest.mark.parametrize(("size", "told"), [(65_536, False), (65_537, True)])
def test_a_data_set_larger_than_a_pipe_is_a_note(size, told):
    look = Examination(parts=[LoaderPart(name="dataset", kind="Rows", pickled_bytes=size)])
    found = hazards_of(spawned(), HazardFacts(examination=look))
    assert [(h.name, h.level) for h in found] == (
        [("data set larger than a pipe", "note")] if told else []
    )


def test_memory_maps_and_device_tensors_are_warned_of():
    part = LoaderPart(name="dataset", kind="Rows", memmap_bytes=5, device_tensors=["mps:0"])
    look = Examination(parts=[part])
    assert names(spawned(), examination=look) == [
        "memory map sent by value",
        "data set on a device",
    ]
    on_device = named("data set on a device", cell_with(), examination=look)
    assert on_device.references == ("https://github.com/pytorch/pytorch/issues/87688",)


def test_macos_tells_of_its_workers_and_of_pins_that_do_nothing():
    found = hazards_of(
        spawned(device="mps"), HazardFacts(limits=MACOS, examination=Examination(pins=True))
    )
    assert {h.level for h in found} == {"note"}
    assert [h.name for h in found] == [
        "workers start slowly on macOS", "file_system sharing", "no exit on macOS",
        "pin_memory on MPS",
    ]  # fmt: skip
    old = dataclasses.replace(MACOS, python="3.11.9")
    assert "no exit on macOS" not in names(spawned(), limits=old)
    assert names(make_cell(), limits=MACOS) == []


def test_a_shuffle_off_the_default_device_is_warned_of():
    look = Examination(default_device="mps", shuffles=True)
    assert names(make_cell(), examination=look) == ["generator not on the default device"]
    assert names(make_cell(), examination=dataclasses.replace(look, generator_device="mps")) == []
    assert names(make_cell(), examination=dataclasses.replace(look, shuffles=False)) == []


def test_a_look_that_failed_says_why():
    look = Examination(problem="make_loader raised ValueError")
    assert "ValueError" in named("loader not examined", make_cell(), examination=look).text


def test_findings_name_each_hazard_once_with_its_cells_and_the_heaviest_ones_words():
    cells = [make_cell(), spawned(workers=4), spawned(workers=2), cell_with()]
    part = LoaderPart(name="dataset", kind="Rows", pickled_bytes=100_000)
    found = findings_of(
        cells, HazardFacts(examination=Examination(parts=[part]), threads=("reader",))
    )
    assert [(f.hazard.name, len(f.cells)) for f in found] == [
        ("fork with threads", 1), ("data set larger than a pipe", 2),
    ]  # fmt: skip
    assert "400 kB in all" in found[1].hazard.text


def test_a_probe_shows_warnings_in_a_line_each_and_no_notes():
    cells = [cell_with(), cell_with(workers=1), spawned()]
    part = LoaderPart(name="dataset", kind="Rows", pickled_bytes=100_000)
    facts = HazardFacts(examination=Examination(parts=[part]), threads=("reader",))
    (line,) = warning_lines(cells, facts)
    assert line.startswith("warning, fork with threads: ")


def test_an_examination_knows_the_needs_better_than_an_inspection(inspection):
    rough, better = LoaderNeeds(worker_bytes=1), LoaderNeeds(worker_bytes=2)
    inspected = inspection(needs=rough, axes=["workers"])
    facts = known_facts(inspected, MachineLimits())
    assert (facts.needs, facts.uses_start_method, facts.has_task) == (rough, False, True)
    looked = known_facts(inspected, MachineLimits(), examination=Examination(needs=better))
    assert looked.needs == better
