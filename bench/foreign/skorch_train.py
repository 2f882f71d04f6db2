"""A script with skorch, as documented: fits a classifier."""

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn


def main():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((4000, 64)).astype("float32"), rng.integers(0, 4, 4000)
    module = nn.Sequential(
        nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 4)
    )
    net = NeuralNetClassifier(
        module,
        max_epochs=4,
        criterion=nn.CrossEntropyLoss,
        lr=0.05,
        batch_size=32,
        iterator_train__shuffle=True,
    )
    net.fit(x, y)


if __name__ == "__main__":
    main()
