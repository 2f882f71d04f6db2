"""A feature server that takes the connection and never answers; no timeout was set."""

from __future__ import annotations

import socket

import torch
from torch.utils.data import DataLoader, Dataset

EXPECT = {
    "title": "server that never answers",
    "cells": {"0": "deadlock", "fork": "deadlock", "spawn": "deadlock", "forkserver": "deadlock"},
    "guilty": "worker",
}

SERVERS = []


class Rows(Dataset[torch.Tensor]):
    def __init__(self, port: int) -> None:
        self.port = port

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        if index != 200:
            return torch.tensor(float(index))
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.sendall(b"row 200")
            return torch.tensor(float(len(connection.recv(8))))  # guilty


def make_loader(workers: int, start_method: str | None, batch_size: int) -> DataLoader:
    server = socket.create_server(("127.0.0.1", 0))
    SERVERS.append(server)
    return DataLoader(
        Rows(server.getsockname()[1]),
        batch_size,
        num_workers=workers,
        multiprocessing_context=start_method,
    )
