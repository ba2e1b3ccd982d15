"""Every algorithm with two workers: both end with the same weights, and go on from a checkpoint as if never stopped.

Two processes of this file train over gloo, all algorithms one after another.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import torch

STEPS, STOPPED_AT = 3, 2


def algorithms():
    sys.path.insert(0, str(Path(__file__).parent))
    import test_adaptation
    import test_cyclegan
    import test_drit

    from raydom.algorithms.supervised import Supervised

    made = {"supervised": (lambda: Supervised(test_adaptation.unet()), lambda seed: crops(seed, 1).domains[0])}
    for name, make in test_adaptation.MADE.items():
        made[name] = make, lambda seed: crops(seed, 2)
    made["cyclegan"] = test_cyclegan.tiny, lambda seed: crops(seed, 2)
    for name, networks in test_drit.FORMS.items():
        make = lambda networks=networks: test_drit.make(networks)  # noqa: E731
        made[f"drit, {name}"] = make, lambda seed, count=networks.num_domains: crops(seed, count, 64)
    return made


def crops(seed, num_domains, side=32):
    from raydom.algorithms.phases import Batch, DomainBatch

    generator = torch.Generator().manual_seed(seed)
    images = [torch.rand(2, 1, side, side, generator=generator) for _ in range(num_domains)]
    return DomainBatch(tuple(Batch(i, (i[:, 0] > 0.5).long(), torch.ones(len(i), side, side) > 0) for i in images))


def trained(make, batch_of, rank):
    """Hashes of the weights after all steps, and of those of a training that was stopped on the way."""
    from raydom.algorithms.phases import Algorithm
    from raydom.config import TrainConfig
    from raydom.training.loop import Training, train

    config = TrainConfig(steps=STEPS, validate_every=1, learning_rate=1e-3)

    def run(checkpoint=None):
        algorithm: Algorithm = make()
        saved = []
        train(
            Training(algorithm, lambda step: batch_of(10 * step + rank)), config, STEPS, device=torch.device("cpu"),
            checkpoint=checkpoint, save=lambda report, state: saved.append(state),
        )  # fmt: skip
        weights = [value for module in algorithm.modules.values() for value in module.state_dict().values()]
        return hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights)).hexdigest(), saved

    whole, saved = run()
    box = [saved[STOPPED_AT - 1]]  # the checkpoint is written by rank 0 and read by all
    torch.distributed.broadcast_object_list(box, src=0)
    return whole, run(box[0])[0]


def main(folder: str, rank: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    told = {name: trained(make, batch_of, rank) for name, (make, batch_of) in algorithms().items()}
    (Path(folder) / f"rank{rank}.json").write_text(json.dumps(told))


def test_every_algorithm_trains_with_two_workers_and_resumes_to_the_last_bit(tmp_path):
    workers = [subprocess.Popen([sys.executable, __file__, str(tmp_path), str(rank)]) for rank in (0, 1)]
    assert [worker.wait(timeout=300) for worker in workers] == [0, 0]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert len(first) == 12
    for name, (whole, resumed) in first.items():
        assert whole == resumed, name
        assert second[name] == [whole, resumed], name


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
