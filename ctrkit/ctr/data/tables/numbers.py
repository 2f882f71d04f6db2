"""Numbers as people write them: `0,5`, `1,494,000,000`, `1.494.000.000,5` or `1 494 000 000`.

The whole column decides how it writes numbers; then each one is rewritten as `1494000000.5`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_value
from ctrkit.ctr.data.tables.reading import Source
from ctrkit.ctr.data.workspace import Workspace, literal

#: share of the cells; with a smaller share, a number such as 1,234 is a faulty cell
_LEAST_SHARE = 0.01
_GAP = "[ '_\u2019\u00a0\u202f\u2009]"  # separators between groups of three digits
#: a comma that may begin decimals, or a group of three digits
_EITHER = r"[+-]?[1-9][0-9]{0,2},[0-9]{3}"
_PATTERNS = {
    "either": _EITHER,
    "commas": r"[+-]?[1-9][0-9]{0,2}((,[0-9]{3}){2,}(\.[0-9]*)?|,[0-9]{3}\.[0-9]*)",
    "points": r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3}){2,}",
    "gaps": rf"[+-]?[1-9][0-9]{{0,2}}({_GAP}[0-9]{{3}})+(\.[0-9]*)?",
    # after those above: what is left of these has a comma before its decimals
    "decimals": rf"[+-]?([0-9]+|[1-9][0-9]{{0,2}}((\.|{_GAP})[0-9]{{3}})+),[0-9]+",
}


@dataclass(frozen=True)
class Spelling:
    """How a column writes numbers that computers do not read directly.

    Attributes:
        test: a regular expression for the cells to rewrite.
        removed: characters between groups of digits, as a regular expression class.
        comma: whether a comma begins the decimals.
        words: a description for the user.
    """

    test: str
    removed: str
    comma: bool
    words: str

    def sql(self, cell: str) -> str:
        """SQL for the cell, rewritten if it is such a number."""
        plain = f"regexp_replace({cell}, {literal(self.removed)}, '', 'g')"
        if self.comma:
            plain = f"replace({plain}, ',', '.')"
        return f"CASE WHEN regexp_full_match({cell}, {literal(self.test)}) THEN {plain} END"


def choose_spelling(
    where: str, column: str, counts: Mapping[str, int], sample: str | None
) -> Spelling | None:
    """How a column writes its numbers; None for the usual way.

    Args:
        where: the file, for messages.
        column: its name.
        counts: number of cells per name in `_PATTERNS`.
        sample: a cell whose comma may mean either; None if there is none.

    Raises:
        UsageError: nothing decides what a comma means.
    """
    has = {name: counts.get(name, 0) > 0 for name in _PATTERNS}
    clear = has["commas"] != has["decimals"]
    if not clear and (has["either"] or has["commas"]):
        raise UsageError(
            f"{where}: column {format_value(column)} has numbers with a comma, such as"
            f" {format_value(sample)}, and it is not clear whether the comma begins the decimals or"
            " groups the digits; write them with a point, and without a comma between digits"
        )
    if has["decimals"]:
        tests = (_PATTERNS[name] for name in ("either", "points", "decimals"))
        # if commas begin decimals, points group digits
        test = "|".join((*tests, r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+"))
        return Spelling(test, rf"\.|{_GAP}", True, "has decimal commas: 0,5 is read as 0.5")
    if has["commas"]:
        test = f"{_EITHER}|{_PATTERNS['commas']}"
        return Spelling(test, ",", False, "groups its digits: 1,234,567 is read as 1234567")
    if has["points"]:
        test = r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+"
        return Spelling(test, r"\.", False, "groups its digits: 1.234.567 is read as 1234567")
    if has["gaps"]:
        return Spelling(
            _PATTERNS["gaps"], _GAP, False, "groups its digits: 1 234 567 is read as 1234567"
        )
    return None


def rewrite_numbers(space: Workspace, source: Source, *, labels: bool) -> list[str]:
    """Rewrite the numbers of times, and of labels if asked, in the table `cells`.

    Returns:
        What was rewritten, in words.

    Raises:
        UsageError: nothing decides what a comma in them means.
    """
    notes = []
    for field in ("time", "label") if labels else ("time",):
        cell, name = f"{field}_text", source.asked[field]
        spelling = choose_spelling(str(source.files.named), name, *_counts(space, cell))
        if spelling is not None:
            space.run(
                f"UPDATE cells SET {cell} = {spelling.sql(cell)}"
                f" WHERE regexp_full_match({cell}, {literal(spelling.test)})"
            )
            notes.append(f"column {format_value(name)} {spelling.words}")
    return notes


def _counts(space: Workspace, cell: str) -> tuple[dict[str, int], str | None]:
    """The number of cells per pattern (the first that matches), and an ambiguous cell."""
    cases = " ".join(
        f"WHEN regexp_full_match({cell}, {literal(pattern)}) THEN {literal(name)}"
        for name, pattern in _PATTERNS.items()
    )
    # most cells are plain numbers or dates, so only those with such characters are examined
    odd = f"try_cast({cell} AS DOUBLE) IS NULL AND regexp_matches({cell}, '[0-9][^0-9:/-][0-9]')"
    found = space.rows(
        f"SELECT kind, count(*), min({cell}) FROM (SELECT {cell}, CASE {cases} END AS kind"
        f" FROM cells WHERE flaw = 0 AND {odd}) WHERE kind IS NOT NULL GROUP BY kind"
    )
    least = _LEAST_SHARE * int(space.value("SELECT count(*) FROM cells WHERE flaw = 0"))
    counts = {kind: int(count) for kind, count, _ in found if count >= least}
    samples = {kind: sample for kind, _, sample in found}
    return counts, samples.get("either") or samples.get("decimals")
