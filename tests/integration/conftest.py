"""Data that several integration tests use, and the path of the corpus of scenarios."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

# What reads and checks the scenarios is the bench's: it runs all of them, the tests a handful.
sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

_MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"
_KEPT = Path(tempfile.gettempdir()) / "ctrkit-test-data" / "ml-100k.inter"


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MovieLens-100k's `ml-100k.inter` of recbole's wheel, kept in the temporary folder."""
    if _KEPT.is_file():
        return _KEPT
    folder = tmp_path_factory.mktemp("recbole")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    try:
        subprocess.run(
            [*download, str(folder), "recbole"], check=True, capture_output=True, timeout=120
        )
        content = zipfile.ZipFile(next(folder.glob("recbole-*.whl"))).read(_MEMBER)
    except (subprocess.SubprocessError, OSError, StopIteration, KeyError) as error:
        pytest.skip(f"the wheel of recbole cannot be had: {error}")
    _KEPT.parent.mkdir(exist_ok=True)
    aside = folder / "ml-100k.inter"
    aside.write_bytes(content)
    shutil.move(aside, _KEPT)
    return _KEPT
