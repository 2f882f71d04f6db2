"""A plain training script, as its user would write it: `train_on.py SCENARIO.py WORKERS METHOD`.

It knows nothing of ctrkit. It trains on the loader of a scenario and prints each step. It updates
its model by hand: an optimizer of torch takes a second to import what is not needed here.
"""

import importlib
import sys
from pathlib import Path

import torch


def main() -> None:
    path, workers, method = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    epochs = int(sys.argv[4]) if len(sys.argv) > 4 else 2
    sys.path.insert(0, str(path.parent))
    scenario = importlib.import_module(path.stem)
    model = torch.nn.Linear(1, 1)
    loader = scenario.make_loader(workers, method if workers else None, 8)
    print("training begins", flush=True)
    for epoch in range(epochs):
        for step, batch in enumerate(loader):
            loss = model(batch.float().reshape(-1, 1)).mean()
            model.zero_grad()
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= 1e-9 * parameter.grad
            print(f"epoch {epoch} step {step}", flush=True)


if __name__ == "__main__":
    main()
