#!/usr/bin/env bash
# Install ctrkit from a folder of wheels, without a network, beside the torch that is already there,
# and run bench/accelerator.py:  bench/accelerator.sh WHEELS [OPTIONS of accelerator.py]
# Without --out the table and JSON go to results/ of this checkout.
set -euo pipefail
[ $# -ge 1 ] && [ -d "$1" ] || { echo "usage: $0 WHEELS [options]: a folder of wheels, see bench/accelerator_wheels.py" >&2; exit 2; }
wheels=$(cd "$1" && pwd)
shift
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
"$python" -c 'import sys, torch
v = tuple(int(x) for x in torch.__version__.split("+")[0].split(".")[:2])
sys.exit(0 if v >= (2, 11) else f"torch {torch.__version__} is here, and 2.11 or newer is needed")' || exit 2
venv=$(mktemp -d)/venv
trap 'rm -rf "$(dirname "$venv")"' EXIT
# Debian's Python has no ensurepip: the pip of this Python installs into the environment
"$python" -m venv --system-site-packages --without-pip "$venv"
if "$python" -m pip --version > /dev/null 2>&1; then
  pip=("$python" -m pip --python "$venv/bin/python")
else
  "$venv/bin/python" -m ensurepip > /dev/null
  pip=("$venv/bin/python" -m pip)
fi
# torch may lie in a virtual environment itself, whose packages a new one does not see
"$python" -c 'import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])' \
  > "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torch_of_this_machine.pth"
"${pip[@]}" install --quiet --no-index --find-links "$wheels" 'ctrkit[cuda]' pytest pytest-timeout hypothesis
"$venv/bin/python" "$here/accelerator.py" "$@"
