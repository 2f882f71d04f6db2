"""A separate thread takes batches ahead of the loop that trains: `in_a_thread.py [HOW_MANY]`."""

import queue
import sys
import threading

import torch
from torch.utils.data import DataLoader, TensorDataset


def ahead(loader):
    waiting = queue.Queue(int(sys.argv[1]) if len(sys.argv) > 1 else 2)

    def fill():
        for batch in loader:
            waiting.put(batch)
        waiting.put(None)

    threading.Thread(target=fill, daemon=True).start()
    while True:
        batch = waiting.get()
        if batch is None:
            return
        yield batch


def main():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(320, 4), torch.randn(320, 1))
    loader = DataLoader(data, batch_size=8, shuffle=True)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _epoch in range(3):
        for rows, labels in ahead(loader):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(rows), labels).backward()
            optimizer.step()


if __name__ == "__main__":
    main()
