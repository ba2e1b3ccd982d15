"""Searches for styles and trainings in this process, from the command line's options to what other commands read."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch

from raydom.algorithms.trained import load_trained
from raydom.cli import main, parse
from raydom.commands import DannConfig, SupervisedConfig, TuneStyleConfig
from raydom.commands.search import SourceFilter, TuneDannConfig, TuneSupervisedConfig
from raydom.config import ImageFilter, RunConfig, SearchConfig, StyleConfig, StyleOptions, TrainConfig
from raydom.errors import ConfigError, DataError
from raydom.search.results import conclude
from raydom.search.serial import search_here
from raydom.search.shown import Shown, check_scored
from raydom.search.space import read_space
from raydom.search.style_images import candidates, nearest
from raydom.search.styles import plan_style_search
from raydom.search.trainings import plan_training_search
from raydom.search.yaml import read_yaml
from raydom.storage.model_run import open_model_run

SIDE = 64


def cells(seed, dark, bright):
    """Discs on a background, and their mask."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    mask = np.zeros((SIDE, SIDE), bool)
    for cy, cx in generator.integers(8, SIDE - 8, (6, 2)):
        mask |= (y - cy) ** 2 + (x - cx) ** 2 < 36
    pixels = np.where(mask, bright, dark) + generator.normal(0, 6, mask.shape)
    return pixels.clip(0, 255).astype(np.uint8)[None], mask.astype(np.uint8)


@pytest.fixture
def lab(make_collection, make_model, tmp_path):
    """A source, a target in the negative, and a model; search options that take seconds."""

    def collection(name, count, dark, bright):
        made = {f"{name}{n}": cells(n + 10 * dark, dark, bright) for n in range(count)}
        images, labels = ({key: value[part] for key, value in made.items()} for part in (0, 1))
        return make_collection(name, images, labels, split=dict.fromkeys(made, "train") | {f"{name}0": "val"})

    class Lab:
        source, target = collection("s", 3, 40, 200), collection("t", 4, 150, 60)
        model, out = make_model(), str(tmp_path / "out")

        def style(self, space, **fields):
            (tmp_path / "space.yaml").write_text(space)
            search = {"space": str(tmp_path / "space.yaml"), "sample": 2, "sample_px": SIDE} | {
                name: fields.pop(name) for name in SearchConfig.__dataclass_fields__ if name in fields
            }
            return TuneStyleConfig(
                source=self.source.uri,
                target=self.target.uri,
                model=self.model,
                out=self.out,
                search=SearchConfig(**search),
                run=RunConfig(serial=True, quiet=True),
                **fields,
            )

    return Lab()


def test_a_style_search_leaves_what_segment_takes(lab, tmp_path, capsys):
    config = lab.style("method: [histogram, nst]\nnst.steps: [1, 2]\n", preselect=2)
    options = ["--source", config.source, "--target", config.target, "--model", config.model, "--out", config.out]
    options += ["--space", config.search.space, "--sample", "2", "--sample-px", str(SIDE), "--preselect", "2"]
    assert main(["tune", "style", *options, "--serial", "--quiet"]) == 0
    told = capsys.readouterr().out
    table = pq.read_table(tmp_path / "out" / "trials.parquet").to_pylist()
    assert [row["trial"] for row in table] == list(range(7))  # 2 styles x (histogram, nst of 1 and of 2 steps), and 0
    assert {row["status"] for row in table} == {"finished"}
    assert {(row["method"], row["nst.steps"]) for row in table[1:]} == {("histogram", None), ("nst", 1), ("nst", 2)}
    assert all(row["true_f1"] is not None and row["combined"] == row["score"] for row in table)
    assert (tmp_path / "out" / "search.png").stat().st_size > 5000
    best = max(table, key=lambda row: row["score"])
    answer = f"trial {best['trial']}, combined {best['score']:.3f}" if best["trial"] else "do not adapt: no trial is"
    assert f"Best of 7 trials: {answer}" in told
    style = json.loads(best["config"])["style"]
    taken = parse("segment", ["--config", str(tmp_path / "out" / "best.yaml")])
    assert (taken.collection, taken.model, taken.out) == (config.target, config.model, str(tmp_path / "out" / "labels"))
    if style["method"] != "none":
        assert (taken.style.method, taken.style.style) == (style["method"], style["style"])
        assert taken.style.nst.steps == style["nst"]["steps"] or style["method"] != "nst"
    assert main(["segment", "--config", str(tmp_path / "out" / "best.yaml"), "--serial", "--quiet"]) == 0


def test_fewer_steps_on_the_way_are_those_of_fewer_steps(lab):
    """What asha compares: so a style that ends early is a result."""
    several = plan_style_search(lab.style("method: [nst]\nnst.steps: [9]\n", preselect=1))
    runner = replace(several, search=replace(several.search, scheduler="asha")).runner()
    trial = several.check({"method": "nst", "style": lab_style(several), "nst.steps": 9})[0]
    from raydom.search.trials import Outcome, Trial

    on_the_way = list(runner.reports(Trial(1, trial), Outcome(Trial(1, trial))))
    assert [report.steps for report in on_the_way] == [1, 3, 9]
    for report in on_the_way:
        alone = Trial(2, trial | {"nst.steps": report.steps})
        (last,) = several.runner().reports(alone, Outcome(alone))
        assert last.scores == report.scores
        assert report.values["nst.steps"] == report.steps


def lab_style(problem):
    return problem.space.parameters["style"].values[0]


def test_labels_are_looked_at_only_in_the_probe(lab):
    config = lab.style("method: [histogram]\n", objective="f1", probe=2, preselect=1)
    problem = plan_style_search(config)
    assert len(problem.bench.probe_ids) == 2 and not {*problem.bench.probe_ids} & {*problem.bench.target_ids}
    search_here(problem)
    table = conclude(problem).table.to_pylist()
    assert all(row["score"] == row["probe_f1"] for row in table)
    assert any(row["true_f1"] != row["probe_f1"] for row in table)


def test_what_was_searched_for_some_images_is_used_on_these(lab, tmp_path):
    images = ImageFilter(split="train", keep=("width>=8", "split!=val"))
    problem = plan_style_search(lab.style("method: [none]\n", images=images, source_images=SourceFilter(split="val")))
    search_here(problem)
    conclude(problem)
    assert parse("segment", ["--config", f"{lab.out}/best.yaml"]).images == images
    other = lab.style("method: [none]\n", images=images, source_images=SourceFilter(split="train"))
    with pytest.raises(ConfigError, match=r"another search: it differs in bench\. "):
        search_here(plan_style_search(other))


def test_style_images_are_chosen_by_pattern_condition_and_nearness(lab, tmp_path):
    uris = [str(image.uri) for image in lab.source]
    assert candidates([], lab.source.uri) == tuple(uris)
    assert candidates(["split=val"], lab.source.uri) == (uris[0],)
    for name in ("a.tif", "b.tif"):
        (tmp_path / name).touch()
    assert candidates([str(tmp_path / "*.tif"), "split=val"], lab.source.uri) == (
        str(tmp_path / "a.tif"), str(tmp_path / "b.tif"), uris[0],
    )  # fmt: skip
    assert candidates([], lab.source.uri, ImageFilter(split="train")) == tuple(uris[1:])
    with pytest.raises(ConfigError, match="none of 2 images fulfils split=val"):
        candidates(["split=val"], lab.source.uri, ImageFilter(split="train"))
    problem = plan_style_search(lab.style("method: [histogram]\n", styles=(), preselect=2))
    content = problem.runner().bench.content
    target = [str(image.uri) for image in lab.target]
    assert nearest([*uris, *target], content, 4) and {*nearest([*uris, *target], content, 4)} == {*target}


@pytest.mark.parametrize(
    ("space", "fields", "message"),
    [
        ("nst.steps: [1]\n", {}, "names no style method"),
        ("method: [nts]\n", {}, "unknown style method 'nts'"),
        ("method: [nst]\nnst.steps: [1, -1]\n", {}, "nst.steps = -1 cannot be: nst.steps must be >= 0"),
        ("method: [nst]\nnst.stepz: [1]\n", {}, r"no field nst.stepz to search; did you mean style.nst.steps\?"),
        ("method: [nst]\n", {"objective": "f2"}, "there is no objective 'f2'; there is combined, certainty"),
        ("method: [nst]\n", {"objective": "f1"}, "say by --probe N how many"),
        ("method: [nst]\n", {"probe": 1}, "--probe 1 has no effect on --objective combined"),
        ("method: [nst]\n", {"scheduler": "pbt"}, "pbt is for trainings"),
        ("method: [histogram]\n", {"objective": "ap_50", "probe": 1}, "scored as binary labels, which have f1, "),
        ("method: [histogram]\n", {"styles": ("rgb.tif",)}, r"rgb.tif has 3 channels, .* have 1 \(c0\)"),
        ("method: [nst]\n", {"styles": ("split=tset",)}, "split"),
        ("method: [nst]\n", {"styles": ("nowhere/*.tif",)}, "no file fits this pattern"),
        ("method: [cyclegan]\n", {}, "needs --generator RUN"),
        ("method: [none]\n", {"styles": ("split=val",)}, "none of none takes a style image"),
        ("method: [nst]\nnst.steps: int(1, 9)\n", {"searcher": "grid"}, "there are ranges: nst.steps"),
        ("method: [nst]\nnst.style_layers: [[relu99]]\n", {}, "relu99"),
        ("- nst\n", {}, "holds no fields"),
        ("a: [", {}, "cannot be read"),
    ],
)
def test_style_searches_are_refused_before_the_first_trial(lab, tmp_path, monkeypatch, space, fields, message):
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("rgb.tif", np.zeros((SIDE, SIDE, 3), np.uint8), photometric="rgb")
    with pytest.raises(ConfigError, match=message):
        search_here(plan_style_search(lab.style(space, **fields)))
    assert not (tmp_path / "out" / "trials").exists()


def test_a_search_of_trainings_scores_the_models_that_it_leaves(lab, make_collection, tmp_path):
    (tmp_path / "space.yaml").write_text("learning_rate: [1e-3, 1e-2]\n")
    training = SupervisedConfig(
        collection=lab.source.uri,
        out=lab.out,
        base_channels=4,
        depth=2,
        train=TrainConfig(steps=4, validate_every=2, batch_size=2, crop_px=32, validation_fraction=0.3),
        run=RunConfig(serial=True, quiet=True),
    )
    search = SearchConfig(space=str(tmp_path / "space.yaml"), sample=2, sample_px=SIDE)
    own = plan_training_search(TuneSupervisedConfig(training=training, search=search))
    search_here(own)
    result = conclude(own)
    # Trial 0 is the training as it was given: 1e-3 is its learning rate, so one more is left.
    assert [one.trial.values for one in result.outcomes] == [{}, {"train.learning_rate": 0.01}]
    assert [[report.steps for report in one.reports] for one in result.outcomes] == [[2, 4]] * 2
    table = result.table.to_pylist()
    best = max(table, key=lambda row: row["score"])
    taken = (tmp_path / "out" / "best.yaml").read_text()
    assert f"model: {own.ledger.folder(best['trial'])}/run" in taken
    scored = plan_training_search(
        TuneSupervisedConfig(
            training=replace(training, out=str(tmp_path / "scored")),
            search=search,
            score_model=lab.model,
            score_target=lab.target.uri,
        )
    )
    search_here(scored)
    found = conclude(scored)
    assert len(found.outcomes) == 3 and found.outcomes[0].trial.values == {}
    assert {"combined", "true_f1", "validation"} <= {*found.table.column_names}
    darker = make_collection("t", {image.image_id: image.numpy() // 2 for image in lab.target})  # of the same ids
    with pytest.raises(ConfigError, match=r"another search: it differs in bench\. "):
        search_here(
            plan_training_search(
                TuneSupervisedConfig(
                    training=replace(training, out=str(tmp_path / "scored")),
                    search=search,
                    score_model=lab.model,
                    score_target=darker.uri,
                )
            )
        )
    bench = scored.runner().bench
    for one in found.outcomes[1:]:  # the run holds what had the score
        network, _ = load_trained(f"{scored.ledger.folder(one.trial.number)}/run")
        assert bench.scores(bench.content.pixels, network)["combined"] == one.score
    assert not [name for name in (tmp_path / "scored" / "trials" / "00001").iterdir() if "run-" in name.name]


def test_networks_are_scored_in_the_range_that_they_were_trained_on(lab, make_model):
    model = open_model_run(lab.model).spec
    own = replace(model, low=0.25, high=0.75)
    fractions = torch.rand(1, 1, 8, 8)
    shown = Shown(torch.nn.Identity(), model, own)((fractions - model.low) / (model.high - model.low))
    torch.testing.assert_close(shown, (fractions - own.low) / (own.high - own.low))
    check_scored(own, model, 64)
    for spec, crop_px, message in (
        (replace(model, network=replace(model.network, num_classes=3)), 64, "it has classes 3, .* has 2"),
        (replace(model, total_stride=64), 32, "a multiple of 64 px; --sample-px is 32"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_scored(spec, model, crop_px)
    sized = replace(model, pixel_size_um=0.5)
    with pytest.raises(ConfigError, match=r"pixels of 0.5 um, .* of 0.6 um"):
        check_scored(sized, replace(model, pixel_size_um=0.6), 64)


def test_searches_of_trainings_are_refused(lab, tmp_path):
    (tmp_path / "space.yaml").write_text("weight: [0.1, 1]\n")
    options = ["--source", lab.source.uri, "--target", lab.target.uri, "--out", lab.out, "--steps", "2"]

    def planned(space, *more):
        (tmp_path / "space.yaml").write_text(space)
        config = parse("tune train dann", [*options, "--space", str(tmp_path / "space.yaml"), *more])
        assert isinstance(config, TuneDannConfig)
        return plan_training_search(config)

    with pytest.raises(ConfigError, match=r"give --score-model RUN, or --initial RUN"):
        planned("weight: [0.1, 1]\n")
    with pytest.raises(ConfigError, match=r"weight = -1.0 cannot be: weight must be >= 0"):
        planned("weight: [0.1, -1]\n", "--score-model", lab.model)
    with pytest.raises(ConfigError, match=r"levels = .* cannot be: .*bottleneck"):
        planned("levels: [decoder9]\n", "--score-model", lab.model)
    with pytest.raises(ConfigError, match="trials are compared at the same steps"):
        planned("train.steps: [1, 2]\n", "--score-model", lab.model)
    with pytest.raises(ConfigError, match="give at least one range"):
        planned("weight: [0.1, 1]\n", "--score-model", lab.model, "--scheduler", "pbt")
    with pytest.raises(ConfigError, match=r"output = 'boundary' cannot be: it has outputs boundary, .* has classes"):
        planned("output: [boundary]\n", "--score-model", lab.model)
    with pytest.raises(ConfigError, match="--sample-every has no effect on a search"):
        planned("weight: [0.1, 1]\n", "--score-model", lab.model, "--sample-every", "2")
    with pytest.raises(DataError, match="there is no model run"):
        planned("weight: [0.1, 1]\n", "--score-model", str(tmp_path / "nowhere"))


def test_the_options_of_a_search_are_those_of_its_command():
    config = parse(
        "tune style",
        ["--source", "a", "--target", "b", "--model", "m", "--out", "o", "--styles", "x.tif", "--styles", "split=val",
         "--nst.steps", "7", "--trials", "9", "--scheduler", "asha", "--require-gain", "0.1"],
    )  # fmt: skip
    assert config.styles == ("x.tif", "split=val") and config.style == StyleOptions(nst=config.style.nst)
    assert config.style.nst.steps == 7 and config.search.trials == 9 and config.search.require_gain == 0.1


def test_the_example_spaces_can_be_searched(pytestconfig):
    for name, config in (("style", StyleConfig), ("dann", DannConfig)):
        space = read_space(read_yaml(str(pytestconfig.rootpath / "jobs" / "spaces" / f"{name}.yaml")), config, name)
        assert len(space.parameters) >= 3


def test_an_interrupted_trial_of_a_training_goes_on_to_the_same_model(lab, tmp_path):
    (tmp_path / "space.yaml").write_text("learning_rate: [1e-2]\n")

    def problem(out):
        training = SupervisedConfig(
            collection=lab.source.uri,
            out=str(tmp_path / out),
            base_channels=4,
            depth=2,
            train=TrainConfig(steps=6, validate_every=2, batch_size=2, crop_px=32, validation_fraction=0.3),
            run=RunConfig(serial=True, quiet=True),
        )
        search = SearchConfig(space=str(tmp_path / "space.yaml"), sample=2, sample_px=SIDE)
        return plan_training_search(TuneSupervisedConfig(training=training, search=search))

    class Killed(BaseException):
        pass

    def watch(outcome):
        if outcome.trial.number == 1 and len(outcome.reports) == 2 and not outcome.ended:
            raise Killed

    whole, broken = problem("whole"), problem("broken")
    search_here(whole)
    with pytest.raises(Killed):
        search_here(broken, watch)
    began = broken.ledger.outcome(broken.ledger.trials()[1])
    assert [report.steps for report in began.reports] == [2, 4]
    search_here(broken)
    models = [open_model_run(f"{one.ledger.folder(1)}/run") for one in (whole, broken)]
    assert models[0].content_hash == models[1].content_hash
    kept = [[(report.steps, report.score) for report in one.ledger.outcome(one.ledger.trials()[1]).reports]
            for one in (whole, broken)]  # fmt: skip
    assert kept[0] == kept[1] and len(kept[0]) == 3
