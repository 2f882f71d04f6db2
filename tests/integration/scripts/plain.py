"""A plain loop: training loader, validation loader, a checkpoint per epoch."""

import argparse

import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=160)
    parser.add_argument("--save", default="model.pt")
    args = parser.parse_args()
    torch.manual_seed(7)
    data = TensorDataset(torch.randn(args.rows, 4), torch.randn(args.rows, 1))
    train_loader = DataLoader(data, batch_size=8, shuffle=True)
    held_out = DataLoader(TensorDataset(torch.randn(32, 4), torch.randn(32, 1)), batch_size=8)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(args.epochs):
        for x, y in train_loader:
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            total = sum(float(torch.nn.functional.mse_loss(model(x), y)) for x, y in held_out)
        torch.save(model.state_dict(), args.save)
        print(f"epoch {epoch} {total:.4f}")


if __name__ == "__main__":
    main()
