"""Between two epochs it validates, computes its metrics for half a second, and saves."""

import sys
import time

import torch
from torch.utils.data import DataLoader, TensorDataset


def main(path: str) -> None:
    rows = TensorDataset(torch.randn(80, 4), torch.randn(80, 1))
    train_loader, validation_loader = (
        DataLoader(rows, batch_size=4),
        DataLoader(rows, batch_size=20),
    )
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _epoch in range(3):
        for x, y in train_loader:
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            for x, _ in validation_loader:
                model(x)
        time.sleep(0.5)
        torch.save(Slow(), path)


class Slow:
    """It takes a quarter of a second to be saved."""

    def __reduce__(self) -> tuple[type, tuple[()]]:
        time.sleep(0.25)
        return int, ()


if __name__ == "__main__":
    main(sys.argv[1])
