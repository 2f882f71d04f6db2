"""Renders reports as one HTML file that needs no script, no network and no font."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_bytes
from ctrkit.report.blocks import Block, Code, Facts, Paragraph, Report, Section, Table
from ctrkit.report.contents import RunContents
from ctrkit.report.evidence_files import TrialEvidence, read_evidence
from ctrkit.report.ledger_view import HEADING as TIME
from ctrkit.report.pictures import probe_pictures, train_pictures
from ctrkit.report.summary import Summary, again_lines, summary_of
from ctrkit.report.views import moment_words, report_name, report_view
from ctrkit.report.words import clean

if TYPE_CHECKING:
    from jinja2 import Environment

    from ctrkit.report.charts.svg import Chart

_EVIDENCE_BYTES = 300_000
_BAR = "█"
_EVIDENCE_AFTER = ("Failed", "Ended", "Incidents")
# These are on the first screen already, so they are kept whole but folded.
_FOLDED = {"Answer": "The answer in full", "Run": "The status in full"}
# Charts beyond this many of a section are folded.
_MOST_CHARTS = 3
_FEW_CHARTS = {"Batch by batch": 1}
# Sections whose blocks are shown under a chart on the same subject.
_JOINED = {"A step of the recommended configuration": "Where a step goes"}


@dataclass(frozen=True)
class Part:
    """A section of the page: blocks and charts under a heading, folded if so marked.

    `more` are charts that stay folded.
    """

    heading: str
    blocks: tuple[Block, ...] = ()
    charts: tuple[Chart, ...] = ()
    more: tuple[Chart, ...] = ()
    evidence: tuple[TrialEvidence, ...] = ()
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """The report on one run: its first screen, then its parts."""

    title: str
    moment: str
    summary: Summary | None
    about: tuple[Block, ...]
    parts: tuple[Part, ...]


def check_html_extra() -> None:
    """Check that the packages for HTML are installed.

    Raises:
        UsageError: they are not.
    """
    from importlib.util import find_spec

    if find_spec("jinja2") is None or find_spec("matplotlib") is None:
        raise UsageError(
            "--html needs jinja2 and matplotlib; install them with: pip install 'ctrkit[report]'"
        )


def html_document(pages: Sequence[Page]) -> str:
    """The pages as one HTML document with the title of the first page."""
    environment = _environment()
    style = environment.get_template("report.css").render()
    text = environment.get_template("report.html.j2").render(pages=pages, style=_safe(style))
    return text.strip() + "\n"


def run_pages(runs: Sequence[RunContents], *, with_output: bool = False) -> list[Page]:
    """A page for each run folder; they share the document's room for evidence.

    Output of training programs is included only `with_output`.
    """
    room_bytes = _EVIDENCE_BYTES // max(1, len(runs))
    return [
        _run_page(
            contents,
            f"r{number}",
            read_evidence(contents.path / "evidence", room_bytes, with_output=with_output),
        )
        for number, contents in enumerate(runs)
    ]


def _run_page(contents: RunContents, prefix: str, evidence: Sequence[TrialEvidence]) -> Page:
    """The page of a run folder; `prefix` starts the ids of its charts."""
    pictures = probe_pictures if contents.info.command == "probe" else train_pictures
    charts, missing = pictures(contents, prefix)
    contents = replace(contents, missing=tuple(dict.fromkeys((*contents.missing, *missing))))
    report = report_view(contents)
    about = [
        block for section in report.sections if not section.heading for block in section.blocks
    ]
    sections = _joined([section for section in report.sections if section.heading])
    parts = _with_evidence(_with_charts(sections, charts), evidence)
    return Page(
        title=report_name(contents),
        moment=moment_words(contents.info.created),
        summary=summary_of(contents),
        about=tuple(about),
        parts=(*parts, *_origin(contents)),
    )


def plain_page(report: Report) -> Page:
    """The page of a report without a run folder, such as a list of runs."""
    parts = [Part(section.heading, section.blocks) for section in report.sections]
    return Page(title=report.title, moment="", summary=None, about=(), parts=tuple(parts))


def _joined(sections: Sequence[Section]) -> list[Section]:
    """The sections under the page's headings, in its order.

    Sections about cells are joined, and where the time went comes before its results.
    """
    named = [
        Section(
            _JOINED.get(section.heading, section.heading),
            (Paragraph(f"{section.heading}:"), *section.blocks)
            if section.heading in _JOINED
            else section.blocks,
        )
        for section in sections
    ]
    for heading, after in (*((name, "Cells") for name in _JOINED.values()), (TIME, "Run")):
        moved = [section for section in named if section.heading == heading]
        kept = [section for section in named if section.heading != heading]
        place = next((i for i, s in enumerate(kept) if s.heading == after), len(kept) - 1) + 1
        named = [*kept[:place], *moved, *kept[place:]]
    return named


def _with_charts(sections: Sequence[Section], charts: dict[str, list[Chart]]) -> list[Part]:
    """Each section with the charts of its heading; other charts get sections of their own.

    `charts` has the headings in the order of the page.
    """
    parts = [_part(s.heading, s.blocks, charts.get(s.heading, ())) for s in sections]
    before = ""
    for heading, drawn in charts.items():
        headings = [part.heading for part in parts]
        if heading not in headings and drawn:
            # after the previous picture; the first one comes after the first section
            place = headings.index(before) + 1 if before in headings else min(1, len(parts))
            parts.insert(place, _part(heading, (), drawn))
        before = heading
    return parts


def _part(heading: str, blocks: tuple[Block, ...], charts: Sequence[Chart]) -> Part:
    shown = _FEW_CHARTS.get(heading, _MOST_CHARTS)
    return Part(
        _FOLDED.get(heading, heading), blocks, tuple(charts[:shown]), tuple(charts[shown:]),
        folded=heading in _FOLDED,
    )  # fmt: skip


def _with_evidence(parts: Sequence[Part], evidence: Sequence[TrialEvidence]) -> list[Part]:
    if not evidence:
        return list(parts)
    place = next((i for i, part in enumerate(parts) if part.heading in _EVIDENCE_AFTER), None)
    if place is None:
        return [*parts, Part("Evidence", evidence=tuple(evidence))]
    told = replace(parts[place], evidence=tuple(evidence))
    return [*parts[:place], told, *parts[place + 1 :]]


def _origin(contents: RunContents) -> list[Part]:
    """The origin of the figures: machine, versions, fingerprints, and the command."""
    info = contents.info
    rows = list(_flat(info.environment))
    fingerprints = {
        "machine": info.machine_fingerprint, "workload": info.workload_fingerprint,
        "data": info.data_fingerprint,
    }  # fmt: skip
    rows += [
        (f"{what} fingerprint", clean(value, 80)) for what, value in fingerprints.items() if value
    ]
    blocks: list[Block] = [Facts(tuple(rows))]
    return [
        Part("Run it again", (Code(tuple(again_lines(info.argv)), "sh"),)),
        Part("Environment", tuple(blocks), folded=True),
    ]


def _flat(environment: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Names and values such as `versions torch: 2.13.0`, for whatever there is."""
    for group, values in environment.items():
        if isinstance(values, dict):
            for key, value in values.items():
                name, is_size = str(key), str(key).endswith("_bytes") and isinstance(value, int)
                words = format_bytes(value) if is_size else str(value)
                name = name.removesuffix("_bytes").replace("_", " ")
                yield clean(f"{group}: {name}", 60), clean(words, 200)
        else:
            yield clean(str(group), 60), clean(str(values), 200)


def _environment() -> Environment:
    """Templates that escape everything, and show control characters instead of obeying them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ctrkit.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "kind": _kind, "svg": _safe, "unbroken": _unbroken, "without_bars": without_bars,
    }  # fmt: skip
    return environment


def _finalized(value: object) -> object:
    """Escape text that is about to be shown; our own markup passes unchanged."""
    from markupsafe import Markup

    return inert(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def inert(text: str) -> str:
    """The text with control and format characters escaped, except line ends and tabs."""
    return "".join(
        f"\\x{ord(c):02x}"
        if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")
        else c
        for c in text.replace("\r\n", "\n")
    )


def _safe(text: str) -> object:
    """Mark markup that this package made (charts, the style sheet) as safe."""
    from markupsafe import Markup

    return Markup(text)


def _unbroken(text: str) -> str:
    """The text with each number and its unit kept on one line."""
    return re.sub(r"(?<=\d) (?=(?:ms|s|min|h|d)\b|%)", "\u00a0", text)


def _kind(block: object) -> str:
    return type(block).__name__


def without_bars(table: Table) -> Table:
    """The table without columns that draw bars of text, which charts replace here."""
    kept = [i for i in range(len(table.columns)) if any(row[i].strip(_BAR) for row in table.rows)]
    return table.only(kept)
