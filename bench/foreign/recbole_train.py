"""A script with RecBole, as documented: BPR on a small data set."""

from recbole.quick_start import run_recbole

if __name__ == "__main__":
    run_recbole(
        model="BPR",
        dataset="tiny",
        config_dict={
            "data_path": "data",
            "epochs": 4,
            "train_batch_size": 512,
            "eval_batch_size": 4096,
            "use_gpu": False,
            "embedding_size": 64,
            "stopping_step": 10,
            "show_progress": False,
            "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "RO", "mode": "full"},
        },
    )
