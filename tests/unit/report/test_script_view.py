"""The lines to paste after a probe of a script run the same script."""

from __future__ import annotations

from ctrkit.core.config import ScriptSpec, make_cell
from ctrkit.core.records import Recommendation
from ctrkit.core.script_records import ScriptAnswer
from ctrkit.report.blocks import Code
from ctrkit.report.script_view import script_rows, script_sections

OWN = make_cell(loader="script", batch_size=8)


def code(script: ScriptSpec, answer: ScriptAnswer, *, changed: bool) -> list[str]:
    (section,) = script_sections(script, answer, "r/recommendation.json", changed=changed)
    return [" ".join(block.lines) for block in section.blocks if isinstance(block, Code)]


def test_variables_and_epochs_are_given_again() -> None:
    script = ScriptSpec(
        command=["python", "t.py"], folder="/x", environment={"ROOT": "/my data"}, epochs=3
    )
    answer = ScriptAnswer(as_written=OWN, command=["python", "t.py"])
    assert code(script, answer, changed=False) == [
        "ctrkit train --env 'ROOT=/my data' --epochs 3 -- python t.py"
    ]


def test_placeholders_are_filled_in_where_nothing_puts_them_in() -> None:
    script = ScriptSpec(command=["python", "t.py", "-j", "{workers}"], folder="/x")
    answer = ScriptAnswer(as_written=OWN, command=["python", "t.py", "-j", "0"])
    assert code(script, answer, changed=False) == ["ctrkit train -- python t.py -j 0"]


def test_a_changed_script_can_be_run_with_ctrkit_or_with_its_own_flags() -> None:
    script = ScriptSpec(
        command=["python", "t.py", "-j", "{workers}"], folder="/x", environment={"A": "1"}
    )
    answer = ScriptAnswer(as_written=OWN, command=["python", "t.py", "-j", "4"])
    with_ctrkit, with_flags = code(script, answer, changed=True)
    assert with_ctrkit.split() == [
        "ctrkit", "train", "\\", "--config", "r/recommendation.json", "\\", "--env", "A=1", "\\",
        "--", "python", "t.py", "-j", "'{workers}'",
    ]  # fmt: skip
    assert with_flags == "env A=1 python t.py -j 4"


def test_a_diff_keeps_its_indentation_and_no_control_characters() -> None:
    script = ScriptSpec(command=["python", "t.py"], folder="/x")
    change = "--- a/t.py\n+++ b/t.py\n@@ -1 +1 @@\n-    a = 1\n+    a = 2\x1b[31m\n"
    answer = ScriptAnswer(as_written=OWN, command=script.command, change=change)
    (section,) = script_sections(script, answer, "r.json", changed=True)
    lines = [block.lines for block in section.blocks if isinstance(block, Code)][-1]
    assert lines[:4] == ("--- a/t.py", "+++ b/t.py", "@@ -1 +1 @@", "-    a = 1")
    assert lines[4].startswith("+    a = 2")
    assert "\x1b" not in lines[4]


def test_how_long_the_script_as_written_waits_for_data_stands_beside_it() -> None:
    other = make_cell(loader="script", batch_size=8, workers=4, start_method="fork")
    answer = ScriptAnswer(as_written=OWN, command=["python", "t.py"])
    found = {cell: Recommendation(cell=cell, reason="") for cell in (OWN, other)}
    words = dict(script_rows(answer, found[other], 0.54))["as written"]
    assert words.endswith("; a step waits for data 54 % of its time")
    assert "waits" not in dict(script_rows(answer, found[other]))["as written"]
    assert "as written" not in dict(script_rows(answer, found[OWN], 0.54))
