"""Writes the JSON schemas in docs/schemas from the dataclasses: `python docs/make_schemas.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ctrkit.core.records import AnswerSoFar, Recommendation, RunInfo, TrialRecord
from ctrkit.core.runs import Incident

FOLDER = Path(__file__).parent / "schemas"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """The schemas by the name of their file, without `.schema.json`."""
    run, recommendation = _schema(RunInfo), _schema(Recommendation)
    trial, incident = _schema(TrialRecord), _schema(Incident)
    # `run.json` calls the settings of a workload its phase
    settings = run["$defs"]["WorkloadSpec"]["properties"]
    settings["phase"] = settings.pop("settings")
    # older runs' incidents have fewer keys, and are reported as they are
    incident["$defs"]["Incident"]["required"] = ["number", "at", "verdict", "reason"]
    trials = {"type": "array", "items": {"$ref": "#/$defs/TrialRecord"}}
    probe = _document(
        "What `ctrkit probe --json` prints: the recommendation's keys where there is one",
        {**recommendation["$defs"]["Recommendation"]["properties"],
         "run": {"type": "string", "description": "the run folder"},
         "trials": trials, "error": {"type": "string"}},
        ["run", "trials"], recommendation, trial,
    )  # fmt: skip
    one_run = {
        "path": {"type": "string"},
        "run": {"$ref": "#/$defs/RunInfo"},
        "running": {"type": "boolean"},
        "trials": trials,
        "recommendation": {"anyOf": [{"$ref": "#/$defs/Recommendation"}, {"type": "null"}]},
        "epochs": {"type": "array", "items": {"type": "object"}},
        "incidents": {"type": "array", "items": {"$ref": "#/$defs/Incident"}},
        "time": {"type": ["object", "null"], "description": "seconds by category of the ledger"},
        "missing": {"type": "array", "items": {"type": "string"}},
    }
    runs = {"type": "object", "properties": one_run, "required": list(one_run)}
    report = _document(
        "What `ctrkit report --json` prints",
        {"runs": {"type": "array", "items": runs}}, ["runs"], recommendation, trial, incident, run,
    )  # fmt: skip
    return {
        "run": run,
        "recommendation": recommendation,
        "incident": incident,
        "probe": probe,
        "answer": _schema(AnswerSoFar),
        "report": report,
    }


def _schema(of: type) -> dict[str, Any]:
    return {"$schema": _DIALECT, **_loose(msgspec.json.schema(of))}


def _loose(value: Any) -> Any:
    """With null for numbers, since NaN and infinity are written so, and with the keys to come."""
    if isinstance(value, list):
        return [_loose(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {key: _loose(one) for key, one in value.items()}
    if found.get("type") == "number":
        found["type"] = ["number", "null"]
    return found


def _document(
    description: str, properties: dict[str, Any], required: list[str], *parts: dict[str, Any]
) -> dict[str, Any]:
    definitions = {name: one for part in parts for name, one in part["$defs"].items()}
    return {
        "$schema": _DIALECT, "description": description, "type": "object",
        "properties": properties, "required": required, "$defs": definitions,
    }  # fmt: skip


def text_of(schema: dict[str, Any]) -> str:
    """As it lies in the file."""
    return json.dumps(schema, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, schema in schemas().items():
        (FOLDER / f"{name}.schema.json").write_text(text_of(schema), encoding="utf-8")
