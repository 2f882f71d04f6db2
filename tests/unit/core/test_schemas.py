"""The JSON schemas in docs/schemas match the code, and files of runs match the schemas."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest

from ctrkit.core.config import encode
from ctrkit.core.files import finite
from ctrkit.core.records import Recommendation
from ctrkit.core.runs import RunFolder, info_json
from ctrkit.report.contents import contents_json
from ctrkit.report.run_reader import read_contents

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "unit" / "report" / "golden"


def _maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_schemas", ROOT / "docs/make_schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = _maker()
SCHEMAS: dict[str, Any] = MAKER.schemas()


def check(document: Any, name: str) -> None:
    jsonschema.validate(document, SCHEMAS[name], jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_file_is_up_to_date(name: str) -> None:
    """`python docs/make_schemas.py` renews it."""
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])
    file = ROOT / "docs" / "schemas" / f"{name}.schema.json"
    assert file.read_text(encoding="utf-8") == MAKER.text_of(SCHEMAS[name])


@pytest.mark.parametrize("run", ["probe", "probe-new", "train"])
def test_a_report_keeps_to_its_schema(run: str) -> None:
    contents = read_contents(GOLDEN / run)
    check({"runs": [contents_json(contents)]}, "report")
    check(info_json(contents.info), "run")
    for incident in contents.incidents:
        check(incident, "incident")


def test_a_probe_keeps_to_its_schema() -> None:
    run = RunFolder.open(GOLDEN / "probe")
    found = run.recommendation()
    assert isinstance(found, Recommendation)
    values = finite(encode(found))
    check(values, "recommendation")
    trials = [finite(encode(trial)) for trial in run.trials()]
    check({**values, "run": "run", "trials": trials}, "probe")


def test_what_has_another_type_is_refused() -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({"run": 1, "trials": []}, "probe")
    values = info_json(read_contents(GOLDEN / "probe").info)
    with pytest.raises(jsonschema.ValidationError):
        check({**values, "status": 7}, "run")
