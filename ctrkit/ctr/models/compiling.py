"""Compiles parts of a model with torch.compile and tries them at once; says why if it fails."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

_MOST_REASON = 200


def compile_parts(examples: Mapping[nn.Module, Tensor]) -> str:
    """Compile modules in place, forward and backward; their parameters keep their names.

    Torch compiles at the first call, so each module is called with its example, outside the random
    stream. If one fails, all stay uncompiled.

    Returns:
        Why nothing was compiled, in one line; empty if everything was.
    """
    modules = list(examples)
    try:
        from torch._inductor import config

        config.compile_threads = 1  # no pool of processes: it would outlive the compilation
        for module in modules:
            module.compile()
        with torch.random.fork_rng():
            for module, example in examples.items():
                module(example.clone().requires_grad_()).float().sum().backward()
    except Exception as error:
        for module in modules:
            module._compiled_call_impl = None
        return f"not compiled: {_words(error)}"
    finally:
        for module in modules:
            module.zero_grad(set_to_none=True)
    return ""


def _words(error: Exception) -> str:
    """The first meaningful line; torch wraps the cause in pages of advice."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if not line.startswith("backend=")), type(error).__name__)
    return text[:_MOST_REASON]
