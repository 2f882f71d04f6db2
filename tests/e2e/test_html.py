"""The HTML report of a real probe, opened in a real browser."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Browser, browser, find_chromium
from support import COMMAND

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium or Chrome is installed to look at the report with"
)

# A worker that is forked while the parent holds the lock waits for it for ever.
WORKLOAD = """
import threading
import torch
from torch.utils.data import DataLoader, Dataset

LOCK = threading.Lock()

class Rows(Dataset):
    def __len__(self):
        return 640

    def __getitem__(self, index):
        with LOCK:
            return torch.zeros(8) + index

def make_loader(*, workers, start_method, batch_size):
    loader = DataLoader(
        Rows(), batch_size=batch_size, num_workers=workers,
        multiprocessing_context=start_method if workers else None,
    )
    if workers:
        LOCK.acquire()
    return loader
"""
HOSTILE = "<script>document.title='owned';console.log('owned')</script>\u202e\x1b" + "w" * 3000
SCREENS = [(1280, False), (1280, True), (390, False), (390, True)]

# Of every text that is seen: its contrast with the nearest background that is not transparent.
LEAST_CONTRAST = """(() => {
  const paint = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = color => {
    paint.clearRect(0, 0, 1, 1); paint.fillStyle = color; paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4
  ).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  let least = [99, ''];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility({visibilityProperty: true})) continue;
    const inChart = element.closest('svg') !== null;
    const color = inChart ? getComputedStyle(element).fill : getComputedStyle(element).color;
    let back = element;
    while (back && rgb(getComputedStyle(back).backgroundColor)[3] === 0) back = back.parentElement;
    const [a, b] = [light(rgb(color)), light(rgb(getComputedStyle(back).backgroundColor))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < least[0]) least = [contrast, element.textContent.trim().slice(0, 60)];
  }
  return least;
})()"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a probe with a cell that is ok and one that hangs."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "hangs.py").write_text(WORKLOAD)
    done = subprocess.run(
        [
            COMMAND, "probe", "--workload", "hangs.py:make_loader", "--workers", "0,1",
            "--start-method", "fork", "--batch-size", "64", "--stall-timeout", "2s",
            "--budget", "45s", "--quiet", "--out", "run",
        ],
        cwd=folder, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "run"


def write_report(run: Path, file: Path) -> Path:
    done = subprocess.run(
        [COMMAND, "report", run, "--html", file],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return file


@pytest.fixture(scope="module")
def file(run: Path) -> Path:
    return write_report(run, run.parent / "report.html")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_it_opens_alone_fits_and_can_be_read(
    chromium: Browser, file: Path, width: int, dark: bool
) -> None:
    chromium.events.clear()
    chromium.open(file, width=width, dark=dark)
    assert chromium.complaints() == []
    assert chromium.requests() == [file.resolve().as_uri()]
    assert chromium.value("document.documentElement.scrollWidth") <= width
    shown = "[...document.querySelectorAll('svg')].filter(s => s.checkVisibility()).length"
    assert chromium.value(shown) == chromium.value("document.querySelectorAll('svg').length") / 2
    least, text = chromium.value(LEAST_CONTRAST)
    assert least >= 4.5, text
    assert file.stat().st_size < 1_000_000


def test_the_first_screen_has_the_answer(chromium: Browser, file: Path) -> None:
    chromium.open(file, width=1280)
    bottoms = "[...document.querySelectorAll('.card')].map(c => c.getBoundingClientRect().bottom)"
    assert max(chromium.value(bottoms)) <= 900
    labels = chromium.value("[...document.querySelectorAll('.card h2')].map(h => h.textContent)")
    assert labels == ["Configuration", "How long", "How sure", "Limited by", "What to do"]


def test_the_hang_s_evidence_unfolds(chromium: Browser, file: Path) -> None:
    chromium.open(file)
    assert "1 cell deadlock" in chromium.value("document.querySelector('.badges').textContent")
    evidence = (
        "[...document.querySelectorAll('summary')].find(s => s.textContent.match('Evidence'))"
    )
    stacks = f"{evidence}.parentElement.querySelector('pre').checkVisibility()"
    assert chromium.value(stacks) is False
    chromium.value(f"{evidence}.click()")
    assert chromium.value(stacks) is True
    assert "__getitem__" in chromium.value(f"{evidence}.parentElement.textContent")


def test_hostile_text_does_nothing(chromium: Browser, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    info = json.loads((copy / "run.json").read_text())
    info |= {"status": "ended", "status_reason": HOSTILE, "argv": ["probe", HOSTILE]}
    info["environment"] = {HOSTILE: HOSTILE}
    (copy / "run.json").write_text(json.dumps(info))
    for evidence in (copy / "evidence").iterdir():
        (evidence / "stacks-1.txt").write_text(HOSTILE)
    hostile = write_report(copy, tmp_path / "hostile.html")
    chromium.events.clear()
    chromium.open(hostile, width=390)
    assert chromium.complaints() == []
    assert chromium.requests() == [hostile.resolve().as_uri()]
    assert chromium.value("document.title").startswith("Probe of")
    assert chromium.value("document.scripts.length") == 0
    assert chromium.value("document.documentElement.scrollWidth") <= 390
