from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.core.config import make_cell
from ctrkit.probe.recommend import dataloader_kwargs
from ctrkit.report.shell_lines import dataloader_lines, kept_options, short_target

values = st.none() | st.booleans() | st.integers(0, 4096) | st.text(max_size=20)


@given(st.dictionaries(st.sampled_from(["num_workers", "pin_memory", "a", "context"]), values))
def test_the_line_to_paste_is_a_call_with_just_these_arguments(kwargs: dict[str, Any]) -> None:
    given_: dict[str, Any] = {}

    def loader(dataset: object, **arguments: Any) -> None:
        given_.update(arguments)

    text = "\n".join(dataloader_lines(kwargs))
    assert text.isascii()
    exec(text, {"DataLoader": loader, "dataset": object()})
    assert given_ == kwargs


@pytest.mark.parametrize("name", ["class", "x y", "f(", ""])
def test_what_is_no_argument_is_left_out(name: str) -> None:
    assert dataloader_lines({name: 1, "num_workers": 2}) == ["DataLoader(dataset, num_workers=2)"]


def test_the_line_for_spawned_workers_makes_a_loader() -> None:
    from torch.utils.data import DataLoader

    cell = make_cell(loader="rows", workers=2, start_method="spawn", prefetch=4, persistent=True)
    text = "\n".join(dataloader_lines(dataloader_kwargs(cell)))
    made = eval(text, {"DataLoader": DataLoader, "dataset": range(10)})
    assert (made.num_workers, made.prefetch_factor, made.persistent_workers) == (2, 4, True)
    assert made.multiprocessing_context.get_start_method() == "spawn"
    alone = "\n".join(dataloader_lines(dataloader_kwargs(make_cell(loader="thread"))))
    assert eval(alone, {"DataLoader": DataLoader, "dataset": range(10)}).num_workers == 0


def test_a_workload_s_name_is_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert short_target(f"{tmp_path}/sub/loop.py:Work") == "sub/loop.py:Work"
    assert short_target("/somewhere/else/loop.py:Work") == "loop.py:Work"
    assert short_target("mdaf") == "mdaf"


def test_only_our_own_options_are_repeated_not_those_of_the_script() -> None:
    argv = ["probe", "--data", "store", "--", "python", "t.py", "--epochs", "3", "--phase=x"]
    assert kept_options(argv) == ["--data", "store"]
