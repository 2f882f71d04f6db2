"""A script with Ignite, as documented: a supervised trainer, an evaluator, checkpoints."""

import torch
from ignite.engine import Events, create_supervised_evaluator, create_supervised_trainer
from ignite.handlers import ModelCheckpoint
from ignite.metrics import Accuracy, Loss
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main():
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(4000, 64), torch.randint(0, 4, (4000,)))
    held = TensorDataset(torch.randn(800, 64), torch.randint(0, 4, (800,)))
    train, valid = DataLoader(data, 32, shuffle=True), DataLoader(held, 64)
    model = nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 4)
    )
    optimizer, criterion = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    trainer = create_supervised_trainer(model, optimizer, criterion)
    evaluator = create_supervised_evaluator(
        model, {"accuracy": Accuracy(), "loss": Loss(criterion)}
    )

    @trainer.on(Events.EPOCH_COMPLETED)
    def validate(engine):
        evaluator.run(valid)
        print(engine.state.epoch, evaluator.state.metrics, flush=True)

    trainer.add_event_handler(
        Events.EPOCH_COMPLETED, ModelCheckpoint("out", "net", require_empty=False), {"model": model}
    )
    trainer.run(train, max_epochs=3)


if __name__ == "__main__":
    main()
