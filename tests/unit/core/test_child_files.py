from pathlib import Path

from ctrkit.core.child_files import load_measurement, save_measurement
from ctrkit.core.child_records import Measurement


def test_a_name_that_this_process_does_not_take_for_utf_8_is_kept(tmp_path: Path) -> None:
    """Python reads arguments so where it was told that they are ASCII (PYTHONUTF8=0)."""
    name = "lädt.py".encode().decode("ascii", "surrogateescape")
    save_measurement(tmp_path / "m.json", Measurement(kind="full", warnings=[name, "a"]))
    read = load_measurement(tmp_path / "m.json")
    assert read is not None
    assert read.warnings == ["lädt.py", "a"]
