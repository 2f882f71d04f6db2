"""Workloads as plug-ins: what the parent process knows about one.

A package registers a `Plugin` as an entry point of the group `ctrkit.workloads`. The parent asks it
for settings, data and what its metrics mean; the child asks it for the `Workload` itself. A
plug-in's module must not import torch: only `Plugin.workload` does that, and only the child calls
it.
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
"""Called with (what is being done, share done from 0 to 1) while data is made."""


@dataclass(frozen=True, kw_only=True)
class KnownEpoch:
    """An epoch of a known run, shown beside the epochs of a new run.

    Args:
        run: name of that run.
        epoch: 1, 2, ...
        metrics: its figures, by column of `epochs.csv`.
        comparable_if: per metric, settings that a run must have for the figures to be comparable.
    """

    run: str
    epoch: int
    metrics: Mapping[str, float]
    comparable_if: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """How reports show a metric, which is a column of `epochs.csv`.

    Args:
        name: its column.
        label: its name in reports; `name` if empty.
        decimals: number of decimals; None: chosen by the size of the number.
        left_out: order in which narrow tables drop columns, the highest number first; 0 is kept.
        panel: title of its chart; metrics with the same title share a chart.
        live: its name in the line after an epoch; not shown there if empty.
    """

    name: str
    label: str = ""
    decimals: int | None = None
    left_out: int = 0
    panel: str = ""
    live: str = ""

    def text(self, value: float | None) -> str:
        """The value as reports show it; empty if unknown."""
        if value is None:
            return ""
        if self.decimals is not None or value == 0 or 1e-3 <= abs(value) < 1e5:
            return f"{value:.{4 if self.decimals is None else self.decimals}f}"
        return format_significant(value, 4)


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """The settings of a workload without settings."""


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Facts about a data folder that need no child process."""

    fingerprint: str
    train_rows: int | None = None


class Plugin:
    """What the parent knows about a workload. A plug-in is a subclass of it.

    Settings are a frozen dataclass of plain values, `settings_type`. `--phase NAME` selects a named
    set of them, a TOML file in the folder `phases`; `--phase FILE` reads the user's own TOML file;
    `--set KEY=VALUE` overrides one key. They are stored in `run.json` and passed to `workload`.
    """

    #: its name on the command line: the name of its entry point
    name: str = ""
    #: a frozen dataclass, with a default for every field
    settings_type: type[Any] = NoSettings
    #: a folder of TOML files with flat keys, one file per name of `--phase`
    phases: Traversable | None = None
    #: the phase without `--phase`; if empty, the defaults of `settings_type`
    default_phase: str = ""
    #: settings that change no step: runs that differ only in them can be resumed and compared
    free_settings: tuple[str, ...] = ("name", "epochs", "patience")
    #: whether it takes `--data DIR`
    takes_data: bool = False
    #: the name in reports of the data that is used without `--data`
    default_data: str = ""
    #: its known metrics, as reports show them; other metrics are shown under their own names
    metrics: Sequence[Metric] = ()
    #: the metric that decides on best.pt and patience, if the `Workload` names none
    watch: Watch | None = None
    #: whether its module imported torch into the parent, which then starts seconds later
    imports_torch: bool = False
    #: epochs of other runs that reports show beside a run's own, and a sentence about them
    known_epochs: Sequence[KnownEpoch] = ()
    known_note: str = ""

    # ---- the parent's part -----------------------------------------------------------------------

    def check_settings(self, settings: Any, where: str) -> None:
        """Check the values; their types are already right.

        Raises:
            UsageError: a value is out of range; the message begins with `where`.
        """

    def prepare_data(self, data: Path | None, on_progress: OnProgress) -> Path | None:
        """The folder that the child will read; default data is made first if needed.

        Args:
            data: the folder of `--data`; None without it.
            on_progress: called to show progress.

        Raises:
            UsageError: the folder does not hold what it should.
        """
        return data

    def data_facts(self, data: Path) -> DataFacts | None:
        """What the folder holds, as far as that is known without torch.

        None: only a child can tell.

        Raises:
            UsageError: it cannot be read.
        """
        return None

    def with_epochs(self, settings: Any, epochs: int) -> Any:
        """The settings of a run with `--epochs`."""
        return settings

    def title(self, settings: Any) -> str:
        """Its name in a list of runs, after the name of the workload."""
        return str(getattr(settings, "name", ""))

    def criteria(self, settings: Any) -> Mapping[str, Mapping[str, str]]:
        """Criteria for a finished run: by class, best class first, conditions on figures.

        A figure is a metric of the best epoch, or of the last epoch with the prefix `last_`.
        """
        return {}

    def metric(self, name: str) -> Metric:
        """How to show a metric: as the plug-in says, else by its name."""
        found = next((metric for metric in self.metrics if metric.name == name), None)
        return found or Metric(name=name, label=name, live=name)

    def metrics_of(self, columns: Iterable[str]) -> list[Metric]:
        """How to show the columns that are metrics: the known ones first, in their order.

        If there are many unknown ones, a narrow table keeps the first of them.
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
        """The `Workload` to train. Only a child calls this: import torch inside.

        Args:
            settings: an instance of `settings_type`.
            data: the folder that `prepare_data` returned.
        """
        raise UsageError(f"workload {self.name}: its plug-in has no method 'workload'")

    # ---- settings as plain values ----------------------------------------------------------------

    def typed(self, values: Mapping[str, Any], where: str = "settings") -> Any:
        """Convert plain values to `settings_type`; missing keys take their defaults.

        Raises:
            UsageError: an unknown key, a wrong type, or a value out of range.
        """
        try:
            settings = decode(self.settings_type, values, where)
            self.check_settings(settings, where)
        except CtrkitError:
            raise
        except Exception as error:  # another package's plug-in may raise anything
            raise UsageError(f"{where}: {type(error).__name__}: {error}") from error
        return settings

    def plain(self, settings: Any) -> dict[str, Any]:
        """Settings as plain values for `run.json`.

        Raises:
            UsageError: they hold something that JSON cannot represent.
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
            phase: a name or a TOML file; None for the default.
            overrides: the value of each `--set` key, as typed.

        Raises:
            UsageError: unknown name, unreadable file, unknown key, wrong type, or value out of
                range.
        """
        values, where = self._phase_values(phase or self.default_phase)
        values |= {key: parse_value(text) for key, text in overrides.items()}
        try:
            return self.typed(values, where)
        except UsageError as error:
            said = str(error).removeprefix(f"{where}: ")
            for key, text in overrides.items():
                if said.startswith((f"{key}:", f"{key} ", f"unknown key '{key}'")):
                    raise UsageError(f"--set {key}={text}: {said}") from None
            raise

    def phase_names(self) -> list[str]:
        """The names that `--phase` takes."""
        if self.phases is None:
            return []
        names = (file.name for file in self.phases.iterdir())
        return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))

    def _phase_values(self, phase: str) -> tuple[dict[str, Any], str]:
        """The values of a phase, and a name for their source in messages."""
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
    """The value of `--set key=text`: a TOML value if it is one, else a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def setting_differences(plugin: Plugin, then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A message on settings that differ and change a step's mathematics; empty if none does."""
    return ", ".join(
        f"its {key} is {value}, not {now.get(key)}"
        for key, value in then.items()
        if key not in plugin.free_settings and value != now.get(key)
    )
