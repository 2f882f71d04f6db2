"""Nothing but its `for` loop holds a loader with persistent workers, not even the iterator."""

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    data = TensorDataset(torch.randn(76, 4))
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _epoch in range(2):
        for (x,) in DataLoader(
            data, 8, num_workers=1, persistent_workers=True, multiprocessing_context="fork"
        ):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()


if __name__ == "__main__":
    main()
