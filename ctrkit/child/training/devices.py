"""Devices: which ones this machine has, how to wait for them, and how much memory they used."""

from __future__ import annotations

import torch


def available_devices() -> list[str]:
    """Devices that torch can use here, `cpu` first."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.append("mps")
    if torch.cuda.is_available():
        found.append("cuda")
    return found


def device_name(device: str) -> str:
    """The GPU's product name, such as `NVIDIA H100 80GB HBM3`; of other devices the name itself."""
    return torch.cuda.get_device_name() if device == "cuda" else device


def synchronize(device: str) -> None:
    """Wait until the device has done all queued work; returns at once on the CPU."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def peak_device_bytes(device: str) -> int | None:
    """Peak device memory in bytes so far; on MPS what the driver holds now; None on the CPU."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    if device == "mps":
        return torch.mps.driver_allocated_memory()
    return None


def free_device_bytes(device: str) -> int | None:
    """Free device memory in bytes; on MPS the recommended maximum; None on the CPU."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory())
    return None
