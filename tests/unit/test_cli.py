import os
import signal
import time

import pytest

from raydom import commands
from raydom import config as configs
from raydom.cli import COMMANDS, main, parse
from raydom.config import from_dict, to_dict
from raydom.errors import ConfigError


def test_flags_and_a_yaml_file_give_the_same_configuration(tmp_path):
    flags = ["--collection", "c", "--model", "m", "--out", "o", "--method", "nst", "--style", "s.png"]
    flags += ["--nst.steps", "75", "--nst.style-layers", "fire2", "fire3", "--pixel-size", "0.5", "--workers", "3"]
    (tmp_path / "job.yaml").write_text(
        "collection: c\nmodel: m\nout: o\nmethod: nst\nstyle: s.png\npixel_size: 0.5\nworkers: 3\n"
        "nst:\n  steps: 75\n  style_layers: [fire2, fire3]\n"
    )
    by_flags = parse("segment", flags)
    assert by_flags == parse("segment", ["--config", str(tmp_path / "job.yaml")])
    assert by_flags.style == configs.StyleConfig(
        method="nst", style="s.png", nst=configs.NstConfig(steps=75, style_layers=("fire2", "fire3"))
    )
    assert (by_flags.pixel_size_um, by_flags.run.workers, by_flags.blocks) == (0.5, 3, configs.BlockConfig())


def test_a_configuration_survives_its_journey_as_json():
    config = parse("compare", ["--source", "a", "--target", "b", "--out", "o", "--model", "m", "--model", "n"])
    assert config.model == ("m", "n") and {"macenko", *configs.TRAINED, *config.methods} == set(configs.METHODS)
    assert from_dict(type(config), to_dict(config)) == config


def test_every_example_beside_the_jobs_is_a_configuration(pytestconfig):
    examples = {example.stem: example for example in (pytestconfig.rootpath / "jobs").glob("*.yaml")}
    pages = {page.stem for page in (pytestconfig.rootpath / "jobs").glob("*.py")}
    commands = {name.replace(" ", "-"): name for name in COMMANDS if name.split()[0] in pages}
    assert examples.keys() <= commands.keys() and {name.split("-")[0] for name in examples} == pages
    assert {name for name in commands if name.startswith(("train-", "neurons-"))} - examples.keys() == {"neurons-show"}
    for name, example in examples.items():
        assert isinstance(parse(commands[name], ["--config", str(example)]), COMMANDS[commands[name]].config)


def test_positional_and_switched_options():
    config = parse("ingest", ["a/*.tif", "b", "--out", "o", "--labels", "m", "fov=f", "--invert-labels"])
    assert (config.source, config.labels, config.invert_labels) == (("a/*.tif", "b"), ("m", "fov=f"), True)
    assert parse("info", ["c", "--json"]) == commands.InfoConfig(collection="c", json=True)


def test_an_option_given_twice_keeps_both_and_defaults_are_those_of_the_command():
    twice = ["--out", "o", "--labels", "m", "--labels=fov=f", "x.png"]
    assert parse("ingest", ["a", *twice]).labels == ("m", "fov=f", "x.png")
    models = ["--source", "a", "--target", "b", "--out", "o", "--model=A", "--model", "B", "C"]
    assert parse("compare", models).model == ("A", "B", "C")
    assert parse("demo", []) == commands.DemoConfig()
    assert parse("demo", []).options.nst.preset == "cells"
    assert parse("train supervised", ["--collection", "c", "--out", "o"]).run.workers == 1


def test_refusals_say_what_and_exit_with_2(capsys, tmp_path):
    assert main(["segmnt"]) == 2
    assert "no command 'segmnt'" in capsys.readouterr().err
    assert main(["stylize", "--collection", "c", "--out", "o", "--method", "nst"]) == 2
    assert "needs a style image: give --style IMAGE" in capsys.readouterr().err
    assert main(["segment", "--collection", "c", "--model", "m", "--out", "o", "--style", "s.png"]) == 2
    assert "--style s.png has no effect without a method" in capsys.readouterr().err
    missing = str(tmp_path / "missing")
    assert main(["info", missing]) == 2
    assert missing in capsys.readouterr().err


def test_an_unknown_setting_names_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown setting nst\.step; did you mean nst\.steps\?"):
        from_dict(configs.StyleConfig, {"nst": {"step": 3}})


def test_sigterm_ends_a_command_with_its_own_code_and_the_way_to_go_on(monkeypatch, capsys):
    def told(config):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr("raydom.cluster.commands.info", told)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert main(["info", "c"]) == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "told to stop. The same command goes on where it stopped" in capsys.readouterr().err
