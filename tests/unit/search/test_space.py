"""What is searched: names that mean fields, and values that they may take."""

import numpy as np
import pytest

from raydom.commands import DannConfig
from raydom.config import StyleConfig
from raydom.errors import ConfigError
from raydom.search.space import Choice, Range, Space, read_space


def test_names_mean_fields():
    space = read_space(
        {"style.method": ["nst"], "nst.steps": [75, 150], "style.nst.style_weight": "loguniform(1e2, 1e6)"},
        StyleConfig,
        "style",
    )
    assert space.parameters == {
        "method": Choice(("nst",)),
        "nst.steps": Choice((75, 150)),
        "nst.style_weight": Range(100.0, 1e6, log=True),
    }
    both = read_space({"style.steps": [75, 150]}, StyleConfig, "style")  # each method's own
    assert both.parameters == dict.fromkeys(("nst.steps", "strotss.steps"), Choice((75, 150)))
    training = read_space({"learning_rate": ["1e-3", 0.01], "levels": ["bottleneck,decoder0"]}, DannConfig, "train")
    assert training.parameters == {
        "train.learning_rate": Choice((0.001, 0.01)),
        "levels": Choice((["bottleneck", "decoder0"],)),
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"style.nst.stpes": [1]}, r"no field style.nst.stpes to search; did you mean style.nst.steps\?"),
        ({"nst.steps": ["many"]}, "nst.steps is of type int; got 'many'"),
        ({"nst.steps": [1.5]}, "nst.steps is of type int; got 1.5"),
        ({"nst.steps": "uniform(1, 9)"}, r"whole number; write int\(a, b\)"),
        ({"nst.learning_rate": "loguniform(0, 1)"}, "lower bound first, above 0; got 0 and 1"),
        ({"nst.learning_rate": "uniform(2, 1)"}, "lower bound first; got 2 and 1"),
        ({"nst.learning_rate": "unifrom(1, 2)"}, "did you mean uniform?"),
        ({"nst.learning_rate": "uniform(1, inf)"}, "finite bounds"),
        ({"nst.steps": "int(0.5, 3)"}, "whole numbers as bounds"),
        ({"nst.style_layers": [3]}, "takes words, with commas between or as a list; got 3"),
        ({"init": "uniform(1, 2)"}, "init is no number"),
        ({"nst.steps": []}, "empty list"),
        ({"steps": [1], "nst.steps": [2]}, "both mean nst.steps"),
        ({"seed": [1, 2]}, "no field seed to search"),
        ({}, "the space is empty"),
    ],
)
def test_spaces_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        read_space(given, StyleConfig, "style", ("seed",))


def test_a_grid_has_every_combination_and_no_range():
    space = Space({"a": Choice((1, 2)), "b": Choice(("x", "y", "z"))})
    assert [*space.grid()][:4] == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 1, "b": "z"}, {"a": 2, "b": "x"}]
    assert space.num_combinations == 6
    with pytest.raises(ConfigError, match="there are ranges: b"):
        next(Space({"a": Choice((1,)), "b": Range(0, 1)}).grid())


def test_draws_and_neighbours_stay_within_bounds():
    generator = np.random.default_rng(0)
    space = Space({"a": Range(1, 5, integer=True), "b": Range(1e-4, 1.0, log=True), "c": Choice((1, 2, 3))})
    drawn = [space.draw(generator) for _ in range(2000)]
    assert {values["a"] for values in drawn} == {1, 2, 3, 4, 5}
    decades = np.histogram([np.log10(values["b"]) for values in drawn], bins=4, range=(-4, 0))[0]
    assert decades.min() > 400  # as many in each decade
    for values in drawn[:100]:
        near = space.neighbour(values, generator)
        assert 1 <= near["a"] <= 5 and 1e-4 <= near["b"] <= 1 and abs(near["c"] - values["c"]) <= 1
