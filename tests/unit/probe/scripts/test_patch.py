"""The change to a script: in the right call, formatting kept, refused if impossible."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from ctrkit.probe.scripts.patch import PatchError, loader_settings, patched, unified_diff

SETTINGS = {"num_workers": 4, "persistent_workers": True}

MANY_LINES = """\
train_loader = DataLoader(
    train_set,
    batch_size=64,  # rows
    shuffle=True,
)
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("dl = DataLoader(d)\n", "dl = DataLoader(d, num_workers=4, persistent_workers=True)\n"),
        (
            "dl = torch.utils.data.DataLoader(d, 64, num_workers=args.j)\n",
            "dl = torch.utils.data.DataLoader(d, 64, num_workers=4, persistent_workers=True)\n",
        ),
        ("dl = DataLoader(d, 8, True, None, None, 2)\n",
         "dl = DataLoader(d, 8, True, None, None, 4, persistent_workers=True)\n"),
        (
            MANY_LINES,
            MANY_LINES.replace(
                "True,\n)", "True,\n    num_workers=4,\n    persistent_workers=True,\n)"
            ),
        ),
    ],
)  # fmt: skip
def test_settings_are_put_in_and_the_rest_stays(text: str, wanted: str) -> None:
    assert patched(text, 1, SETTINGS) == wanted


def test_the_call_of_the_line_is_changed_and_no_other() -> None:
    text = "a = DataLoader(x)\nb = DataLoader(y)\n"
    assert patched(text, 2, {"num_workers": 1}) == (
        "a = DataLoader(x)\nb = DataLoader(y, num_workers=1)\n"
    )


def test_without_workers_what_only_they_have_is_taken_out() -> None:
    settings = loader_settings(0, {"prefetch": None, "persistent": False, "start_method": None})
    text = 'dl = DataLoader(d, num_workers=2, prefetch_factor=4, multiprocessing_context="fork")\n'
    changed = patched(text, 1, settings)
    assert "prefetch_factor" not in changed
    assert "multiprocessing_context" not in changed
    ast.parse(changed)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("dl = DataLoader(d, **options)\n", "dictionary"),
        ("dl = make(d)\n", "does not call a DataLoader"),
        ("a, b = DataLoader(x), DataLoader(y)\n", "more than one"),
        ("dl = DataLoader(d\n", "cannot be parsed"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(text: str, why: str) -> None:
    with pytest.raises(PatchError, match=why):
        patched(text, 1, SETTINGS)


@pytest.mark.skipif(shutil.which("patch") is None, reason="there is no patch command")
@pytest.mark.parametrize("end", ["\n", ""])
def test_the_diff_can_be_applied(tmp_path: Path, end: str) -> None:
    before = "import x\nloader = DataLoader(d)\nfor b in loader: pass" + end
    after = patched(before, 2, SETTINGS)
    (tmp_path / "train.py").write_text(before)
    done = subprocess.run(
        ["patch", "-p1"], input=unified_diff(before, after, "train.py"), text=True, cwd=tmp_path,
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "train.py").read_text() == after
