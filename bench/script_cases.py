"""The training scripts that `scripts.py` runs, and the truth about each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Case:
    """A script, and what ctrkit should find out about it.

    `command` begins with `python`, or a program beside it. `of`: the packages that it is a script
    of. `shipped`: the script is one of theirs; else it is ours and uses them as documented.
    `batches`, `rows`: batches of an epoch, and rows of a batch (of each rank). `epochs`: None if it
    never ends. `make_data`: what generates its data. `ends`: whether it can be run to its end.
    """

    name: str
    command: tuple[str, ...]
    of: tuple[str, ...] = ()
    shipped: bool = False
    batches: int | None
    rows: int
    epochs: int | None
    make_data: str | None = None
    python: str = "main"
    env: dict[str, str] = field(default_factory=dict)
    axes: tuple[str, ...] = ("--workers", "0,2", "--start-method", "fork,spawn")

    @property
    def ends(self) -> bool:
        return self.epochs is not None


_NO_NETWORK = {"HF_HUB_OFFLINE": "1", "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": ".yolo"}

CASES = (
    Case(name="plain loop", command=("python", "plain.py"), batches=48, rows=32, epochs=3),
    Case(name="GAN", command=("python", "gan.py"), batches=32, rows=32, epochs=3),
    Case(
        name="gradient accumulation", command=("python", "accumulation.py"), batches=96, rows=16,
        epochs=3,
    ),
    Case(
        name="IterableDataset", command=("python", "stream.py"), batches=32, rows=32, epochs=3,
    ),
    Case(
        name="array without DataLoader", command=("python", "no_loader.py"), batches=3000, rows=1,
        epochs=1, axes=(),
    ),
    Case(
        name="loop that never ends", command=("python", "endless.py"), batches=312_500_000, rows=32,
        epochs=None,
    ),
    Case(
        name="torchrun with two ranks", batches=24, rows=32, epochs=3,
        command=("python", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                 "ranks.py"),
    ),
    Case(
        name="Lightning", of=("lightning",), command=("python", "lightning_train.py"),
        batches=48, rows=32, epochs=3,
    ),
    Case(
        name="Hugging Face Trainer", of=("transformers", "accelerate"), env=_NO_NETWORK,
        command=("python", "hf_trainer.py"), batches=64, rows=16, epochs=3,
    ),
    Case(
        name="accelerate launch", of=("accelerate",), batches=96, rows=16, epochs=3,
        command=("accelerate", "launch", "--cpu", "accelerate_train.py"),
    ),
    Case(
        name="timm with its prefetcher", of=("timm",), batches=30,
        command=("python", "timm_train.py", "-j", "0"),
        rows=16, epochs=2, make_data="images", env=_NO_NETWORK,
    ),
    Case(
        name="ultralytics", of=("ultralytics",), shipped=True, batches=12, rows=16, epochs=2,
        make_data="boxes", env=_NO_NETWORK,
        command=(
            "yolo", "train", "model=yolo11n.yaml", "data=tiny.yaml", "epochs=2", "imgsz=160",
            "batch=16", "workers=0", "device=cpu", "pretrained=False", "plots=False", "amp=False",
        ),
    ),
    Case(
        name="RecBole", of=("recbole",), command=("python", "recbole_train.py"), python="recbole",
        batches=57, rows=512, epochs=4, make_data="interactions",
        env={"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"},
    ),
    Case(
        name="FuxiCTR", of=("fuxictr",), command=("python", "fuxictr_train.py"),
        batches=94, rows=128, epochs=2, make_data="histories",
    ),
    Case(
        name="ignite", of=("pytorch-ignite",), command=("python", "ignite_train.py"),
        batches=125, rows=32, epochs=3,
    ),
    Case(
        name="skorch", of=("skorch",), command=("python", "skorch_train.py"), batches=100,
        rows=32, epochs=4,
    ),
    Case(
        name="sentence-transformers", of=("sentence-transformers",), env=_NO_NETWORK,
        command=("python", "sentence_train.py"), batches=60, rows=16, epochs=3,
    ),
    Case(
        name="Keras on torch", of=("keras",), command=("python", "keras_train.py"), batches=125,
        rows=32, epochs=3,
    ),
)  # fmt: skip
