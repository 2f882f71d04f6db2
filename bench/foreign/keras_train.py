"""Keras on torch, trained from a DataLoader."""

import os

os.environ["KERAS_BACKEND"] = "torch"
import keras
import torch
from torch.utils.data import DataLoader, TensorDataset


def main():
    keras.utils.set_random_seed(0)
    data = TensorDataset(torch.randn(4000, 64), torch.randint(0, 4, (4000,)))
    held = TensorDataset(torch.randn(800, 64), torch.randint(0, 4, (800,)))
    model = keras.Sequential([keras.layers.Dense(256, activation="relu"), keras.layers.Dense(4)])
    model.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        DataLoader(data, 32, shuffle=True),
        epochs=3,
        validation_data=DataLoader(held, 64),
        verbose=2,
    )


if __name__ == "__main__":
    main()
