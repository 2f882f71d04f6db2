"""A script with the Hugging Face Trainer, as documented, with a tiny model made here."""

import torch
from slow_rows import SlowRows
from torch.utils.data import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)


class Texts(Dataset):
    """Rows as texts of 24 words."""

    def __init__(self, rows: int) -> None:
        self.rows = SlowRows(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        row, label = self.rows[index]
        words = (row[:24].abs() * 100).long().clamp(max=399)
        return {"input_ids": words, "attention_mask": torch.ones(24, dtype=torch.long),
                "labels": label.long()}  # fmt: skip


def main() -> None:
    set_seed(0)
    config = BertConfig(
        vocab_size=400, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, num_labels=2,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir="out", num_train_epochs=3, per_device_train_batch_size=16,
        gradient_accumulation_steps=2, eval_strategy="epoch", save_strategy="epoch",
        report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    Trainer(
        model=BertForSequenceClassification(config), args=arguments,
        train_dataset=Texts(1024), eval_dataset=Texts(128),
    ).train()  # fmt: skip


if __name__ == "__main__":
    main()
