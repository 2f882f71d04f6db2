"""If compiling fails, the parts stay as they were, and the reason is reported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ctrkit.ctr.models.compiling import compile_parts


class Backend:
    """Stands in for torch.compile: the module's call goes through `call`."""

    def __init__(self, call):
        self.call, self.calls = call, 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        backend = self

        def compile_(module):
            def call(*args):
                backend.calls += 1
                return backend.call(module, *args)

            module._compiled_call_impl = call

        monkeypatch.setattr(nn.Module, "compile", compile_)


def test_each_part_is_tried_forward_and_backward_and_left_clean(monkeypatch):
    backend = Backend(lambda module, given: module._call_impl(given))
    backend.install(monkeypatch)
    parts = {nn.Linear(3, 2): torch.ones(4, 3), nn.Dropout(0.5): torch.ones(2)}
    state = torch.get_rng_state()
    assert compile_parts(parts) == ""
    assert backend.calls == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for part in parts for p in part.parameters())


def test_one_that_fails_takes_all_back_with_one_line(monkeypatch):
    def call(module, given):
        if isinstance(module, nn.Linear):
            raise RuntimeError("backend='inductor' raised:\n  no C++ compiler\nSet TORCHDYNAMO...")
        return module._call_impl(given)

    backend = Backend(call)
    backend.install(monkeypatch)
    first, second = nn.ReLU(), nn.Linear(3, 2)
    assert compile_parts({first: torch.ones(3), second: torch.ones(1, 3)}) == (
        "not compiled: no C++ compiler"
    )
    calls = backend.calls
    second(first(torch.ones(1, 3)))
    assert backend.calls == calls


def test_an_error_without_words_is_named(monkeypatch):
    def call(module, given):
        raise NotImplementedError

    Backend(call).install(monkeypatch)
    assert compile_parts({nn.ReLU(): torch.ones(2)}) == "not compiled: NotImplementedError"
