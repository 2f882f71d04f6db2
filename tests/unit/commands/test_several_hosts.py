import pytest

from ctrkit.commands.several_hosts import hosts_of, why_not_probed


@pytest.mark.parametrize(
    ("command", "hosts"),
    [
        ("torchrun --nnodes 2 --nproc-per-node 4 train.py", 2),
        ("/opt/env/bin/torchrun --nnodes=4 train.py", 4),
        ("torchrun --nnodes 1:4 train.py", 1),
        ("torchrun --nnodes 2:4 train.py", 2),
        ("python -m torch.distributed.run --nnodes=2 train.py", 2),
        ("accelerate launch --num_machines 3 train.py", 3),
        ("accelerate launch --num-machines=3 train.py", 3),
        ("srun -N 2 python train.py", 2),
        ("srun --nodes=2-4 python train.py", 2),
        ("torchrun --standalone --nproc-per-node 2 train.py", 1),
        ("torchrun train.py --nnodes 2", 1),
        ("torchrun --nnodes $N train.py", 1),
        ("python train.py --nnodes 2", 1),
    ],
)
def test_a_launcher_says_how_many_hosts(command, hosts):
    assert hosts_of(command.split()) == hosts


def test_what_cannot_be_probed_is_said_in_one_line():
    said = why_not_probed("torchrun --nnodes 2 train.py".split())
    assert said.startswith("the command trains on 2 hosts")
    assert "\n" not in said
    assert why_not_probed(["python", "train.py"]) == ""
