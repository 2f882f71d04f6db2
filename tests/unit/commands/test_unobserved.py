import pytest

from ctrkit.commands.unobserved import path_set_anew, why_unobserved


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("export PYTHONPATH=.\npython train.py\n", 1),
        ("#!/bin/bash\nPYTHONPATH=src:lib python train.py\n", 2),
        ("export PYTHONPATH=", 1),
        ("export PYTHONPATH=.:$PYTHONPATH\n", None),
        ('export PYTHONPATH="${PYTHONPATH}:src"\n', None),
        ("# PYTHONPATH=.\npython train.py\n", None),
        ("export MYPYTHONPATH=.\n", None),
        ("python train.py\n", None),
    ],
)
def test_a_shell_script_that_sets_the_path_anew_is_named(tmp_path, text, line):
    (tmp_path / "run.sh").write_text(text)
    found = path_set_anew(["bash", "run.sh", "--fast"], tmp_path)
    assert (found is None) == (line is None)
    if line is not None:
        assert found.startswith(f"run.sh:{line} (")


def test_a_makefile_and_the_command_itself_are_read_too(tmp_path):
    (tmp_path / "Makefile").write_text("train:\n\tPYTHONPATH=src python train.py\n")
    assert path_set_anew(["make", "train"], tmp_path).startswith("Makefile:2")
    assert path_set_anew(["python", "make"], tmp_path) is None
    assert path_set_anew(["env", "PYTHONPATH=.", "python", "train.py"], tmp_path) is not None
    assert path_set_anew(["bash", "-c", "PYTHONPATH=. python t.py"], tmp_path) is not None


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "train.py").write_text("PYTHONPATH=.\n")
    (tmp_path / "data.bin").write_bytes(b"\xffPYTHONPATH=.\n")
    command = ["python", "train.py", "data.bin", str(tmp_path), "missing"]
    assert path_set_anew(command, tmp_path) is None
    assert why_unobserved(command, tmp_path) == ""


def test_what_is_to_be_done_is_said(tmp_path):
    (tmp_path / "run.sh").write_text("export PYTHONPATH=.\n")
    said = why_unobserved(["sh", "run.sh"], tmp_path)
    assert said.startswith("run.sh:1 (export PYTHONPATH=.) sets PYTHONPATH anew")
    assert "PYTHONPATH=.:$PYTHONPATH" in said
    assert why_unobserved(["python", "-I", "train.py"], tmp_path) == (
        "python -I keeps the observer out"
    )
