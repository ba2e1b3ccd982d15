"""raydom plan: a pilot that leaves nothing behind, and what is refused."""

import json

import numpy as np
import pytest

from raydom.cli import main, parse
from raydom.cluster.pilot import first_of_each, pilot_workers, spread
from raydom.cluster.plan import read_prices, workers_on
from raydom.config import NodeType, RunConfig
from raydom.errors import ConfigError
from raydom.storage.receipts import Receipt

PRICES = """
head: {name: head, usd_per_hour: 1.0, cpus: 2, memory_gib: 8}
nodes:
  - {name: cpu, usd_per_hour: 2.0, spot_usd_per_hour: 0.5, cpus: 8, memory_gib: 32, boot_s: 3600}
  - {name: gpu, usd_per_hour: 3.0, cpus: 4, gpus: 1, memory_gib: 16}
spot_extra: 0
"""


@pytest.fixture
def job(tmp_path, make_collection):
    rng = np.random.default_rng(0)
    images = {"large": rng.integers(0, 255, (1, 150, 100), np.uint8), "small": np.full((1, 31, 20), 9, np.uint8)}
    make_collection("in", images)
    told = f"--collection {tmp_path}/in --out {tmp_path}/out --model threshold:200 --instances.components --serial"
    return ["segment", *told.split(), "--block-size", "32", "--instances.halo-px", "8"]


def test_a_pilot_prices_every_stage_and_leaves_nothing_behind(job, tmp_path, capsys):
    (tmp_path / "prices.yaml").write_text(PRICES)
    options = ["--pilot", "3", "--json", "--prices", f"{tmp_path}/prices.yaml", "--deadline", "2", "--sizes", "1", "4"]
    assert main(["plan", *options, *job]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 2 and told["blocks"] == 5 * 4 + 1
    assert told["tasks"] == {"block": 21, "view": 20, "pair": 20, "number": 1, "label": 20, "finish": 1}
    assert set(told["pilot"]["stages"]) == set(told["tasks"])
    assert all(stage["seconds_a_task"] > 0 for stage in told["pilot"]["stages"].values())
    assert told["stored_gib_to_write"] > 0
    assert [(row["machine"], row["number"], row["workers"]) for row in told["offers"]] == [
        ("cpu", 1, 8),
        ("cpu", 4, 32),
    ]
    for row in told["offers"]:  # it takes an hour to boot and little else
        assert row["hours"] == pytest.approx(1, abs=0.1)
        assert row["usd"] == pytest.approx(row["hours"] * (2 * row["number"] + 1))
        assert row["usd_spot"] == pytest.approx(row["hours"] * (0.5 * row["number"] + 1))
    assert told["cheapest"]["number"] == 1
    assert any("gpu: the pilot ran on CPUs" in note for note in told["notes"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "prices.yaml"]


def test_without_a_pilot_sizes_are_told_and_no_times(job, tmp_path, capsys):
    assert main(["plan", *job, "--pilot", "0"]) == 0
    told = capsys.readouterr().out
    assert "No times" in told and "hours" not in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


def test_the_options_of_a_plan_and_of_its_job_may_stand_in_any_order(job):
    before = parse("plan", ["--sizes", "2", "3", "--pilot=1", *job])
    assert before == parse("plan", [*job, "--pilot", "1", "--sizes", "2", "3"])
    assert before.sizes == (2, 3) and list(before.job) == job


def test_what_cannot_be_planned_says_why(job, tmp_path, capsys):
    assert main(["plan", "train", "dann", "--steps", "3"]) == 2
    assert "its time is its steps x the seconds a step" in capsys.readouterr().err
    assert main(["plan", "evaluate", "--prediction", "a", "--truth", "b"]) == 2
    assert "These can be planned: stylize, segment, neurons segment" in capsys.readouterr().err
    two = ["--collection", "c", "--forest", "f", "--out", "o", "--model", "m"]
    assert main(["plan", "neurons", "segment", *two]) == 2
    assert "two jobs" in capsys.readouterr().err
    assert main(["plan", *job, "--pilot", "0", "--deadline", "1"]) == 2
    assert "measures none" in capsys.readouterr().err
    (tmp_path / "prices.yaml").write_text("nodes: [{name: a, usd_per_hour: 0, cpus: 1, memory_gib: 1}]")
    with pytest.raises(ConfigError, match="a: usd_per_hour must be a number > 0; got 0"):
        read_prices(str(tmp_path / "prices.yaml"))
    with pytest.raises(ConfigError, match="no such file"):
        read_prices("nowhere.yaml")


def test_the_example_prices_can_be_read(pytestconfig):
    prices = read_prices(str(pytestconfig.rootpath / "jobs" / "prices" / "aws.yaml"))
    assert prices.head is not None and prices.date and any(node.gpus for node in prices.nodes)


def test_a_machine_has_room_for_so_many_workers():
    node = NodeType(name="n", usd_per_hour=1, cpus=16, gpus=2, memory_gib=20)
    gpus = RunConfig(gpus_per_worker=0.5, cpus_per_worker=2)
    assert workers_on(node, gpus, 1.0)[0] == 4  # halves of two GPUs
    assert workers_on(node, gpus, 8.0)[0] == 2  # 80 % of 20 GiB
    assert workers_on(node, gpus, 30.0) == (0, "a worker needs 30 GiB, and it has 20")
    assert workers_on(node, RunConfig(), 1.0)[0] == 0


def test_what_is_tried_is_spread_over_all():
    assert spread(range(10), 2) == [2, 7]
    assert spread(range(3), 5) == [0, 1, 2]
    assert spread(range(9), 3) == [1, 4, 7]


def test_the_first_block_of_each_worker_is_known():
    def receipt(block_id, worker, finished_at):
        return Receipt(
            block_id=block_id, image_id="a", kind="block", fingerprint="f", status="ok", attempts=1, worker=worker,
            finished_at=finished_at,
        )  # fmt: skip

    told = [receipt("c", "x", 3.0), receipt("a", "x", 1.0), receipt("d", "y", 4.0), receipt("b", "y", 2.0)]
    assert [one.block_id for one in first_of_each(told)] == ["a", "b"]
    assert pilot_workers(RunConfig(workers=8), 4) == 2 and pilot_workers(RunConfig(), 4) == 1
    assert pilot_workers(RunConfig(workers=8, serial=True), 100) == 1


@pytest.mark.parametrize("planes", [0, 3])
def test_neurons_are_planned_with_all_their_stages(tmp_path, make_collection, make_forest, mosaic, capsys, planes):
    _, pixels = mosaic((150, 131), planes=planes)
    make_collection("c", {"a": pixels[None]})
    told = ["--collection", f"{tmp_path}/c", "--out", f"{tmp_path}/o", "--block-size", "32", "--serial"]
    forest = make_forest(planes=planes)
    before = sorted(tmp_path.iterdir())
    assert main(["plan", "neurons", "segment", *told, "--forest", forest, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert set(told["pilot"]["stages"]) == {"block", "pair", "number", "graph", "solve", "label", "finish"}
    assert told["blocks"] == told["tasks"]["graph"] == 5 * 5
    assert sorted(tmp_path.iterdir()) == before


def test_packed_images_are_planned_as_others(tmp_path, make_collection, capsys):
    rng = np.random.default_rng(0)
    images = {f"i{n}": rng.integers(0, 255, (3, 40, 50), np.uint8) for n in range(7)}
    make_collection("in", images)
    assert main(["pack", f"{tmp_path}/in", "--out", f"{tmp_path}/packed"]) == 0
    style = f"{tmp_path}/in/images/i0.zarr"
    told = ["stylize", "--collection", f"{tmp_path}/packed", "--out", f"{tmp_path}/o", "--style", style, "--serial"]
    capsys.readouterr()
    assert main(["plan", *told, "--method", "meanstd", "--json", "--pilot", "2", "--sizes", "7", "8"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["tasks"] == {"block": 7} and told["pilot"]["stages"]["block"]["tried"] == 2
    hours = [row["hours"] for row in told["offers"]]
    assert hours[0] == hours[1]  # there are no more than seven blocks to do
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "packed"]
