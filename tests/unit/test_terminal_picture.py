"""The picture in README shows what ctrkit printed, without the rows that README leaves out."""

import runpy
from xml.etree import ElementTree

from tests.pages import ROOT

MADE = runpy.run_path(str(ROOT / "docs" / "make_terminal.py"))
REPORT = """\x1b[1mProbe of python train.py\x1b[0m
  took             1 min

Answer
  use              8 workers
  note             a long note
                   that goes on
  limited by       the disk

Options
  instead          1 epoch

Cells
  wrk  verdict
"""


def test_the_picture_has_the_answer_and_the_table_only() -> None:
    text = "".join(ElementTree.fromstring(MADE["picture"](REPORT, "ctrkit probe")).itertext())
    text = text.replace("\xa0", " ")
    for there in ("ctrkit probe", "Probe of python train.py", "8 workers", "the disk", "verdict"):
        assert there in text
    for left_out in ("note", "goes on", "Options", "1 epoch"):
        assert left_out not in text


def test_the_committed_picture_is_whole() -> None:
    ElementTree.parse(ROOT / "docs" / "terminal.svg")
