"""Makes small random data sets for frameworks that read files."""

import json
from pathlib import Path

import numpy as np


def images() -> None:
    """`data/{train,val}/CLASS/*.jpg`, as timm reads them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", 480), ("val", 96)):
        for label in range(4):
            folder = Path("data", part, f"class{label}")
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count // 4):
                pixels = rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)
                pixels[:, :, label % 3] //= 2
                Image.fromarray(pixels).save(folder / f"{i:04d}.jpg")


def boxes() -> None:
    """`tiny.yaml` and images with coloured boxes, as ultralytics reads them."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, count in (("train", 192), ("val", 32)):
        for kind in ("images", "labels"):
            Path("data", kind, part).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels, lines = rng.integers(0, 90, (320, 320, 3), dtype=np.uint8), []
            for _ in range(rng.integers(1, 4)):
                wide, high = rng.uniform(0.15, 0.35, 2)
                x, y = rng.uniform(0.2, 0.8, 2)
                label = int(rng.integers(0, 2))
                left, top = max(0, int((x - wide / 2) * 320)), max(0, int((y - high / 2) * 320))
                right, bottom = int((x + wide / 2) * 320), int((y + high / 2) * 320)
                pixels[top:bottom, left:right] = [(220, 40, 40), (40, 40, 220)][label]
                lines.append(f"{label} {x:.4f} {y:.4f} {wide:.4f} {high:.4f}")
            Image.fromarray(pixels).save(f"data/images/{part}/{i:04d}.jpg")
            Path(f"data/labels/{part}/{i:04d}.txt").write_text("\n".join(lines) + "\n")
    Path("tiny.yaml").write_text(
        f"path: {Path('data').resolve()}\ntrain: images/train\nval: images/val\n"
        "names: [red, blue]\n"
    )


def interactions() -> None:
    """`data/tiny/tiny.inter`, as RecBole reads it."""
    rng = np.random.default_rng(0)
    Path("data/tiny").mkdir(parents=True, exist_ok=True)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(900):
        for item in rng.choice(1500, 40, replace=False):
            lines.append(f"u{user}\ti{item}\t{rng.integers(1, 6)}\t{len(lines)}")
    Path("data/tiny/tiny.inter").write_text("\n".join(lines) + "\n")


def histories() -> None:
    """Tables and settings of a model on long histories, as FuxiCTR reads them."""
    import pandas as pd

    rng = np.random.default_rng(0)
    users, items = 600, 2000
    folder = Path("data/tiny")
    folder.mkdir(parents=True, exist_ok=True)
    Path("config").mkdir(exist_ok=True)
    seen = pd.DataFrame({"full_item_seq": [rng.integers(1, items, 60) for _ in range(users)]})
    seen.to_parquet(folder / "user_info.parquet")
    pd.DataFrame({
        "item_index": np.arange(items), "item_id": np.arange(items),
        "cate_id": rng.integers(1, 50, items),
    }).to_parquet(folder / "item_info.parquet")  # fmt: skip
    for part, rows in (("train", 12_000), ("valid", 2000), ("test", 1000)):
        pd.DataFrame({
            "label": (rng.random(rows) < 0.3).astype("int64"),
            "user_index": rng.integers(0, users, rows), "user_id": rng.integers(1, users, rows),
            "item_index": rng.integers(1, items, rows), "seq_len": rng.integers(5, 60, rows),
        }).to_parquet(folder / f"{part}.parquet", index=False)  # fmt: skip
    (folder / "feature_map.json").write_text(json.dumps(_feature_map(users, items)))
    Path("config/dataset_config.yaml").write_text(_DATASET)
    Path("config/model_config.yaml").write_text(_MODEL)


def _feature_map(users: int, items: int) -> dict:
    def feature(name: str, size: int, source: str) -> dict:
        return {name: {"source": source, "type": "categorical", "padding_idx": 0,
                       "vocab_size": size}}  # fmt: skip

    return {
        "dataset_id": "tiny", "num_fields": 3, "total_features": 3000, "input_length": 3,
        "labels": ["label"],
        "features": [
            feature("user_id", users + 1, "user"), {"user_index": {"type": "meta"}},
            {"item_index": {"type": "meta"}}, {"seq_len": {"type": "meta"}},
            feature("item_id", items + 1, "item"), feature("cate_id", 60, "item"),
        ],
    }  # fmt: skip


_DATASET = """tiny:
    data_root: ./data/
    data_format: parquet
    train_data: ./data/tiny/train.parquet
    valid_data: ./data/tiny/valid.parquet
    test_data: ./data/tiny/test.parquet
    user_info: ./data/tiny/user_info.parquet
    item_info: ./data/tiny/item_info.parquet
    rebuild_dataset: true
    feature_cols: []
    label_col: {name: label, dtype: float}
"""
_MODEL = """Base:
    model_root: ./checkpoints/
    num_workers: 1
    verbose: 1
    early_stop_patience: 5
    save_best_only: true
    eval_steps: null
    debug_mode: false
    group_id: null
    use_features: null
    feature_specs: null
    feature_config: null
DIN_tiny:
    model: DIN
    dataset_id: tiny
    loss: binary_crossentropy
    metrics: [logloss, AUC]
    task: binary_classification
    optimizer: adam
    learning_rate: 0.001
    embedding_regularizer: 0
    net_regularizer: 0
    batch_size: 128
    embedding_dim: 16
    dnn_hidden_units: [128, 64]
    dnn_activations: relu
    attention_hidden_units: [64]
    attention_hidden_activations: Dice
    epochs: 2
    max_len: 50
    shuffle: true
    seed: 2026
    monitor: AUC
    monitor_mode: max
"""
