"""Fills a folder with all wheels that `bench/accelerator.sh` needs without a network.

torch is not among them: the machine with the accelerator has its own.

    python bench/accelerator_wheels.py WHEELS [--python 3.12] [--platform manylinux_2_28_x86_64]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Requirements of the device's tests besides the package.
TESTS = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100")
#: Older platforms, whose wheels also run on newer ones.
ALSO = ("manylinux_2_17_x86_64", "manylinux2014_x86_64")


def requirements() -> list[str]:
    """Requirements of the package, of its GPU figures and of the tests, without torch."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["cuda"], *TESTS]
    return [one for one in wanted if not one.startswith("torch")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheels", type=Path)
    parser.add_argument("--python", default="3.12")
    parser.add_argument("--platform", default="manylinux_2_28_x86_64")
    options = parser.parse_args()
    platforms = [options.platform, *(ALSO if "manylinux" in options.platform else ())]
    pip, folder = [sys.executable, "-m", "pip"], str(options.wheels)
    subprocess.run(
        [*pip, "download", "--quiet", "--dest", folder, "--only-binary=:all:",
         "--python-version", options.python,
         *(word for name in platforms for word in ("--platform", name)), *requirements()],
        check=True,
    )  # fmt: skip
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT)],
                   check=True)  # fmt: skip


if __name__ == "__main__":
    main()
