"""Hashes batches, to check that two launches train on the same ones.

It changes nothing and draws no random number. Of a large tensor it reads samples from every part,
not everything.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping
from typing import Any

_WHOLE_BYTES = 1_000_000


def batch_hash(batch: Any) -> str:
    """The hash of a batch of any type: its structure, its types and its content."""
    digest = hashlib.blake2b(digest_size=8)
    _add(digest, batch, 0)
    return digest.hexdigest()


def _add(digest: Any, value: Any, depth: int) -> None:
    if depth > 6:
        return
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        digest.update(f"{tuple(value.shape)}{value.dtype}".encode())
        digest.update(_content(value))
    elif isinstance(value, Mapping):
        for key in value:
            digest.update(repr(key).encode())
            _add(digest, value[key], depth + 1)
    elif isinstance(value, (list, tuple)):
        digest.update(f"{len(value)}".encode())
        for part in value:
            _add(digest, part, depth + 1)
    elif isinstance(value, (str, bytes, int, float, bool)) or value is None:
        digest.update(repr(value).encode())
    else:
        stored = getattr(value, "__dict__", None)
        digest.update(type(value).__qualname__.encode())
        if isinstance(stored, dict):
            _add(digest, stored, depth + 1)


def _content(value: Any) -> bytes:
    """Bytes of a tensor or array; of a large one, samples."""
    if not hasattr(value, "data_ptr"):  # an array of numpy
        if value.dtype.hasobject:
            return repr(value.tolist()[:1000]).encode()
        flat = value.reshape(-1)
        step = max(1, value.nbytes // _WHOLE_BYTES)
        return bytes(flat[::step].tobytes())
    tensor = value.detach()
    if tensor.layout is not _strided(tensor):
        tensor = tensor.coalesce().values() if tensor.is_sparse else tensor.to_dense()
    flat = tensor.reshape(-1)
    size = flat.numel() * flat.element_size()
    if size > _WHOLE_BYTES:
        flat = flat[:: max(1, size // _WHOLE_BYTES)]
    flat = flat.cpu().contiguous()
    return ctypes.string_at(flat.data_ptr(), flat.numel() * flat.element_size())


def _strided(tensor: Any) -> Any:
    import torch  # the script has imported it already: it has a tensor

    return torch.strided


def row_marks(index: Any) -> list[str]:
    """Hashes of the rows that a sampler's item names: one index, or those of a batch."""
    if isinstance(index, (list, tuple)):
        return [_mark(part) for part in index]
    return [_mark(index)]


def _mark(index: Any) -> str:
    if hasattr(index, "item") and getattr(index, "numel", lambda: 1)() == 1:
        index = index.item()
    text = repr(index)
    if len(text) <= 24:
        return text
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def cloned(value: Any, depth: int = 0) -> Any:
    """A copy of a batch that shares no tensor, list or mapping with it."""
    if hasattr(value, "detach") and hasattr(value, "clone"):
        return value.clone()
    if hasattr(value, "shape") and hasattr(value, "copy"):
        return value.copy()
    if depth > 6:
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(cloned(part, depth + 1) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(cloned(part, depth + 1) for part in value)
    if type(value) is dict:
        return {key: cloned(part, depth + 1) for key, part in value.items()}
    import copy

    if isinstance(value, Mapping):
        copied = copy.copy(value)
        _clone_inside(copied, value, depth)
        return copied
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def _clone_inside(copied: Any, value: Any, depth: int) -> None:
    stored = getattr(value, "data", None)
    if isinstance(stored, dict):  # a UserDict, such as transformers' BatchEncoding
        copied.data = {key: cloned(part, depth + 1) for key, part in stored.items()}
        return
    for key in list(value):
        copied[key] = cloned(value[key], depth + 1)


def shape_of(value: Any) -> Any:
    """A value that is equal for batches of the same shapes and types."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return tuple(value.shape), str(value.dtype)
    if isinstance(value, Mapping):
        return tuple((str(key), shape_of(value[key])) for key in value)
    if isinstance(value, (list, tuple)):
        return tuple(shape_of(part) for part in value)
    return type(value).__name__
