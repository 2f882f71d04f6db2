"""The table of the bench of scripts: only what was measured, script by script."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from script_cases import CASES, Case

_HEAD = """# Training scripts of others, unedited

`python bench/scripts.py`: each script is probed (`ctrkit probe --thorough --workers 0,2
--start-method fork,spawn -- COMMAND`), then run to its end as written and as recommended, in turn.
"Ours": the package ships no script that runs as it is, so a small one of the bench uses the
framework as its documentation does; torchvision's `nms` is done in Python, since PyPI's build needs
CUDA. Data sets are generated, models are tiny.

Machine: 2 cores, Linux, CPU only, **shared with other work while this ran** (its load average is
in the last column): times are rough, and only ratios of runs in turn say something. A ratio is as
written / recommended, of epochs: the median of the pairs with the least and the most. The
projection is made in one probe, the epochs are run minutes later under another load: that is in
its error. Left behind: processes, `/dev/shm`, temporary files; not counted is what torch and
torchrun leave after any run (`torchinductor_*`, `torchelastic_*`).
"""


def markdown(kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Both tables, in the order of the cases."""
    done = [(case, kept[case.name]) for case in CASES if case.name in kept]
    lines = [
        _HEAD,
        "## What ctrkit found, and whether it is so",
        "",
        "| script | versions | whose | right of epochs, batches, rows | cells | recommended | "
        "ratio in pairs | epoch: projected, run | experiment | left behind | load |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [_row(case, one) for case, one in done]
    lines += ["", "## Cells that were refused or did not end well", ""]
    for case, one in done:
        bad = {(cell["cell"], cell["verdict"], cell["reason"]) for cell in one["cells"]
               if cell["verdict"] not in ("ok", "skipped")}  # fmt: skip
        lines += [f"- {case.name}, `{cell}`: {verdict}: {reason}" for cell, verdict, reason in
                  sorted(bad)]  # fmt: skip
    peers = [(case, one) for case, one in done if one.get("peer")]
    if peers:
        lines += [
            "", "## Side by side with train-doctor 0.2.0", "",
            "`train-doctor fix` with its defaults on the same scripts, with the time limit of the "
            "bench. Its recommendation is what it calls proven.", "",
            "| script | ctrkit's answer after | recommends | ratio in pairs | "
            "train-doctor's answer after | says | ratio in pairs |",
            "| --- | ---: | --- | --- | ---: | --- | --- |",
        ]  # fmt: skip
        lines += [_peer_row(case, one) for case, one in peers]
    return "\n".join(lines) + "\n"


def _row(case: Case, one: Mapping[str, Any]) -> str:
    of = ", ".join(f"{name} {number}" for name, number in one["versions"].items())
    if one["failed"] and not one["recommended"]:
        said = one["failed"].strip().splitlines()[-1][:160]
        return (
            f"| {case.name} | {of} | {_whose(case)} | no answer: {said} |"
            + " |" * 6
            + (f" {_load(one)} |")
        )
    right = ", ".join(one["right"]) or "none"
    wrong = "".join(f"; {name} is {one['found'][name]}, true is {getattr(case, name)}"
                    for name in one["wrong"])  # fmt: skip
    return " | ".join([
        f"| {case.name}", of, _whose(case), right + wrong, _cells(one), _cell(one),
        _ratio(one, "as written", "recommended"), _projected(one), _experiment(one),
        ", ".join(one["left"]) or f"nothing; {one['files']} files in its folder, listed",
        f"{_load(one)} |",
    ])  # fmt: skip


def _whose(case: Case) -> str:
    return "shipped" if case.shipped else "ours"


def _load(one: Mapping[str, Any]) -> str:
    return " .. ".join(f"{value:.1f}" for value in one["load"])


def _cells(one: Mapping[str, Any]) -> str:
    """The number of cells for each verdict."""
    best: dict[str, str] = {}
    for cell in one["cells"]:
        verdict = "predicted" if cell["kind"] == "predicted" else cell["verdict"]
        if best.get(cell["cell"]) in (None, "predicted", "ok"):
            best[cell["cell"]] = verdict
    return ", ".join(f"{count} {verdict}" for verdict, count in Counter(best.values()).items())


def _cell(one: Mapping[str, Any]) -> str:
    cell = one["recommended"]
    if cell == one["as_written"]:
        return "as written"
    words = f"{cell['workers']} workers"
    if cell["workers"]:
        words += f", {cell['start_method']}, prefetch {cell['prefetch']}"
        words += ", persistent" if cell["persistent"] else ""
    return words


def _ratio(one: Mapping[str, Any], before: str, after: str) -> str:
    """How many times faster epochs are, from pairs."""
    pairs = list(zip(one["epoch_s"].get(before, ()), one["epoch_s"].get(after, ()), strict=False))
    if not pairs:
        return "-"
    ratios = [a / b for a, b in pairs]
    return f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} .. {max(ratios):.2f})"


def _projected(one: Mapping[str, Any]) -> str:
    projected = one["projected_epoch_s"]
    real = one["epoch_s"].get("recommended") or one["epoch_s"].get("as written") or []
    if not projected or not real:
        return f"{projected[0]:.2f} s, not run" if projected else "not projected"
    low, high = projected[1:]
    inside = sum(low <= seconds and (high is None or seconds <= high) for seconds in real)
    upper = "no bound" if high is None else f"{high:.2f}"
    return (
        f"{projected[0]:.2f} s ({low:.2f} .. {upper}), {_spread(real)}: "
        f"{projected[0] / statistics.mean(real) - 1:+.0%}, {inside} of {len(real)} inside"
    )


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.2f} s ({min(values):.2f} .. {max(values):.2f})"


def _experiment(one: Mapping[str, Any]) -> str:
    same = {True: "; the same losses printed", False: "; other losses printed", None: ""}
    return (one["experiment"] or "as written") + same[one["same_output"]]


def _peer_row(case: Case, one: Mapping[str, Any]) -> str:
    peer = one["peer"]
    says = (peer.get("headline") or "").replace("|", "/")[:120]
    return (
        f"| {case.name} | {one['probe_s']:.0f} s | {_cell(one)} | "
        f"{_ratio(one, 'as written', 'recommended')} | {peer['s']:.0f} s | {says} | "
        f"{_ratio(one, 'as written (peer' + chr(39) + 's turn)', 'train-doctor')} |"
    )
