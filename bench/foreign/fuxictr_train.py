"""A script with FuxiCTR, as its LongCTR/run_expid.py uses it: DIN on long histories.

The file shipped in the package cannot be run as it is: it imports its models relatively.
"""

import argparse
import os

from fuxictr.features import FeatureMap
from fuxictr.preprocess import FeatureProcessor, build_dataset
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.torch_utils import seed_everything
from fuxictr.utils import load_config, set_logger
from model_zoo.LongCTR.DIN.DIN import DIN
from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="./config/")
    parser.add_argument("--expid", default="DIN_tiny")
    args = vars(parser.parse_args())
    params = load_config(args["config"], args["expid"]) | {"gpu": -1}
    set_logger(params)
    seed_everything(seed=params["seed"])
    data_dir = os.path.join(params["data_root"], params["dataset_id"])
    encoder = FeatureProcessor(**params)
    params["train_data"], params["valid_data"], params["test_data"] = build_dataset(
        encoder, **params
    )
    feature_map = FeatureMap(params["dataset_id"], data_dir)
    feature_map.load(os.path.join(data_dir, "feature_map.json"), params)
    model = DIN(feature_map, **params)
    params["data_loader"] = LongCTRDataLoader
    train_gen, valid_gen = RankDataLoader(feature_map, stage="train", **params)
    model.fit(train_gen, validation_data=valid_gen, **params)
    model.evaluate(valid_gen)
