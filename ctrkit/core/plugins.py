"""Workloads as plug-ins: what the parent process knows about one.

A package registers a `Plugin` as an entry point of the group `ctrkit.workloads`. The parent asks
it for settings, data and what its metrics mean; the child asks it for the `Workload` itself. So
the module of a plug-in must not import torch: `Plugin.workload` does, and only the child calls it.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctrkit.core.config import Watch, decode, encode
from ctrkit.core.epochs import FIXED_COLUMNS
from ctrkit.core.errors import CtrkitError, UsageError
from ctrkit.core.units import format_significant

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_ALWAYS_SHOWN = 3

OnProgress = Callable[[str, float], None]
"""Called with (what is done, share of the whole) while data are made."""


@dataclass(frozen=True, kw_only=True)
class KnownEpoch:
    """An epoch of a run that was really made, to put a new run's epochs beside.

    Args:
        run: what the run is called.
        epoch: 1, 2, ...
        metrics: its figures, by the column names of `epochs.csv`.
        comparable_if: for a metric that is the same figure only under the same settings, those
            settings.
    """

    run: str
    epoch: int
    metrics: Mapping[str, float]
    comparable_if: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How reports show a metric, which is a column of `epochs.csv`.

    Args:
        name: of the column.
        label: what reports call it; the name where it is empty.
        decimals: how many are shown; as many as the size of the number needs where it is None.
        left_out: where a table has too little room the columns of the highest number go first;
            0 stays.
        panel: title of the chart it is drawn in; metrics of one title share it.
        live: what the line after an epoch calls it; left out of that line where it is empty.
    """

    name: str
    label: str = ""
    decimals: int | None = None
    left_out: int = 0
    panel: str = ""
    live: str = ""

    def text(self, value: float | None) -> str:
        """The value as reports show it; empty where it is not known."""
        if value is None:
            return ""
        if self.decimals is not None or value == 0 or 1e-3 <= abs(value) < 1e5:
            return f"{value:.{4 if self.decimals is None else self.decimals}f}"
        return format_significant(value, 4)


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """Settings of a workload that has none."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """What can be told of a data folder without a child."""

    fingerprint: str
    train_rows: int | None = None


class Plugin:
    """What the parent knows of a workload. A plug-in is a subclass of it.

    Settings are a frozen dataclass of plain values, `settings_type`. `--phase NAME` takes a named
    set of them, a TOML file of the folder `phases`, `--phase FILE` a TOML file of one's own, and
    `--set KEY=VALUE` overrides a key. They are kept in `run.json` and handed to `workload`.
    """

    #: its name on the command line: that of its entry point
    name: str = ""
    #: a frozen dataclass, with a default for every field
    settings_type: type[Any] = NoSettings
    #: a folder of TOML files with flat keys, one for each name of `--phase`
    phases: Traversable | None = None
    #: the one that is taken without `--phase`; without a name the defaults of `settings_type`
    default_phase: str = ""
    #: settings that change no step: a run can be resumed, and be compared, with others
    free_settings: tuple[str, ...] = ("name", "epochs", "patience")
    #: whether it takes `--data DIR`
    takes_data: bool = False
    #: what reports call the data that it takes without `--data`
    default_data: str = ""
    #: the metrics it is known to have, as reports show them; others are shown by their names
    metrics: Sequence[Metric] = ()
    #: the metric that decides on best.pt and patience, where the `Workload` says nothing of it
    watch: Watch | None = None
    #: whether its module brought torch into the parent, which then starts seconds later
    imports_torch: bool = False
    #: epochs of other runs that its reports put beside a run's own, and a sentence on them
    known_epochs: Sequence[KnownEpoch] = ()
    known_note: str = ""

    # ---- the parent's part -----------------------------------------------------------------------

    def check_settings(self, settings: Any, where: str) -> None:
        """Check values that are of the right type.

        Raises:
            UsageError: a value is out of range; the message begins with `where`.
        """

    def prepare_data(self, data: Path | None, on_progress: OnProgress) -> Path | None:
        """The folder that the child shall read; made first, where there is a default one.

        Args:
            data: what `--data` names, None without it.
            on_progress: shows what is done meanwhile.

        Raises:
            UsageError: the folder is not what it should be.
        """
        return data

    def data_facts(self, data: Path) -> DataFacts | None:
        """What the folder holds, as far as that is known without torch; None: only a child tells.

        Raises:
            UsageError: it cannot be read.
        """
        return None

    def with_epochs(self, settings: Any, epochs: int) -> Any:
        """The settings of a run that was asked for so many epochs (`--epochs`)."""
        return settings

    def title(self, settings: Any) -> str:
        """What a list of runs calls this one beside the workload's name."""
        return str(getattr(settings, "name", ""))

    def criteria(self, settings: Any) -> Mapping[str, Mapping[str, str]]:
        """What a finished run is classified by: conditions on figures by class, best class first.

        A figure is a metric, of the best epoch or with `last_` before it of the last one.
        """
        return {}

    def metric(self, name: str) -> Metric:
        """How a metric is shown: as the plug-in says, or by its name."""
        found = next((metric for metric in self.metrics if metric.name == name), None)
        return found or Metric(name=name, label=name, live=name)

    def metrics_of(self, columns: Iterable[str]) -> list[Metric]:
        """How to show those columns that are metrics: the known ones first, in their order.

        Where there are many that it does not know, a narrow table keeps the first ones.
        """
        there = [name for name in columns if name not in FIXED_COLUMNS]
        known = [metric for metric in self.metrics if metric.name in there]
        names = {metric.name for metric in known}
        own = [self.metric(name) for name in there if name not in names]
        return known + [
            dataclasses.replace(metric, left_out=max(0, place - _ALWAYS_SHOWN + 1))
            for place, metric in enumerate(own)
        ]

    # ---- the child's part ------------------------------------------------------------------------

    def workload(self, settings: Any, data: str | None) -> Any:
        """The `Workload` that is trained. Only a child calls this: import torch in here.

        Args:
            settings: of `settings_type`.
            data: the folder that `prepare_data` returned.
        """
        raise UsageError(f"workload {self.name}: its plug-in has no method 'workload'")

    # ---- settings as plain values ----------------------------------------------------------------

    def typed(self, values: Mapping[str, Any], where: str = "settings") -> Any:
        """The settings of `settings_type` that these plain values are; missing ones default.

        Raises:
            UsageError: an unknown key, a wrong type, a value out of range.
        """
        try:
            settings = decode(self.settings_type, values, where)
            self.check_settings(settings, where)
        except CtrkitError:
            raise
        except Exception as error:  # whatever a stranger's plug-in raises
            raise UsageError(f"{where}: {type(error).__name__}: {error}") from error
        return settings

    def plain(self, settings: Any) -> dict[str, Any]:
        """Settings as they are kept in `run.json`.

        Raises:
            UsageError: they hold something that JSON does not have.
        """
        try:
            return dict(encode(settings))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"workload {self.name}: its settings cannot be kept in run.json: {error}; give "
                "them numbers, texts, lists and dicts only"
            ) from error

    def read_settings(self, phase: str | None, overrides: Mapping[str, str]) -> Any:
        """The settings of `--phase` and `--set`.

        Args:
            phase: a name or a TOML file, None for the default.
            overrides: for each key of `--set` its value as typed.

        Raises:
            UsageError: unknown name, unreadable file, unknown key, wrong type, value out of range.
        """
        values, where = self._phase_values(phase or self.default_phase)
        values |= {key: parse_value(text) for key, text in overrides.items()}
        return self.typed(values, where)

    def phase_names(self) -> list[str]:
        """The names that `--phase` takes."""
        if self.phases is None:
            return []
        names = (file.name for file in self.phases.iterdir())
        return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))

    def _phase_values(self, phase: str) -> tuple[dict[str, Any], str]:
        """The keys of a phase, and what to call where they stand."""
        if not phase:
            return {}, f"workload {self.name}: --set"
        path = Path(phase)
        if phase in self.phase_names():
            assert self.phases is not None
            text, where, name = _text(self.phases / f"{phase}.toml"), f"phase {phase}", phase
        elif path.is_file():
            text, where, name = _text(path), f"phase file {path}", path.stem
        else:
            shipped = ", ".join(self.phase_names()) or f"{self.name} has none"
            raise UsageError(f"--phase: '{phase}' is neither a phase ({shipped}) nor a TOML file")
        try:
            values = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{where}: not valid TOML: {error}") from None
        if any(f.name == "name" for f in dataclasses.fields(self.settings_type)):
            values.setdefault("name", name)
        return values, where


def _text(file: Path | Traversable) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"phase file {file}: cannot be read: {error}") from None


def parse_value(text: str) -> Any:
    """The value of `--set key=text`, read as TOML; what is no TOML value is a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def setting_differences(plugin: Plugin, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that change the mathematics of a step, in words; empty where all are equal."""
    return ", ".join(
        f"its {key} is {value}, not {now.get(key)}"
        for key, value in then.items()
        if key not in plugin.free_settings and value != now.get(key)
    )
