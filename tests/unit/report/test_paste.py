from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrkit.report.paste import dataloader_lines

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
