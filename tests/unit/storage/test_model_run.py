import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from raydom.config import DomainSpec, GeneratorConfig, GeneratorSpec, ModelSpec, NetworkConfig
from raydom.errors import ConfigError, DataError
from raydom.storage.checkpoints import latest_checkpoint, save_checkpoint
from raydom.storage.model_run import begin_model_run, open_generator_run, open_model_run, write_model_run
from raydom.types import ImageStatistics

SPEC = ModelSpec(
    network=NetworkConfig(depth=2), channels=("red", "green"), low=0.1, high=0.9, pixel_size_um=0.25,
    total_stride=4, receptive_field_px=23,
)  # fmt: skip
STATISTICS = ImageStatistics((0.0,), (9.0,), (4.5,), (2.0,), ((0.0, 4.0, 9.0),))
GENERATORS = GeneratorSpec(
    kind="cyclegan", generator=GeneratorConfig(channels=1), channels=("red",), pixel_size_um=None, total_stride=4,
    reach_px=90,
    domains=tuple(DomainSpec(name=n, low=0.0, high=0.5, dtype="uint16", statistics=STATISTICS) for n in ("a", "b")),
)  # fmt: skip
WEIGHTS = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3).T, "a.count": np.array(7)}
ROWS = [{"step": 1, "fit.loss": 0.5}, {"step": 2, "fit.loss": 0.25, "score": 0.8}]


def test_what_is_written_is_read_back(tmp_path):
    written = write_model_run(str(tmp_path), SPEC, WEIGHTS, {"seed": 3, "ids": ["a", "b"]}, ROWS)
    run = open_model_run(str(tmp_path))
    assert run == written and run.spec == SPEC and run.training == {"seed": 3, "ids": ["a", "b"]}
    weights = run.weights()
    assert weights.keys() == WEIGHTS.keys() and weights["a.count"].shape == ()
    assert all(np.array_equal(weights[name], WEIGHTS[name]) for name in WEIGHTS)
    assert run.metrics.to_pylist() == [{"step": 1, "fit.loss": 0.5, "score": None}, ROWS[1]]
    assert "torch" in run.versions


def test_works_on_an_object_store():
    run = write_model_run("memory://runs/one", SPEC, WEIGHTS, {})
    assert open_model_run("memory://runs/one").content_hash == run.content_hash


def test_the_content_hash_is_of_weights_and_spec(tmp_path):
    one, same = (write_model_run(str(tmp_path / n), SPEC, WEIGHTS, {"out": n}) for n in "ab")
    other = write_model_run(str(tmp_path / "c"), SPEC, WEIGHTS | {"a.count": np.array(8)}, {})
    assert one.content_hash == same.content_hash != other.content_hash


def test_a_run_from_before_a_setting_was_known_still_opens(tmp_path):
    write_model_run(str(tmp_path), SPEC, WEIGHTS, {})
    config = json.loads((tmp_path / "config.json").read_text())
    del config["spec"]["window_px"]
    content = (tmp_path / "weights.safetensors").read_bytes() + json.dumps(config["spec"], sort_keys=True).encode()
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "complete.json").write_text(json.dumps({"content_hash": hashlib.sha256(content).hexdigest()}))
    run = open_model_run(str(tmp_path))
    assert run.spec == SPEC and run.weights().keys() == WEIGHTS.keys()


def test_no_run_an_unfinished_run_and_a_damaged_one_are_told_apart(tmp_path):
    with pytest.raises(DataError, match="no model run"):
        open_model_run(str(tmp_path / "none"))
    begin_model_run(str(tmp_path), {"seed": 1})
    with pytest.raises(DataError, match="has not finished"):
        open_model_run(str(tmp_path))
    run = write_model_run(str(tmp_path), SPEC, WEIGHTS, {})
    (tmp_path / "weights.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(DataError, match="was changed after the training"):
        run.weights()
    (tmp_path / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json cannot be used"):
        open_model_run(str(tmp_path))


def test_a_folder_belongs_to_one_training(tmp_path):
    folder = str(tmp_path / "run")
    plan = {"train": {"seed": 1, "steps": 5}, "images": ("a", "b")}
    assert begin_model_run(folder, plan) is None
    assert begin_model_run(folder, plan) is None
    with pytest.raises(ConfigError, match=r"train\.seed: 1 -> 2.*choose another --out"):
        begin_model_run(folder, plan | {"train": {"seed": 2, "steps": 5}})
    write_model_run(folder, SPEC, WEIGHTS, {})
    assert begin_model_run(folder, plan) == open_model_run(folder)


def test_a_training_that_began_before_there_was_an_option_goes_on_without_it(tmp_path):
    folder, plan = str(tmp_path), {"train": {"seed": 1}}
    begin_model_run(folder, plan)
    assert begin_model_run(folder, {"train": {"seed": 1, "later": None, "names": []}}) is None
    with pytest.raises(ConfigError, match=r"differs in: train\.names: null -> \["):
        begin_model_run(folder, {"train": {"seed": 1, "names": ["a"]}})
    usual = {"train": {"seed": 0, "share": 0.1}}
    assert begin_model_run(folder, {"train": {"seed": 1, "share": 0.1}}, usual) is None
    with pytest.raises(ConfigError, match=r"differs in: train\.share: null -> 0\.2"):
        begin_model_run(folder, {"train": {"seed": 1, "share": 0.2}}, usual)
    with pytest.raises(ConfigError, match=r"differs in: train\.seed: 1 -> 0"):  # which the run does know
        begin_model_run(folder, {"train": {"seed": 0}}, usual)


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="something else than a model run"):
        begin_model_run(str(tmp_path), {})


def test_the_last_two_checkpoints_are_kept(tmp_path):
    folder = str(tmp_path / "checkpoints")
    assert latest_checkpoint(folder) is None
    for step in (2, 9, 10):
        save_checkpoint(folder, step, b"%d" % step)
    assert latest_checkpoint(folder) == b"10"
    assert len(list(Path(folder).iterdir())) == 2


def test_a_run_of_generators_is_read_back_and_neither_kind_is_taken_for_the_other(tmp_path):
    written = write_model_run(str(tmp_path / "g"), GENERATORS, WEIGHTS, {})
    assert open_generator_run(str(tmp_path / "g")) == written and written.spec == GENERATORS
    write_model_run(str(tmp_path / "m"), SPEC, WEIGHTS, {})
    with pytest.raises(ConfigError, match=r"g is a run of generators \(cyclegan\).*--generator"):
        open_model_run(str(tmp_path / "g"))
    with pytest.raises(ConfigError, match=r"m is a run of a segmentation model \(unet\).*this one is for --model"):
        open_generator_run(str(tmp_path / "m"))
