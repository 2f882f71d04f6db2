"""A plain training script for `torchrun`.

With `hang`, rank 1 waits for a file that never comes; with `stay`, it does so after its training,
when rank 0 has ended; with `skip`, rank 0 does while rank 1 is in a barrier.
"""

import os
import sys
import time

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler


class Rows(Dataset):
    def __init__(self, hangs: bool) -> None:
        self.hangs = hangs

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        if self.hangs and index > 250:
            wait_for("/never/there")
        return torch.tensor([float(index)])


def wait_for(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.1)  # guilty


def main() -> None:
    dist.init_process_group("gloo")
    rows = Rows(sys.argv[1] == "hang" and dist.get_rank() == 1)
    loader = DataLoader(rows, 8, sampler=DistributedSampler(rows, shuffle=False))
    model = DistributedDataParallel(torch.nn.Linear(1, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    print("training begins", flush=True)
    for _ in range(2):
        for batch in loader:
            optimizer.zero_grad()
            model(batch).mean().backward()
            optimizer.step()
        if sys.argv[1] == "skip" and dist.get_rank() == 0:
            wait_for("/never/there")
        elif sys.argv[1] == "skip":
            dist.barrier()
    if sys.argv[1] == "stay" and dist.get_rank() == 1:
        wait_for("/never/there")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
