"""Sets up a cache folder for the bench of scripts: libraries, scripts and data sets.

Nothing of it is committed but the scripts in `foreign/`, which are our own: small ones that use a
framework in the documented way, where its package ships no script. Every data set is generated.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

FOREIGN = Path(__file__).resolve().parent / "foreign"
#: Two environments, because RecBole needs an older numpy than the others.
REQUIREMENTS = {
    "main": (
        "torch==2.13.0", "torchvision==0.28.0", "lightning==2.6.6", "transformers==5.24.0",
        "accelerate==1.15.0", "datasets==5.2.0", "timm==1.0.31", "ultralytics==8.4.190",
        "fuxictr==2.3.10", "ray[data]==2.55.1", "pytorch-ignite==0.5.5", "skorch==1.4.0",
        "sentence-transformers==6.2.0", "keras==3.15.1", "trl==1.16.0", "train-doctor==0.2.0",
    ),
    "recbole": (
        "torch==2.13.0", "numpy==1.26.4", "pandas==2.2.3", "scipy==1.11.4", "pyarrow==17.0.0",
        "scikit-learn==1.5.2", "recbole==1.2.1",
    ),
}  # fmt: skip
_INSTALL_S = 3600


def environment(cache: Path, name: str, found: Path | None = None) -> Path:
    """The Python of an environment, which is installed if it is missing.

    Args:
        cache: the cache folder.
        name: `main` or `recbole`.
        found: an existing environment that has the libraries.
    """
    if found is not None:
        return found / "bin" / "python"
    folder = cache / f"venv-{name}"
    python, done = folder / "bin" / "python", folder / "installed.json"
    if not done.is_file() or json.loads(done.read_text()) != list(REQUIREMENTS[name]):
        print(f"installing into {folder} ...", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=300)
        pip = [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]]
        subprocess.run(pip, check=True, timeout=_INSTALL_S)
        done.write_text(json.dumps(list(REQUIREMENTS[name])))
    if name == "main":
        make_torchvision_usable(python)
    return python


#: Code to add to torchvision's own file; no script is changed.
_STAND_IN = """

# Added by ctrkit's bench: this build's own operations need CUDA, so `nms` is done in Python here.
if not _has_ops():
    _library = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _library.define(_name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

    def _nms(dets, scores, iou_threshold):
        order, kept = scores.argsort(descending=True), []
        areas = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
        while order.numel():
            first, rest = order[0], order[1:]
            kept.append(first)
            low = torch.maximum(dets[first, :2], dets[rest, :2])
            high = torch.minimum(dets[first, 2:], dets[rest, 2:])
            both = (high - low).clamp(min=0).prod(1)
            order = rest[both / (areas[first] + areas[rest] - both) <= iou_threshold]
        return torch.stack(kept) if kept else scores.new_zeros(0, dtype=torch.int64)

    _library.impl("nms", _nms, "CPU")

    def _assert_has_ops():  # noqa: F811
        return None
"""


def make_torchvision_usable(python: Path) -> None:
    """Patch PyPI's torchvision: built for CUDA, it cannot be imported beside a torch for CPUs."""
    asks = [str(python), "-c", "import torchvision"]
    if subprocess.run(asks, capture_output=True, check=False, timeout=300).returncode == 0:
        return
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    said = subprocess.run(
        [str(python), "-c", where], capture_output=True, text=True, check=True, timeout=60
    )
    file = Path(said.stdout.strip()) / "torchvision" / "extension.py"
    file.write_text(file.read_text() + _STAND_IN)


def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The versions of the packages that are installed in an environment."""
    code = (
        "import json, sys; from importlib.metadata import version, PackageNotFoundError\n"
        "found = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = version(name)\n"
        "    except PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    said = subprocess.run(
        [str(python), "-c", code, *names], capture_output=True, text=True, check=True, timeout=60
    )
    return dict(json.loads(said.stdout))


def work_folder(cache: Path, name: str, python: Path, make_data: str | None) -> Path:
    """Make a fresh folder for a script, with our own scripts and its generated data."""
    folder = cache / "work" / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(FOREIGN, folder, ignore=shutil.ignore_patterns("__pycache__"))
    if make_data is not None:
        code = f"import make_data; make_data.{make_data}()"
        subprocess.run([str(python), "-c", code], cwd=folder, check=True, timeout=300)
    return folder
