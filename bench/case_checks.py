"""The expected result of each case: named checks on what the commands left behind.

A case is right if all its expectations hold. Each is a fact that a user would check by eye: an exit
code, a figure, or words that a message must or must not have.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One command line of a case; `code` is None if it exceeded its time limit."""

    line: str
    code: int | None
    stdout: str
    stderr: str
    wall_s: float

    @property
    def text(self) -> str:
        """Its whole output as one line."""
        return " ".join(f"{self.stdout} {self.stderr}".split())

    @property
    def document(self) -> dict[str, Any]:
        """The document that `--json` printed; empty if that is not JSON."""
        try:
            return dict(json.loads(self.stdout))
        except ValueError:
            return {}

    @property
    def findings(self) -> str:
        """The texts of its findings, joined."""
        return " ".join(f["text"] for f in self.document.get("findings", []))

    @property
    def verdicts(self) -> list[str]:
        """The verdict of each trial that was launched."""
        return [t["verdict"] for t in self.document.get("trials", []) if t["launch"]]


Expectations = dict[str, bool]
Check = Callable[[Sequence[Ran], Path], Expectations]


def _any_of(text: str, *words: str) -> bool:
    return any(re.search(word, text, re.IGNORECASE) for word in words)


def _all_of(text: str, *words: str) -> bool:
    return all(re.search(word, text, re.IGNORECASE) for word in words)


def _number_after(text: str, label: str) -> int | None:
    found = re.search(rf"{label}\s+([\d,]+)", text)
    return int(found[1].replace(",", "")) if found else None


def _impressions(text: str) -> int | None:
    train, validation = (_number_after(text, name) for name in ("train", "validation"))
    return None if train is None else train + (validation or 0)


def _clicks(text: str) -> float:
    """The number of clicks, from the table that `data info` prints."""
    rows = re.findall(r"(?:train|validation)\s+([\d,]+)\s+([\d.]+) %", text)
    return sum(int(n.replace(",", "")) * float(share) / 100 for n, share in rows)


def argparse_import(ran: Sequence[Ran], out: Path) -> Expectations:
    one = ran[0]
    named = one.code == 2 and _all_of(one.text, "command line", r"__main__|parse_args\(\[\]\)")
    fine = one.code == 0 and set(one.verdicts) == {"ok"}
    return {"it runs, or is refused with the way out": fine or named}


def avazu_hour(ran: Sequence[Ran], out: Path) -> Expectations:
    prepare, info = ran
    refused = prepare.code == 2 and _all_of(prepare.text, "hour", "14102100", "YYMMDDHH")
    dated = prepare.code == 0 and "2014-10" in info.text and "1970" not in info.text
    return {"October 2014, or refused with the form": refused or dated}


def batch_sampler_epoch(ran: Sequence[Ran], out: Path) -> Expectations:
    found: Expectations = {"exit 0": all(r.code == 0 for r in ran)}
    for name, one in (("without workers", ran[1]), ("with a worker", ran[3])):
        told = re.findall(r"told epoch (\d+): begins with rows (\[.*?\])", one.stdout)
        epochs, orders = [int(e) for e, _ in told], {order for _, order in told}
        found[f"epochs 1, 2, 3 and three orders {name}"] = epochs == [1, 2, 3] and len(orders) == 3
    return found


def case_columns(ran: Sequence[Ran], out: Path) -> Expectations:
    found = {}
    for name, one in (("Parquet", ran[0]), ("CSV", ran[1])):
        folder = out / ("a" if name == "Parquet" else "b")
        told = one.code == 2 and _all_of(one.text, "label", "LABEL", "rename")
        counted = one.code == 0 and folder.is_dir() and abs(_clicks(one.text) - 300) < 3
        found[f"300 positives of {name}, or refused"] = told or counted
    return found


def cpu_quota(ran: Sequence[Ran], out: Path) -> Expectations:
    report = Path(f"{out}.doctor.json")
    text = ran[0].text + (report.read_text() if report.is_file() else "")
    return {
        "the quota is said": _all_of(text, r"0\.5|half", "quota|control group|throttl"),
        "1 thread": not _any_of(text, r"2 threads|threads 2"),
    }


def dashed_spawn(ran: Sequence[Ran], out: Path) -> Expectations:
    one = ran[0]
    fine = one.code == 0 and len(one.verdicts) >= 3 and set(one.verdicts) == {"ok"}
    told = _all_of(one.text, r"click-loader\.py", "rename")
    return {"all cells ok, or the name is blamed": fine or told}


def float_ids(ran: Sequence[Ran], out: Path) -> Expectations:
    a, b = ran[0], ran[1]
    users = _number_after(b.text, "user")
    return {
        "40 rows without a user": _any_of(a.text, r"\b40\b") or a.code == 2,
        "beyond 2^53 is said": _any_of(a.text, r"2\^53|2\*\*53|9,007,199", "floating"),
        "200 users, or a warning": users in (200, 202) or _all_of(b.text, r"57\.0"),
    }


def hup_train(ran: Sequence[Ran], out: Path) -> Expectations:
    text = ran[0].text
    return {
        "plain: saved": _any_of(text, r"plain: exit (129|130)") and "last.pt" in text,
        "nothing left over": "processes left over: 0" in text,
        "resume: exit 0": "resume: exit 0" in text,
        "nohup: exit 0": "nohup: exit 0" in text,
    }


def iterable_dup(ran: Sequence[Ran], out: Path) -> Expectations:
    one = ran[0]
    return {
        "exit 0": one.code == 0,
        "200 and 100 batches are said": _all_of(one.findings, r"\b200\b", r"\b100\b"),
        "workers=2 is not recommended": one.document.get("cell", {}).get("workers") == 0,
        "an epoch of about 2.1 s": 1.6 < (one.document.get("projected_epoch_s") or 0) < 4,
    }


def len_in_rows(ran: Sequence[Ran], out: Path) -> Expectations:
    one = ran[0]
    return {
        "exit 0": one.code == 0,
        "an epoch of about 2.3 s": 1.8 < (one.document.get("projected_epoch_s") or 0) < 4.5,
        "15 epochs of about 35 s": 25 < (one.document.get("projected_total_s") or 0) < 75,
        "both numbers are said": _all_of(one.findings, "32,000", r"\b500\b"),
    }


def list_batch_rows(ran: Sequence[Ran], out: Path) -> Expectations:
    path = out / "t" / "epochs.csv"
    rows = list(csv.DictReader(path.open())) if path.is_file() else []
    counted = [float(row["rows"]) for row in rows if row.get("rows")]
    speeds = [
        t["rows_per_s"] * t["step_s"]
        for t in ran[1].document.get("trials", [])
        if t["launch"] and t["rows_per_s"] and t["step_s"]
    ]
    unknown = _any_of(ran[0].text, "rows .*not known")
    return {
        "6,400 rows, or not known": counted == [6400.0] or unknown,
        "64 rows a batch": unknown or (bool(speeds) and all(50 < s < 80 for s in speeds)),
    }


def movielens_dat(ran: Sequence[Ran], out: Path) -> Expectations:
    a, b = ran
    return {
        "exit 2 twice": a.code == 2 and b.code == 2,
        "no header is said twice": all(_any_of(r.text, "header") for r in ran),
        "`::` is named": "::" in a.text and _any_of(a.text, "delimiter"),
    }


def open_quote(ran: Sequence[Ran], out: Path) -> Expectations:
    prepare, info = ran
    all_used = _impressions(info.text) == 900
    said = _any_of(prepare.text, "quote") and "302" in prepare.text
    return {"all 900 rows, or the loss is said": all_used or said}


def pandas_index(ran: Sequence[Ran], out: Path) -> Expectations:
    return {
        "exit 0 twice": all(r.code == 0 for r in ran),
        "500 rows twice": all(_impressions(r.text) == 500 for r in ran),
        "140 clicks twice": all(abs(_clicks(r.text) - 140) < 2 for r in ran),
    }


def returned_dataset(ran: Sequence[Ran], out: Path) -> Expectations:
    train, probe = ran
    return {
        "train ends with exit 2": train.code == 2,
        "probe ends with exit 2 or 4": probe.code in (2, 4),
        "what came is said": all(_all_of(r.text, "Impressions", "DataLoader") for r in ran),
    }


def sorted_steps(ran: Sequence[Ran], out: Path) -> Expectations:
    probe, train = ran
    document = probe.document
    low, high = document.get("projected_total_s_low"), document.get("projected_total_s_high")
    bound = low is not None and (high is None or high >= 185)
    return {
        "a trend is said": _any_of(probe.findings, "slower"),
        "a lower bound, or the whole": bound or _any_of(probe.findings, "at least"),
        "no 0 ms as low end": bool(low),
        "train holds it, or says why not": train.code == 0
        and _any_of(train.text, "late.*slower", r"epoch 1: .*projected .*at least"),
    }


def tuple_of_loaders(ran: Sequence[Ran], out: Path) -> Expectations:
    a, b = ran
    return {
        "exit 2 or 4 twice": a.code in (2, 4) and b.code in (2, 4),
        "a tuple of 2 DataLoaders": _all_of(a.text, "tuple", "2 DataLoaders|DataLoader"),
        "a dict of loaders": _all_of(b.text, "dict", "DataLoader|loaders"),
    }


def usr1_handler(ran: Sequence[Ran], out: Path) -> Expectations:
    trials = [t for t in ran[0].document.get("trials", []) if t["launch"]]
    reasons = " ".join(t["reason"] for t in trials)
    return {
        "exit 4": ran[0].code == 4,
        "both are deadlocks": [t["verdict"] for t in trials] == ["deadlock", "deadlock"],
        "the line of the wait": "loader.py:27" in reasons,
        "the user's handler never ran": not Path(f"{out}.preempted").exists(),
    }


def zero_batches(ran: Sequence[Ran], out: Path) -> Expectations:
    return {
        "exit 2, 3 or 4": all(r.code in (2, 3, 4) for r in ran),
        "the largest batch size is named": all(_all_of(r.text, r"\b500\b") for r in ran),
        "drop_last is named": all(_all_of(r.text, "drop_last") for r in ran),
        "no longer budget": not any("longer --budget" in r.text for r in ran),
    }


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        argparse_import, avazu_hour, batch_sampler_epoch, case_columns, cpu_quota, dashed_spawn,
        float_ids, hup_train, iterable_dup, len_in_rows, list_batch_rows, movielens_dat,
        open_quote, pandas_index, returned_dataset, sorted_steps, tuple_of_loaders, usr1_handler,
        zero_batches,
    )
}  # fmt: skip
