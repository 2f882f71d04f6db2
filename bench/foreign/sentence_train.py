"""A script with sentence-transformers, as documented, with a tiny model made here."""

import os
import random

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    losses,
    models,
)
from transformers import BertConfig, BertModel, BertTokenizerFast


def main():
    random.seed(0)
    words = [f"w{i}" for i in range(500)]
    os.makedirs("tiny", exist_ok=True)
    with open("tiny/vocab.txt", "w") as file:
        file.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    BertModel(
        BertConfig(
            vocab_size=505,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
        )
    ).save_pretrained("tiny")
    BertTokenizerFast(vocab="tiny/vocab.txt").save_pretrained("tiny")
    word = models.Transformer("tiny", max_seq_length=32)
    model = SentenceTransformer(modules=[word, models.Pooling(64)], device="cpu")

    def sentence() -> str:
        return " ".join(random.choices(words, k=random.randint(5, 25)))

    data = Dataset.from_dict(
        {"anchor": [sentence() for _ in range(960)], "positive": [sentence() for _ in range(960)]}
    )
    args = SentenceTransformerTrainingArguments(
        output_dir="out",
        num_train_epochs=3,
        per_device_train_batch_size=16,
        save_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    SentenceTransformerTrainer(
        model=model, args=args, train_dataset=data, loss=losses.MultipleNegativesRankingLoss(model)
    ).train()


if __name__ == "__main__":
    main()
