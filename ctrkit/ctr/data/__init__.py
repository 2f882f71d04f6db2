"""The data: generated or ingested, kept in a store, ordered and loaded in batches.

`Loader` is for other people's training loops. Importing this package alone imports neither `Loader`
nor torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctrkit.ctr.data.public_loader import Loader

__all__ = ["Loader"]


def __getattr__(name: str) -> Any:
    if name == "Loader":
        from ctrkit.ctr.data.public_loader import Loader

        return Loader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
