"""Defines an axis of the matrix: its name, its values, and their words. `cell.py` has the axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ctrkit.core.errors import UsageError
from ctrkit.core.units import format_count

_SOME_WORKERS, _MOST_WORKERS = 8, 32
_SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Facts that decide which values a probe tries.

    Args:
        devices: the machine's devices.
        loaders: the workload's loaders.
        batch_size: batch size of the workload's real run.
        cores: physical cores; only the fast ones if the processor has two kinds.
        usable_cores: the part of `cores` that a CPU quota allows.
        all_cores: physical cores with the slow ones (Apple silicon).
        device: the device whose cells are made.
        ranks: processes that train and share the cores, each with workers of its own.
    """

    devices: tuple[str, ...]
    loaders: tuple[str, ...]
    batch_size: int
    cores: int
    usable_cores: float
    all_cores: int
    device: str = "cpu"
    ranks: int = 1


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis of the matrix.

    Args:
        help: the help text of its command-line option.
        choices: the values, if the axis takes names.
        also_typed: further values that the option accepts, such as `auto`.
        also_in_cells: values that only a workload can choose.
        least: the smallest value, if the axis takes whole numbers.
        of_workers: whether it only matters with worker processes.
        with_workers: the default of cells with workers, if it is another.
        loading: whether it changes how batches are made, not what is computed with them.
        numerics: whether it changes what a step computes, or its rounding.
        devices: the devices that allow other values than the default; empty: all do.
        devices_why: why other devices do not; `{device}` is replaced by the name of one.
        tries: the values that a probe tries if the user names none; None: only the default.
        in_id: the form of its part of a cell's id; `{}` is replaced by the value.
        always_said: whether ids and words name the value even if it is the default.
        words: turns a value into words for reports.
        label: the same, short enough for a chart; `words` if it is None.
        headings: the heading of its table column, and a shorter one; the name if empty.
        name: the name of the field in `Cell`.
        kind: the type of its values: `str`, `int` or `bool`.
        default: the value of a cell that does not set it.
    """

    help: str = ""
    choices: tuple[str, ...] = ()
    also_typed: tuple[str, ...] = ()
    also_in_cells: tuple[str, ...] = ()
    least: int = 0
    of_workers: bool = False
    with_workers: Any = None
    loading: bool = False
    numerics: bool = False
    devices: tuple[str, ...] = ()
    devices_why: str = ""
    tries: Callable[[Surroundings], tuple[Any, ...]] | None = None
    in_id: str = "{}"
    always_said: bool = False
    words: Callable[[Any], str] | None = None
    label: Callable[[Any], str] | None = None
    headings: tuple[str, str] = ("", "")
    name: str = ""
    kind: type = str
    default: Any = None

    @property
    def option(self) -> str:
        """The command-line option, for example `--start-method`."""
        return f"--{self.name.replace('_', '-')}"

    def read(self, text: str) -> Any:
        """The value that the user wrote for the option.

        Raises:
            UsageError: the text is no value of this axis.
        """
        if self.kind is bool:
            if text.lower() not in _SWITCHES:
                raise UsageError(f"{self.option}: '{text}' is neither true nor false")
            return _SWITCHES[text.lower()]
        if self.kind is int:
            try:
                value: Any = int(text)
            except ValueError:
                raise UsageError(f"{self.option}: '{text}' is not a whole number") from None
        else:
            value = text
        if problem := self.problem(value, "", (*self.also_typed, *self.choices)):
            raise UsageError(f"{self.option}: {problem}")
        return value

    def problem(self, value: Any, said: str, choices: tuple[str, ...] = ()) -> str:
        """Why the value is not allowed on this axis; empty if it is.

        Args:
            value: a value of the axis' type.
            said: the axis' name for the message.
            choices: allowed names; those of a cell if left out.
        """
        if value is None or self.kind is bool:
            return ""
        if self.kind is int:
            words = f"{said} is {value}, but must be at least {self.least}".strip()
            return words if value < self.least else ""
        known = choices or (*self.choices, *self.also_in_cells)
        unknown = f"unknown {said} '{value}'" if said else f"unknown '{value}'"
        return "" if value in known else f"{unknown}; known are {', '.join(known)}"

    def device_problem(self, value: Any, device: str) -> str:
        """Why the value is not possible on the device; empty if it is."""
        if value == self.default or not self.devices or device in self.devices:
            return ""
        return self.devices_why.format(device=device)

    def tried(self, around: Surroundings) -> tuple[Any, ...]:
        """The values that a probe tries if the user names none."""
        if self.tries is not None:
            return self.tries(around)
        return (self.default if self.with_workers is None else self.with_workers,)


def axis(default: Any, row: Axis) -> Any:
    """A dataclass field for an axis with its default."""
    return field(default=default, metadata={"axis": row})


def default_workers(cores: int, usable: float | None = None) -> tuple[int, ...]:
    """The worker counts to try if the user names none: 0, 2, all cores but one, and 8.

    There are at most 32, and 8 only where there are more cores than that.

    If a quota allows less than one core (`usable`), a worker could only slow the loop down.
    """
    if usable is not None and usable < 1:
        return (0,)
    counts = {0, min(2, max(1, cores))}
    if cores > 3:
        counts |= {min(cores - 1, _SOME_WORKERS), min(cores - 1, _MOST_WORKERS)}
    return tuple(sorted(counts))


def workers_beside_a_gpu(usable: float) -> tuple[int, ...]:
    """The worker counts to try beside a GPU, which leaves the cores free: 0, 2, 4, ... `usable`."""
    most = min(int(usable), _MOST_WORKERS)
    doubled = {2**power for power in range(1, most.bit_length())}
    return tuple(sorted({0, most, *(count for count in doubled if count <= most)}))


def tried_threads(around: Surroundings) -> tuple[int, ...]:
    """The thread counts to try: the fast cores, and all cores if there are slow ones too."""
    return tuple(dict.fromkeys((around.cores, around.all_cores)))


def tried_workers(around: Surroundings) -> tuple[int, ...]:
    """The worker counts to try on the device of the cells if the user names none."""
    cores, usable = around.cores // around.ranks, around.usable_cores / around.ranks
    if around.device == "cuda":
        return workers_beside_a_gpu(usable)
    return default_workers(cores, usable)


def counted(noun: str, none: str = "") -> Callable[[int], str]:
    """A function that puts a count into words: `1 thread`, `2 threads`, and `none` for 0."""

    def words(count: int) -> str:
        if not count and none:
            return none
        return f"{format_count(count)} {noun}" + ("" if count == 1 else "s")

    return words


def switched(on: str) -> Callable[[bool], str]:
    """A function that puts a switch into words: `on` if it is on, otherwise the empty string."""
    return lambda value: on if value else ""
