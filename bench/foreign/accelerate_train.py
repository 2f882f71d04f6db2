"""A script with accelerate, as documented: prepare, accumulate, backward."""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from slow_rows import SlowRows
from torch import nn
from torch.utils.data import DataLoader


def main() -> None:
    set_seed(0)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    loader = DataLoader(SlowRows(1536), batch_size=16, shuffle=True)
    held_out = DataLoader(SlowRows(256), batch_size=64)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    model, optimizer, loader, held_out = accelerator.prepare(model, optimizer, loader, held_out)
    loss_of = nn.BCEWithLogitsLoss()
    for epoch in range(3):
        model.train()
        for rows, labels in loader:
            with accelerator.accumulate(model):
                loss = loss_of(model(rows).squeeze(1), labels)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            lost = sum(loss_of(model(rows).squeeze(1), labels).item() for rows, labels in held_out)
        accelerator.print(f"epoch {epoch}: {loss.item():.4f} {lost:.4f}")
        accelerator.save_state("state")


if __name__ == "__main__":
    main()
