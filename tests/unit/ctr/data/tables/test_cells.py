from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import log_rows, log_text, prepared

from ctrkit.core.errors import UsageError

ROWS = log_rows()
USERS = len({row[0] for row in ROWS})
POSITIVES = sum(row[3] for row in ROWS)
OF_USER_7 = sum(row[0] == 7 for row in ROWS)


def _csv(tmp_path: Path, **written: object) -> Path:
    (tmp_path / "log.csv").write_text(log_text(ROWS, **written))  # type: ignore[arg-type]
    return tmp_path / "log.csv"


def _parquet(tmp_path: Path, user: pa.Array) -> Path:
    columns = [list(column) for column in zip(*ROWS, strict=True)]
    table = {"user": user, "item": columns[1], "ts": columns[2], "label": columns[3]}
    pq.write_table(pa.table(table), tmp_path / "log.parquet")
    return tmp_path / "log.parquet"


@pytest.mark.parametrize(
    "text", ["NaN", "nan", "NULL", "null", "None", r"\N", "NA", "<NA>", "N/A", '"NULL"', "NaT"]
)
def test_texts_that_stand_for_no_id(tmp_path: Path, text: str) -> None:
    path = _csv(tmp_path, user=lambda user: text if user == 7 else str(user))
    result = prepared(path, tmp_path / "store", accept_loss=True)
    assert result.meta.bad_rows == {"log.csv: user is missing": OF_USER_7}
    shown = text.strip('"').replace("\\", "\\")
    assert result.reading.first_bad["log.csv: user is missing"].endswith(f"'{shown}'")
    assert result.users == USERS - 1


@pytest.mark.parametrize("text", ["", '""', "  ", "\u00a0"])
def test_empty_ids(tmp_path: Path, text: str) -> None:
    path = _csv(tmp_path, user=lambda user: text if user == 7 else str(user))
    result = prepared(path, tmp_path / "store", accept_loss=True)
    assert result.meta.bad_rows == {"log.csv: user is empty": OF_USER_7}


def test_a_number_in_two_spellings_is_one_id(tmp_path: Path) -> None:
    spelled = iter(range(len(ROWS)))
    path = _csv(tmp_path, user=lambda user: f"{user}.0" if next(spelled) % 2 else str(user))
    result = prepared(path, tmp_path / "store")
    assert result.users == USERS
    assert (
        "written in two ways, 60 times like 57 and 60 times like 57.0"
        in (result.reading.warnings[0])
    )


def test_the_powers_that_r_writes_are_the_numbers_but_not_hexadecimal_ids(tmp_path: Path) -> None:
    names = {7: "1e+05", 8: "100000", 9: "1e5"}
    path = _csv(tmp_path, user=lambda user: names.get(user, str(user)))
    assert prepared(path, tmp_path / "store").users == USERS - 1


def test_ids_that_differ_by_zeros_before_them_are_warned_of(tmp_path: Path) -> None:
    spelled = iter(range(len(ROWS)))
    path = _csv(tmp_path, user=lambda user: f"00{user}" if next(spelled) % 2 else str(user))
    warnings = prepared(path, tmp_path / "store").reading.warnings
    assert "numbers with and without zeros before them, such as '" in warnings[0]
    alone = _csv(tmp_path, user=lambda user: f"{user:08}")
    assert prepared(alone, tmp_path / "alone").reading.warnings == []


@pytest.mark.parametrize(
    ("user", "message"),
    [
        (lambda user: f"{1234567890123 + user:.5E}", "such as '1.23457E+12', which are rounded"),
        (
            lambda user: repr(float(2**60 + user)),
            "120 floating-point values above 2^53 (9,007,199,254",
        ),
    ],
)
def test_ids_that_lost_digits_are_warned_of(tmp_path: Path, user: object, message: str) -> None:
    warnings = prepared(_csv(tmp_path, user=user), tmp_path / "store").reading.warnings
    assert message in warnings[0]


@pytest.mark.parametrize(
    ("kind", "base", "limit"),
    [
        (pa.float64(), 2**60, "9,007,199,254,740,992"),
        (pa.float32(), 2**25, "16,777,216"),
        (pa.float64(), 2**30, None),
        (pa.float32(), 0, None),
    ],
)
def test_floating_point_columns(
    tmp_path: Path, kind: pa.DataType, base: int, limit: str | None
) -> None:
    users = [float(base + row[0]) if row[0] != 7 else float("nan") for row in ROWS]
    path = _parquet(tmp_path, pa.array(users, kind))
    result = prepared(path, tmp_path / "store", accept_loss=True)
    assert result.meta.bad_rows == {"log.parquet: user is missing": OF_USER_7}
    assert [str(limit) in warning for warning in result.reading.warnings] == [True] * bool(limit)
    if limit is None:
        assert result.users == USERS - 1


@pytest.mark.parametrize(
    "user",
    [
        pa.array([2**63 + row[0] for row in ROWS], pa.uint64()),
        pa.array([str(row[0]) for row in ROWS]).dictionary_encode(),
        pa.array([row[0] for row in ROWS]).cast(pa.decimal128(24, 2)),
        pa.array([str(row[0]) for row in ROWS], pa.large_string()),
    ],
)
def test_types_that_hold_ids_whole(tmp_path: Path, user: pa.Array) -> None:
    result = prepared(_parquet(tmp_path, user), tmp_path / "store")
    assert result.users == USERS
    assert result.reading.warnings == []


WORDS = [("0", "1"), ("0.0", "1.0"), ("no", "yes"), ("No", "YES"), ("off", "on"), ("F", "T"),
         ("False", "true"), ("n", "Y")]  # fmt: skip


@pytest.mark.parametrize("words", WORDS)
def test_words_for_labels(tmp_path: Path, words: tuple[str, str]) -> None:
    path = _csv(tmp_path, label=lambda label: words[label])
    assert prepared(path, tmp_path / "store").positives == POSITIVES


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("view", "click"), ("click",)),
        (("-1", "1"), ("1",)),
        (("1.0", "2.0"), ("2",)),
        (("pv", "buy"), ("buy",)),
        (("it's", 'a "b"'), ('a "b"',)),
    ],
)
def test_labels_that_are_said(
    tmp_path: Path, words: tuple[str, str], said: tuple[str, ...]
) -> None:
    path = _csv(tmp_path, label=lambda label: words[label])
    result = prepared(path, tmp_path / "store", positive=said)
    assert result.positives == POSITIVES
    assert result.reading.notes[-1] == f"a row is positive where label is {said[0]}"


@pytest.mark.parametrize(
    ("words", "said", "message"),
    [
        (("view", "click"), {}, r"holds 'view' \(\d+ rows\), 'click' \(\d+ rows\), but a label is 0"
         " or 1, true or false, yes or no, on or off; say which are positive: --positive click"),
        (("-1", "1"), {}, "holds '-1' .*--label-threshold .*--positive"),
        (("1", "2"), {}, "holds '2' .*'1' .*--label-threshold"),
        (("view", "click"), {"positive": ("buy",)}, "has no value 'buy', .*it holds 'view'"),
        (("\x1b[31mv", "\x1b[0mc"), {}, r"holds '\\x1b\[31mv'"),
        (("0", "1"), {"positive": ("1",), "label_threshold": 1.0}, "exclude each other"),
        (("no", "yes"), {"label_threshold": 1.0}, "no usable row: 120 x label is not a number,"
         " first in line 2: '(no|yes)'"),
    ],
)  # fmt: skip
def test_labels_that_are_refused_with_samples(
    tmp_path: Path, words: tuple[str, str], said: dict[str, object], message: str
) -> None:
    path = _csv(tmp_path, label=lambda label: words[label])
    with pytest.raises(UsageError, match=message):
        prepared(path, tmp_path / "store", **said)


def test_a_few_labels_of_another_kind_are_counted(tmp_path: Path) -> None:
    text = log_text(ROWS) + "1,1,1494000000,?\n1,1,1494000000,NULL\n1,1,1494000000,\n"
    (tmp_path / "log.csv").write_text(text)
    assert prepared(tmp_path / "log.csv", tmp_path / "store").reading.first_bad == {
        "log.csv: label is not 0 or 1": "line 122: '?'",
        "log.csv: label is missing": "line 123: 'NULL'",
        "log.csv: label is empty": "line 124",
    }


@pytest.mark.parametrize("label", ["0", "1"])
def test_labels_that_are_all_the_same_are_warned_of(tmp_path: Path, label: str) -> None:
    result = prepared(_csv(tmp_path, label=lambda _: label), tmp_path / "store")
    which = "every row is positive" if label == "1" else "no row is positive"
    assert result.reading.warnings == [f"{which}: a model learns nothing from column 'label'"]


def test_many_dropped_rows_are_an_error_unless_accepted(tmp_path: Path) -> None:
    rows = log_text(ROWS).splitlines()
    broken = [f"{row},more" if number % 4 == 1 else row for number, row in enumerate(rows)]
    (tmp_path / "log.csv").write_text("\n".join(broken) + "\n")
    with pytest.raises(
        UsageError,
        match=r"30 of 120 rows \(25 %\) cannot be used: 30 x line has more than the 4 columns of"
        r" the header, first in line 2: '.*,more'; --accept-loss continues",
    ):
        prepared(tmp_path / "log.csv", tmp_path / "store")
    result = prepared(tmp_path / "log.csv", tmp_path / "store", accept_loss=True)
    assert (result.reading.rows, result.reading.used) == (120, 90)


MEANT_AS_NONE = ["inf", "-inf", "Infinity", "#N/A", "#VALUE!", "NaT", "undefined", "(null)", "nil"]
MEANT_AS_NONE += ["-", "--", "?", ".", "\u2013", "\u200b"]


@pytest.mark.parametrize("text", MEANT_AS_NONE)
def test_texts_that_programs_and_people_write_for_no_id(tmp_path: Path, text: str) -> None:
    path = _csv(tmp_path, user=lambda user: text if user == 7 else f"u{user}")
    result = prepared(path, tmp_path / "store", accept_loss=True)
    assert result.meta.bad_rows == {"log.csv: user is missing": OF_USER_7}


@pytest.mark.parametrize("text", ["unknown", "Anonymous", "(not set)", "-1"])
def test_ids_that_may_stand_for_none_are_used_and_warned_of(tmp_path: Path, text: str) -> None:
    path = _csv(tmp_path, user=lambda user: text if user == 7 else str(user))
    result = prepared(path, tmp_path / "store")
    assert result.meta.bad_rows == {}
    assert f"holds {text if text == '-1' else 'texts such as'}" in result.reading.warnings[0]
    assert f"in {OF_USER_7} rows" in result.reading.warnings[0]


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("{}", "+{}", "times like 57 and"),
        ("{}", "+{}.0", "is written in three ways"),
        ("caf\u00e9{}", "cafe\u0301{}", "accents are characters of their own"),
        ("\u30ac{}", "\u30ab\u3099{}", "accents are characters of their own"),
        ("{}", "\ufeff{}", None),
        ("x{}", "x{}\u3000", None),
    ],
)
def test_spellings_of_one_id(tmp_path: Path, one: str, other: str, words: str | None) -> None:
    spelled = iter(range(len(ROWS)))
    path = _csv(tmp_path, user=lambda user: (other if next(spelled) % 2 else one).format(user))
    result = prepared(path, tmp_path / "store")
    assert result.users == USERS
    assert [words in warning for warning in result.reading.warnings] == [True] * bool(words)


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ("u{}", "U{}", "differ by capital letters only"),
        ("1{}000", '"1{},000"', "are the same number with and without a comma"),
        ("{}", '"{},0"', "are the same number with and without a comma"),
        ("{}", "{{{}}}", "differ by what stands around them only"),
        ("u{}", "'u{}", "differ by what stands around them only"),
        ("{}", '="{}"', "differ by what stands around them only"),
        ("{}000", "{}e3", "are the same number with and without a power"),
    ],
)
def test_different_ids_that_look_alike_are_warned_of(
    tmp_path: Path, one: str, other: str, words: str
) -> None:
    spelled = iter(range(len(ROWS)))
    path = _csv(tmp_path, user=lambda user: (other if next(spelled) % 2 else one).format(user + 1))
    result = prepared(path, tmp_path / "store")
    assert result.users > USERS
    assert words in result.reading.warnings[0]
    assert "they are different ids here" in result.reading.warnings[0]


def test_ids_in_both_cases_that_never_meet_are_no_doubt(tmp_path: Path) -> None:
    path = _csv(tmp_path, user=lambda user: f"U{user}" if user % 2 else f"v{user}")
    assert prepared(path, tmp_path / "store").reading.warnings == []


@pytest.mark.parametrize("said", [("a,b",), ("a,b", "buy"), ("2.0",), ("caf\u00e9",)])
def test_positives_with_commas_points_and_accents(tmp_path: Path, said: tuple[str, ...]) -> None:
    words = {"a,b": '"a,b"', "2.0": "2", "caf\u00e9": "cafe\u0301"}
    path = _csv(tmp_path, label=lambda label: words[said[0]] if label else "buy")
    result = prepared(path, tmp_path / "store", positive=said)
    assert result.positives == (len(ROWS) if "buy" in said else POSITIVES)


@pytest.mark.parametrize(
    ("words", "said", "message"),
    [
        (("x", '"a,b"'), ("a", "b"), r"""in quotes: --positive '"a,b"'"""),
        (("4 stars", "5 stars"), None, r"say which are positive: --positive VALUE,VALUE,\.\.\."),
        (("view", "add to cart"), None, r"--positive VALUE,VALUE,\.\.\."),
        (("view", "Purchase"), None, "--positive Purchase"),
        (("-", "+"), None, r"--positive \+"),
    ],
)
def test_advice_on_labels_is_what_can_be_pasted_or_plainly_no_value(
    tmp_path: Path, words: tuple[str, str], said: tuple[str, ...] | None, message: str
) -> None:
    path = _csv(tmp_path, label=lambda label: words[label])
    with pytest.raises(UsageError, match=message):
        prepared(path, tmp_path / "store", positive=said)


@pytest.mark.parametrize(
    "other",
    [
        hex,
        lambda user: f"0x{user:04X}",
        lambda user: f"0b{user:b}",
        lambda user: "".join(chr(0x660 + int(digit)) for digit in str(user)),
        lambda user: "".join(chr(0xFF10 + int(digit)) for digit in str(user)),
    ],
)
def test_a_number_in_another_notation_is_warned_of(
    tmp_path: Path, other: Callable[[int], str]
) -> None:
    turn = iter(range(len(ROWS)))
    path = _csv(tmp_path, user=lambda user: other(user) if next(turn) % 2 else str(user))
    warnings = prepared(path, tmp_path / "store").reading.warnings
    assert any("are the same number in another notation" in warning for warning in warnings)
    path = _csv(tmp_path, user=other)
    assert prepared(path, tmp_path / "other").reading.warnings == []


def test_thousands_with_underscores_are_warned_of_but_not_composed_ids(tmp_path: Path) -> None:
    for write, warned in (
        (lambda n: f"{n:_}" if n % 2 else str(n), False),
        (lambda n: f"{n // 2 * 2:_}" if n % 2 else str(n), True),
        (lambda n: f"1_0{n % 10}" if n % 2 else f"10{n % 10 + 1}", False),
    ):
        path = _csv(tmp_path, user=lambda user, write=write: write(user + 1000))
        warnings = prepared(path, tmp_path / f"store{warned}{write(1001)}").reading.warnings
        assert any("another notation" in warning for warning in warnings) is warned
