"""A script with Lightning, as documented: a module, two loaders, a Trainer."""

import lightning as L
import torch
from slow_rows import SlowRows
from torch import nn
from torch.utils.data import DataLoader


class Net(L.LightningModule):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 1))

    def _loss(self, batch):
        rows, labels = batch
        return nn.functional.binary_cross_entropy_with_logits(self.net(rows).squeeze(1), labels)

    def training_step(self, batch, index):
        return self._loss(batch)

    def validation_step(self, batch, index):
        self.log("val_loss", self._loss(batch))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    L.seed_everything(0)
    train = DataLoader(SlowRows(1536), batch_size=32, shuffle=True)
    valid = DataLoader(SlowRows(256), batch_size=64)
    trainer = L.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.fit(Net(), train, valid)


if __name__ == "__main__":
    main()
