"""The losses that a trial keeps."""

from __future__ import annotations

import torch

from ctrkit.child.script.hooked_step import HookedStep


def test_a_loss_is_kept_as_it_was_though_its_memory_is_used_again() -> None:
    step, loss = HookedStep(), torch.tensor(0.5, requires_grad=True)
    step.backward_begins(1.0, loss)
    with torch.no_grad():
        loss.fill_(7.0)  # as a step does that replays a CUDA graph
    assert step.losses() == [0.5]


def test_only_scalars_are_kept() -> None:
    """The outputs of a model, of which `backward(gradient)` is called, may take a gigabyte."""
    step = HookedStep()
    step.backward_begins(1.0, torch.ones(3, 4))
    step.backward_begins(2.0, [torch.ones(())])
    assert step.losses() == []
