"""The Triton kernels of the scan, run by Triton's interpreter on the CPU, against float64.

No GPU takes part: what is tested is what the kernels compute, not how a GPU compiles them. The
last test runs them on a GPU, where there is one.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ctrkit.ctr.models import scan_choice
from ctrkit.ctr.models.packing import PackedBlock, pack_histories
from ctrkit.ctr.models.scan import selective_scan

NAME = "ctrkit.ctr.models.triton_scan"


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    """The module as Triton's interpreter sees it; triton reads the variable at each definition."""
    if not scan_choice.has_triton():
        pytest.skip("triton is not installed")
    if "triton" in sys.modules:
        pytest.skip("triton was imported before, without its interpreter: run this file alone")
    if torch.cuda.is_available():
        pytest.skip("on a GPU the kernels themselves are tested")
    os.environ["TRITON_INTERPRET"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # triton's own
            yield importlib.import_module(NAME)
    finally:
        del os.environ["TRITON_INTERPRET"]
        sys.modules.pop(NAME, None)


def terms_of(tokens: int, channels: int, state: int) -> tuple[Tensor, ...]:
    made = (
        torch.randn(tokens, channels, dtype=torch.float64),
        torch.rand(tokens, channels, dtype=torch.float64) * 0.5 + 0.01,
        -torch.rand(channels, state, dtype=torch.float64) * 3 - 0.1,
        torch.randn(tokens, state, dtype=torch.float64),
        torch.randn(tokens, state, dtype=torch.float64),
        torch.randn(channels, dtype=torch.float64),
    )
    return tuple(term.requires_grad_() for term in made)


def check(
    scan: Callable[..., Tensor], lengths: list[int], length: int, channels: int, state: int,
    device: str = "cpu", **layout: object,
) -> None:  # fmt: skip
    """Values and gradients within 1e-4 of float64, as a share of the largest value."""
    torch.manual_seed(7)
    packing = pack_histories(torch.tensor(lengths), length, **layout)  # type: ignore[arg-type]
    exact = terms_of(packing.source.numel(), channels, state)
    short = tuple(term.detach().float().to(device).requires_grad_() for term in exact)
    want, got = selective_scan(*exact, packing.blocks), scan(*short, packing.blocks)
    assert got.dtype == torch.float32
    weights = torch.randn_like(want) * packing.real[:, None]  # padding has no part in the loss
    wants = torch.autograd.grad((want * weights).sum(), exact)
    gots = torch.autograd.grad((got * weights.to(device, torch.float32)).sum(), short)
    for ours, theirs in zip((got, *gots), (want, *wants), strict=True):
        assert (ours.cpu().double() - theirs).abs().max() <= 1e-4 * theirs.abs().max().clamp(min=1)


@pytest.mark.parametrize(
    ("lengths", "length", "channels", "state"),
    [
        ([1], 1, 1, 1),  # one row, one step
        ([17], 17, 40, 16),  # batch 1, odd, channels that fill no program
        ([3, 1, 0, 4, 2], 4, 3, 5),  # ragged, a history of no step, a state of no power of 2
        ([8, 9, 16, 7], 17, 5, 3),  # at, before and after a mark
    ],
)
@pytest.mark.parametrize("skip_padding", [True, False])
def test_within_1e_4_of_float64_forward_and_backward(
    kernels: ModuleType, lengths: list[int], length: int, channels: int, state: int,
    skip_padding: bool,
) -> None:  # fmt: skip
    check(
        kernels.triton_scan, lengths, length, channels, state,
        skip_padding=skip_padding, block_rows=2 if skip_padding else None,
    )  # fmt: skip


def test_more_rows_than_have_marks_at_once(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "ROWS_AT_ONCE", 2)
    kernels._rows.cache_clear()
    check(kernels.triton_scan, [3, 10, 0, 9, 2], 10, 3, 2, block_rows=3, skip_padding=True)


def test_inputs_need_not_be_contiguous_and_nothing_at_all_is_fine(kernels: ModuleType) -> None:
    torch.manual_seed(0)
    x, dt, a, b, c, d = (term.detach().float() for term in terms_of(6, 4, 3))
    blocks = (PackedBlock(0, 3, 2),)
    parts = torch.cat([b, c, x, dt], dim=1).split([3, 3, 4, 4], dim=1)
    y = kernels.triton_scan(parts[2], parts[3], a, parts[0], parts[1], d, blocks)
    assert torch.equal(y, kernels.triton_scan(x, dt, a, b, c, d, blocks))
    empty = tuple(term[:0].requires_grad_() for term in (x, dt))
    a.requires_grad_()
    y = kernels.triton_scan(*empty, a, b[:0], c[:0], d, (PackedBlock(0, 0, 2),))
    assert y.shape == (0, 4)
    assert not torch.autograd.grad(y.sum(), a)[0].any()


class _Largest(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.size_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        sizes = [leaf.nbytes for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.size_bytes = max(self.size_bytes, *sizes, 0)
        return out


def test_no_tensor_holds_the_states_of_all_steps(kernels: ModuleType) -> None:
    batch, length, channels, state = 4, 24, 8, 16
    terms = tuple(term.detach().float() for term in terms_of(batch * length, channels, state))
    terms = tuple(term.requires_grad_() for term in terms)
    with _Largest() as largest:
        kernels.triton_scan(*terms, (PackedBlock(0, length, batch),)).sum().backward()
    assert 0 < largest.size_bytes <= batch * length * channels * state * 4 / 8


def test_the_choice_tries_a_kernel_and_says_why_not(kernels: ModuleType) -> None:
    cpu = torch.device("cpu")
    assert scan_choice.tried(kernels.triton_scan, cpu, 6, 3) == ""


def test_a_failure_is_told_once_tried_and_the_scan_goes_step_by_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a made-up device: none is asked for anything."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(scan_choice, "has_triton", lambda: True)
    monkeypatch.setattr(scan_choice, "failure_of", lambda *_: "its Triton kernel failed (X: y)")
    x = type("OnCuda", (), {"device": cuda, "dtype": torch.float32, "shape": (5, 4)})()
    assert scan_choice.scan_of(x, 2) is selective_scan
    assert scan_choice.scan_note(cuda, 4, 2) == (
        "the scan goes step by step, which is slow on CUDA: its Triton kernel failed (X: y)"
    )
    monkeypatch.setattr(scan_choice, "failure_of", lambda *_: "")
    assert scan_choice.scan_note(cuda, 4, 2) == ""
    monkeypatch.setattr(scan_choice, "has_triton", lambda: False)
    assert scan_choice.scan_of(x, 2) is selective_scan
    assert scan_choice.scan_note(cuda, 4, 2).endswith("triton is not installed")
    assert scan_choice.scan_note(torch.device("cpu"), 4, 2) == ""


def test_a_kernel_that_is_wrong_or_fails_is_not_taken() -> None:
    cpu = torch.device("cpu")

    def wrong(*arguments: object) -> Tensor:
        return selective_scan(*arguments) * 1.1  # type: ignore[arg-type]

    def nan(*arguments: object) -> Tensor:
        return selective_scan(*arguments) * torch.nan  # type: ignore[arg-type]

    def fails(*arguments: object) -> Tensor:
        raise RuntimeError("ptxas: no such architecture\nand a long story")

    def full(*arguments: object) -> Tensor:
        raise torch.OutOfMemoryError

    assert "is wrong here by 0.097" in scan_choice.tried(wrong, cpu, 4, 2)
    assert "is wrong here by nan" in scan_choice.tried(nan, cpu, 4, 2)
    assert scan_choice.tried(fails, cpu, 4, 2) == (
        "its Triton kernel failed (RuntimeError: ptxas: no such architecture)"
    )
    with pytest.raises(torch.OutOfMemoryError):
        scan_choice.tried(full, cpu, 4, 2)


@pytest.mark.parametrize(
    ("device", "dtype", "has_triton", "taken"),
    [
        ("cuda", torch.float32, True, True),
        ("cuda", torch.float32, False, False),
        ("cuda", torch.float64, True, False),
        ("cpu", torch.float32, True, False),
        ("mps", torch.float32, True, False),
    ],
)
def test_the_kernel_is_for_float32_on_cuda(
    device: str, dtype: torch.dtype, has_triton: bool, taken: bool
) -> None:
    assert scan_choice.takes_kernel(device, dtype, has_triton=has_triton) is taken


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_the_gpu() -> None:
    pytest.importorskip("triton")
    kernels = importlib.import_module(NAME)
    check(kernels.triton_scan, [50, 49, 1, 0, 33], 50, 256, 16, device="cuda", skip_padding=False)
    assert scan_choice.failure_of("cuda", 256, 16) == ""
