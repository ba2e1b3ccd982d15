"""Training of forests for neurons on Ray: what the serial twin gives."""

import numpy as np

from raydom.cluster.neuron_scenarios import compare_scenarios
from raydom.cluster.neuron_training import train_forest
from raydom.commands import NeuronCompareConfig, NeuronTrainConfig, TruthConfig
from raydom.config import ForestConfig, NeuronConfig, RunConfig, SuperpixelConfig


def test_forest_and_scores_are_those_of_one_process(ray_session, tmp_path, make_collection, mosaic):
    made = {f"s{n}": mosaic((70, 100), seed=n) for n in range(3)}

    def write(name, ids, scale=1.0):
        images = {one: (made[one][1] * scale).astype(np.uint8)[None] for one in ids}
        return make_collection(name, images, {one: made[one][0].astype(np.uint16) for one in ids}).uri

    train, dark, test = write("train", ["s0", "s1"]), write("dark", ["s0", "s1"], 0.5), write("test", ["s2"])
    shared = {
        "collection": train, "augment": (dark,), "truth": TruthConfig(zero="boundary"),
        "forest": ForestConfig(trees=8),
    }  # fmt: skip
    cells = {side: NeuronConfig(superpixels=SuperpixelConfig(cell_px=side, halo_px=16)) for side in (64, 128)}
    forests, tables = [], []
    for name, run in (("ray", RunConfig(quiet=True, workers=2)), ("serial", RunConfig(quiet=True, serial=True))):
        out = str(tmp_path / name)
        forests.append(train_forest(NeuronTrainConfig(out=out, neurons=cells[64], run=run, **shared)))
        config = NeuronCompareConfig(out=f"{out}-c", test=(test,), seeds=1, neurons=cells[128], run=run, **shared)
        tables.append([{**row, "seconds": 0} for row in compare_scenarios(config)])
    assert forests[0].content_hash == forests[1].content_hash
    assert tables[0] == tables[1] and len(tables[0]) == 4
