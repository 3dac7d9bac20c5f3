"""Names and order of methods and slices, as tables and pages show them."""

from __future__ import annotations

from learn_spark.ads.rankers.evaluation import CONTRASTS
from learn_spark.evaluation.bands import POPULARITY
from learn_spark.evaluation.labels import (
    BASELINES,
    DIMENSIONS,
    METHODS,
    VARIANTS,
    band_label,
    in_order,
    method_label,
    place_of_dimension,
    place_of_slice,
    shown_metrics,
)
from learn_spark.evaluation.slices import DIMENSIONS as SLICED
from learn_spark.model.towers.registry import TOWERS


def test_every_method_dimension_and_variant_has_a_name() -> None:
    assert set(METHODS) == {*BASELINES, *TOWERS}
    assert set(DIMENSIONS) == set(SLICED)
    assert {variant for pair in CONTRASTS for variant in pair} == set(VARIANTS)


def test_a_model_comes_before_its_vectors_alone_and_unknown_methods_last() -> None:
    methods = ["zeta", "learn-plus-vectors", "learn", "alpha", "learn-plus", "popularity", "learn"]
    assert in_order(methods) == ["popularity", "learn-plus", "learn-plus-vectors", "learn", "alpha", "zeta"]
    assert method_label("learn-plus-vectors") == "LEARN+, vectors only"
    assert method_label("sasrec-vectors") == "SASRec, vectors only"
    assert method_label("alpha") == "alpha"


def test_slices_are_in_the_order_of_their_numbers() -> None:
    bands = list(POPULARITY.values())
    assert sorted(set(bands), key=place_of_slice) == bands
    assert [band_label(band) for band in bands[:2]] == ["no training event", "1-4"]
    assert sorted(["365+", "1-6", "under 1", "30-89"], key=place_of_slice) == ["under 1", "1-6", "30-89", "365+"]
    assert sorted(["tail", "mid", "head"], key=place_of_slice) == ["head", "mid", "tail"]
    assert sorted(["other", "time", "mass"], key=place_of_dimension) == ["mass", "time", "other"]


def test_recall_that_is_the_hit_rate_is_not_shown_twice() -> None:
    one = {"recall@10": 0.2, "HR@100": 0.6, "HR@10": 0.2, "NDCG@10": 0.1, "recall@100": 0.6, "MRR": 0.1, "HR@50": 0.5}
    assert list(shown_metrics(one)) == ["HR@10", "HR@50", "HR@100", "MRR", "NDCG@10"]
    # Equal at one k alone: users have several targets.
    several = {"HR@10": 0.0, "recall@10": 0.0, "HR@50": 0.5, "recall@50": 0.3}
    assert list(shown_metrics(several)) == ["HR@10", "HR@50", "recall@10", "recall@50"]
