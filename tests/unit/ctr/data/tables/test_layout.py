from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from logs import log_rows, log_text, prepared

from ctrkit.core.errors import UsageError
from ctrkit.ctr.data.tables.layout import find_layout

ROWS = log_rows()
ASKED = {"user": "user", "item": "item", "time": "ts", "label": "label"}
FILE = Path("log.csv")


def _prepared_rows(tmp_path: Path, text: str, **said: object) -> int:
    (tmp_path / "log.csv").write_text(text)
    result = prepared(tmp_path / "log.csv", tmp_path / "store", **said)
    assert result.positives == sum(row[3] for row in ROWS)
    assert result.users == len({row[0] for row in ROWS})
    return result.reading.rows


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|", "::", "||", "\x01", " "])
@pytest.mark.parametrize("named", [False, True])
def test_delimiters_are_found(tmp_path: Path, delimiter: str, named: bool) -> None:
    if named:
        text = log_text(ROWS, delimiter=delimiter, header=None)
        said = {"header": ("user", "item", "ts", "label")}
    else:
        text, said = log_text(ROWS, delimiter=delimiter), {}
    if delimiter == "||":
        said["delimiter"] = "||"
    assert _prepared_rows(tmp_path, text, **said) == len(ROWS)


@pytest.mark.parametrize(("said", "delimiter"), [("~", "~"), ("tab", "\t"), (r"\t", "\t")])
def test_delimiters_are_said(tmp_path: Path, said: str, delimiter: str) -> None:
    text = log_text(ROWS, delimiter=delimiter)
    assert _prepared_rows(tmp_path, text, delimiter=said) == len(ROWS)


def _with(header: str, row: str) -> str:
    lines = [row.format(n, *fields) for n, fields in enumerate(ROWS)]
    return "\n".join([header, *lines]) + "\n"


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (",user,item,ts,label", "{0},{1},{2},{3},{4}"),
        ("user,item,ts,label,,", "{1},{2},{3},{4},,"),
        ("user,item,ts,label", "{1},{2},{3},{4},"),
        ("a,a,user,item,ts,label", "x,y,{1},{2},{3},{4}"),
        ("user,USER,item,ts,label,Label", "{1},9,{2},{3},{4},7"),
        (" user , item,ts ,label", " {1} , {2}, {3},{4}"),
        ('"user","item","ts","label"', '"{1}","{2}","{3}","{4}"'),
        ('"user", "item", "ts", "label"', '"{1}", "{2}", "{3}", "{4}"'),
        ("'user','item','ts','label'", "'{1}','{2}','{3}','{4}'"),
        ('"a, b","user","item","ts","label"', '"1, 2",{1},{2},{3},{4}'),
        ("#user,item,ts,label", "{1},{2},{3},{4}"),
        ("# made by hand\n#\nuser,item,ts,label", "{1},{2},{3},{4}"),
        ("sep=;\nuser;item;ts;label", "{1};{2};{3};{4}"),
        ("Report of May\n\nuser,item,ts,label", "{1},{2},{3},{4}"),
        ("\ufeffuser,item,ts,label", "{1},{2},{3},{4}"),
        ("user:token,item:token,ts:float,label:float", "{1},{2},{3},{4}"),
    ],
)
def test_what_nobody_asked_for_does_not_matter(tmp_path: Path, header: str, row: str) -> None:
    assert _prepared_rows(tmp_path, _with(header, row)) == len(ROWS)


def test_columns_that_are_called_by_numbers(tmp_path: Path) -> None:
    said = {"user": "0", "item": "1", "time": "2", "label": "3"}
    assert _prepared_rows(tmp_path, _with(",0,1,2,3", "{0},{1},{2},{3},{4}"), **said) == len(ROWS)


def test_names_with_commas_and_quotes_are_asked_for_as_they_read(tmp_path: Path) -> None:
    text = _with('"user, id",item,ts,"""label"""', "{1},{2},{3},{4}")
    assert _prepared_rows(tmp_path, text, user="user, id", label='"label"') == len(ROWS)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["1::7::3::978300000"] * 3, "no header, its first line is data.*'1::7::3::978300000',"
         " delimited by '::'.*--header NAME1,NAME2,NAME3,NAME4 --delimiter '::'"),
        (["1,7,pv,1511500000"] * 3, "first line is data.*4 columns.*--header NAME1"),
        (["a,b,2017-05-06 10:00,yes"] * 3, "no header, its first line is data"),
        (["u12,i7,May 6 2017,click", "u7,i9,May 6 2017,view"] * 2, "its first line is data"),
        (["user,item,ts,label", "1,9,8,1494000000,1", "2,9,8,1494000001,0"], "header names 4"
         " columns, but the lines have 5 fields, such as '1,9,8,1494000000,1'.*--header NAME1"),
        (["# old log", "1,7,0,1511500000"], "first line is a comment, '# old log', and no line"),
        (["user~item~ts~label", "1~2~3~4"], "a single column.*--delimiter"),
        (["user,item,ts,lable", "1,2,3,4"], "no column 'label' for --label; its columns are user,"
         " item, ts, lable; is it 'lable'"),
        (["user,item,ts,Label", "1,2,3,4"], "is it 'Label'"),
        (["user,item,ts,label1", "1,2,3,4"], "no column 'label' .* is it 'label1'"),
        (["user,item,ts,la\x1b[31mbel", "1,2,3,4"], r"ts, la\\x1b\[31mbel"),
        (["user,label,item,ts,label", "1,2,3,4"], "columns 2 and 5 are both called 'label'"),
        (["", "  "], "is empty; its first line must name the columns"),
    ],
)  # fmt: skip
def test_what_a_file_without_a_header_is_told(lines: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=rf"log\.csv: .*{message}"):
        find_layout(FILE, lines, ASKED)


def test_a_first_row_that_has_the_names_by_chance() -> None:
    asked = {"user": "1", "item": "7", "time": "1511500000", "label": "0"}
    with pytest.raises(UsageError, match="no header, its first line is data"):
        find_layout(FILE, ["1,7,0,1511500000", "1,8,0,1511500001"], asked)


def test_names_that_do_not_fit_the_lines() -> None:
    lines = ["1,2,1494000000,1", "1,3,1494000001,0"]
    with pytest.raises(UsageError, match="--header names 5 columns, but the first line has 4"):
        find_layout(FILE, lines, ASKED, header=("user", "item", "ts", "label", "more"))
    with pytest.raises(UsageError, match="--header: no column 'ts' for --time"):
        find_layout(FILE, lines, ASKED, header=("user", "item", "time", "label"))


def test_an_accent_may_be_encoded_in_two_ways(tmp_path: Path) -> None:
    text = log_text(ROWS, header="use\u0301r,item,ts,label")
    assert _prepared_rows(tmp_path, text, user="us\u00e9r") == len(ROWS)


def test_the_same_column_for_two_options(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(log_text(ROWS))
    with pytest.raises(UsageError, match="--user and --item both name the column 'user'"):
        prepared(tmp_path / "log.csv", tmp_path / "store", item="user")
    with pytest.raises(UsageError, match="--item and --category both name the column 'item'"):
        prepared(tmp_path / "log.csv", tmp_path / "store", category="item")
    typed = log_text(ROWS, header="user:token,item,ts,label")
    (tmp_path / "log.csv").write_text(typed)
    with pytest.raises(UsageError, match="--user and --item both name the column 'user:token'"):
        prepared(tmp_path / "log.csv", tmp_path / "store", item="user:token")


@pytest.mark.parametrize("names", [["label", "LABEL"], ["LABEL", "label"], ["", ""]])
def test_parquet_columns_by_position(tmp_path: Path, names: list[str]) -> None:
    user, item, ts, label = (list(column) for column in zip(*ROWS, strict=True))
    arrays = [[1 - y for y in label], user, item, ts, label]
    asked = names[1] or "y"
    table = pa.Table.from_arrays(
        [pa.array(values) for values in [*arrays[:4], arrays[0], label]],
        names=[names[0], "user", "item", "ts", names[0] if not names[1] else "z", asked],
    )
    pq.write_table(table, tmp_path / "log.parquet")
    result = prepared(tmp_path / "log.parquet", tmp_path / "store", label=asked)
    assert result.positives == sum(label)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", [[1]] * 5, r"column 'user' holds lists or structs \(list<"),
        ("item", [{"a": 1}] * 5, r"column 'item' holds lists or structs \(struct<"),
        ("user", [b"ab"] * 5, r"column 'user' holds binary values"),
        ("ts", pa.array([1] * 5, pa.time32("s")), "holds times of day without a date"),
        ("ts", pa.array([1] * 5, pa.duration("s")), "holds durations"),
    ],
)
def test_types_that_are_no_ids_or_times(
    tmp_path: Path, column: str, values: object, message: str
) -> None:
    columns = {"user": [1] * 5, "item": [1] * 5, "ts": [1] * 5, "label": [1] * 5}
    pq.write_table(pa.table(columns | {column: values}), tmp_path / "log.parquet")
    with pytest.raises(UsageError, match=message):
        prepared(tmp_path / "log.parquet", tmp_path / "store")


def test_options_of_text_belong_to_text(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user": [1]}), tmp_path / "log.parquet")
    with pytest.raises(UsageError, match="--delimiter is for text files, but .* is Parquet"):
        prepared(tmp_path / "log.parquet", tmp_path / "store", delimiter=",")


@pytest.mark.parametrize(
    "row",
    [
        "{:<8}{:<8}{:<14}{}",
        "{:>8}{:>8}{:>14}{:>6}",
        "{}\t{} {}   {}",
        '{:<8}"{}"   {} {}',
    ],
)
@pytest.mark.parametrize("named", [False, True])
def test_columns_padded_by_runs_of_blanks(tmp_path: Path, row: str, named: bool) -> None:
    names = ("user", "item", "ts", "label")
    text = "" if named else row.format(*names).replace('"', "") + "\n"
    text += "".join(row.format(*values) + "\n" for values in ROWS)
    said = {"header": names} if named else {}
    assert _prepared_rows(tmp_path, text, **said) == len(ROWS)


def test_an_empty_field_between_tabs_is_no_padding(tmp_path: Path) -> None:
    text = "user\titem\tx\tts\tlabel\n"
    text += "".join(f"{u}\t{i}\t\t{t}\t{y}\n" for u, i, t, y in ROWS)
    assert _prepared_rows(tmp_path, text) == len(ROWS)


def test_padding_keeps_blanks_within_quotes_and_drops_short_lines(tmp_path: Path) -> None:
    lines = [f'"u  {u}"   {i}    {t}  {y}' for u, i, t, y in ROWS]
    text = "user  item    ts   label\n" + "\n".join(lines) + "\nshort   line\n"
    (tmp_path / "log.csv").write_text(text)
    result = prepared(tmp_path / "log.csv", tmp_path / "store")
    users = result.store.users()
    assert users is not None
    assert all("u  " in user for user in users["user_id"].to_pylist())
    assert list(result.meta.bad_rows.values()) == [1]
    assert "log.csv: runs of blanks delimit its columns" in result.reading.notes


@pytest.mark.parametrize(
    ("said", "message"),
    [("", "--delimiter '': is empty; say what stands"), ('"', "quotes and line ends cannot stand"),
     ("\n", "quotes and line ends cannot stand")],
)  # fmt: skip
def test_delimiters_that_cannot_be(tmp_path: Path, said: str, message: str) -> None:
    (tmp_path / "log.csv").write_text(log_text(ROWS))
    with pytest.raises(UsageError, match=message):
        prepared(tmp_path / "log.csv", tmp_path / "store", delimiter=said)


def test_a_delimiter_by_its_code(tmp_path: Path) -> None:
    text = log_text(ROWS, delimiter="\x1f")
    assert _prepared_rows(tmp_path, text, delimiter=r"\x1f") == len(ROWS)
