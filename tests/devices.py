"""Accelerators as test parameters, each marked by its name, and skipped if it is missing."""

from __future__ import annotations

import pytest
import torch

_THERE = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}

#: For `pytest.mark.parametrize("device", ON_DEVICES)`.
ON_DEVICES = [
    pytest.param(
        name,
        marks=(getattr(pytest.mark, name), pytest.mark.skipif(not there, reason=f"no {name} here")),
    )
    for name, there in _THERE.items()
]
