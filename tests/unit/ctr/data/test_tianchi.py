from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv as arrow_csv

from ctrkit.ctr.data.planted import Scale, make_world
from ctrkit.ctr.data.store import IMPRESSION_COLUMNS, Store
from ctrkit.ctr.data.synthetic import generate_store
from ctrkit.ctr.data.tianchi import generate_tianchi

SIZE = {"rows": 4000, "users": 400, "items": 600, "seed": 11}
HEADERS = {
    "raw_sample.csv": "user,time_stamp,adgroup_id,pid,nonclk,clk",
    "ad_feature.csv": "adgroup_id,cate_id,campaign_id,customer,brand,price",
    "user_profile.csv": "userid,cms_segid,cms_group_id,final_gender_code,age_level,pvalue_level,"
    "shopping_level,occupation,new_user_class_level ",
    "behavior_log.csv": "user,time_stamp,btag,cate,brand",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tianchi") / "csv"
    generate_tianchi(out, **SIZE)
    return out


def read(folder: Path, name: str) -> pa.Table:
    return arrow_csv.read_csv(folder / name)


def numbers(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy()


def test_files_and_headers(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == set(HEADERS)
    for name, header in HEADERS.items():
        text = (folder / name).read_text()
        assert text.split("\n", 1)[0] == header
        assert '"' not in text


def test_rows(folder: Path) -> None:
    assert read(folder, "raw_sample.csv").num_rows == SIZE["rows"]
    assert read(folder, "ad_feature.csv").num_rows == SIZE["items"]
    assert read(folder, "user_profile.csv").num_rows == SIZE["users"]
    samples = read(folder, "raw_sample.csv")
    assert set(samples["pid"].to_pylist()) == {"430548_1007", "430539_1007"}
    np.testing.assert_array_equal(numbers(samples, "clk") + numbers(samples, "nonclk"), 1)


def test_the_dirt_is_there(folder: Path) -> None:
    with (folder / "ad_feature.csv").open() as file:
        ads = list(csv.DictReader(file))
    brands = {ad["brand"] for ad in ads}
    assert {"NULL", ""} <= brands
    assert any(brand.isdigit() for brand in brands)
    assert max(float(ad["price"]) for ad in ads) == 99_999_999
    with (folder / "user_profile.csv").open() as file:
        levels = {row["new_user_class_level "] for row in csv.DictReader(file)}
    assert "" in levels

    samples = read(folder, "raw_sample.csv")
    profiles = numbers(read(folder, "user_profile.csv"), "userid")
    known_ads = [int(ad["adgroup_id"]) for ad in ads]
    no_profile = ~np.isin(numbers(samples, "user"), profiles)
    no_ad = ~np.isin(numbers(samples, "adgroup_id"), known_ads)
    assert no_profile.any()
    assert no_ad.any()
    assert 0.02 < (no_profile | no_ad).mean() < 0.1

    log = read(folder, "behavior_log.csv")
    assert set(log["btag"].to_pylist()) == {"pv", "cart", "fav", "buy"}
    times = numbers(log, "time_stamp")
    assert (times <= 0).any()
    assert (times > 2**31).any()
    keys = list(zip(numbers(log, "user").tolist(), times.tolist(), strict=True))
    assert len(set(keys)) < len(keys)
    assert (np.diff(numbers(log, "user")) < 0).any(), "the log is in no order"


def test_same_impressions_and_clicks_as_the_store(folder: Path, tmp_path: Path) -> None:
    generate_store(tmp_path / "store", **SIZE)
    store = Store.open(tmp_path / "store")
    samples = read(folder, "raw_sample.csv")
    np.testing.assert_array_equal(numbers(samples, "time_stamp"), store.time_s)
    label = store.impressions[:, IMPRESSION_COLUMNS.index("label")]
    np.testing.assert_array_equal(numbers(samples, "clk"), label)
    user = numbers(samples, "user")
    expected = np.where(user <= SIZE["users"], user + 1, 1)
    np.testing.assert_array_equal(store.impressions[:, 0], expected)
    item = numbers(samples, "adgroup_id")
    expected = np.where(item <= SIZE["items"], item + 1, 1)
    np.testing.assert_array_equal(store.impressions[:, 1], expected)


def test_same_behaviours_as_the_store(folder: Path, tmp_path: Path) -> None:
    generate_store(tmp_path / "store", **SIZE)
    store = Store.open(tmp_path / "store")
    log = read(folder, "behavior_log.csv")
    # the log has a few rows twice and a few impossible times, else the same events
    assert 0 < log.num_rows - len(store.behavior_time_s) < 0.01 * log.num_rows
    stored = set(zip(store.behavior_time_s.tolist(), store.behavior_category.tolist(), strict=True))
    times, categories = numbers(log, "time_stamp"), numbers(log, "cate") + 1
    logged = list(zip(times.tolist(), categories.tolist(), strict=True))
    assert np.mean([event in stored for event in logged]) > 0.99


@pytest.mark.parametrize("behaviors", [2_000, 100_000, 1_000_000])
def test_about_as_many_behaviours_as_asked_for(behaviors: int) -> None:
    scale = Scale(rows=100, users=5000, items=100, behaviors=behaviors)
    assert make_world(scale, 3).events.sum() == pytest.approx(behaviors, rel=0.1)
    reference = Scale(rows=100, users=5000, items=100)
    assert make_world(reference, 3).events.mean() == pytest.approx(35, rel=0.05)
