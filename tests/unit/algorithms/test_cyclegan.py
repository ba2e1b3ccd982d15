import pytest
import torch
from torch import nn

from raydom.algorithms import cyclegan
from raydom.algorithms.cyclegan import CycleGan, as_generators_see, as_images, least_squares
from raydom.algorithms.image_pool import ImagePool
from raydom.algorithms.phases import Batch, DomainBatch
from raydom.config import GeneratorConfig, TrainConfig
from raydom.networks.discriminators import PatchDiscriminator
from raydom.networks.generators import Generator
from raydom.training.loop import Training, finished, train

CONFIG = TrainConfig(steps=4, validate_every=2, learning_rate=2e-4, weight_decay=0.0, clip_norm=0.0, seed=1)


def crops(seed: int, low: float = 0.0, high: float = 1.0, side: int = 20) -> Batch:
    images = low + (high - low) * torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(seed))
    return Batch(images, torch.zeros(2, side, side, dtype=torch.int64), torch.ones(2, side, side, dtype=torch.bool))


def batch_at(step: int) -> DomainBatch:
    return DomainBatch((crops(step, 0.0, 0.4), crops(step + 100, 0.6, 1.0)))


def tiny(**options) -> CycleGan:
    shape = GeneratorConfig(channels=1, base_channels=2, blocks=1)
    critics = (PatchDiscriminator(1, 2, layers=1, seed=seed) for seed in (2, 3))
    return CycleGan(Generator(shape, 0), Generator(shape, 1), *critics, **{"pool_size": 3} | options)


def run(algorithm=None, **options):
    algorithm, saved = algorithm or tiny(), []
    train(
        Training(algorithm, batch_at), CONFIG, CONFIG.steps, device=torch.device("cpu"),
        save=lambda report, state: saved.append(state), **options,
    )  # fmt: skip
    return algorithm, saved


def weights(algorithm) -> dict[str, torch.Tensor]:
    return {f"{n}.{k}": v.clone() for n, module in algorithm.modules.items() for k, v in module.state_dict().items()}


class Constant(nn.Module):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x):
        return self.value.expand(len(x), 1, 2, 2)


def test_the_identity_has_no_cycle_and_no_identity_loss():
    batch = batch_at(0)
    losses = CycleGan(nn.Identity(), nn.Identity(), Constant(0.5), Constant(0.5)).generation(batch)
    assert {name: float(value.detach()) for name, value in losses.items()} == {
        "fool_source": 0.25, "fool_target": 0.25, "cycle_source": 0, "cycle_target": 0,
        "identity_source": 0, "identity_target": 0,
    }  # fmt: skip


def test_losses_of_the_inverting_generator_by_hand(monkeypatch):
    monkeypatch.setattr(cyclegan, "as_generators_learn", as_generators_see)  # without the noise

    class Inverting(nn.Module):
        def forward(self, x):
            return -x

    # There and back is the identity; an image of the wanted domain is moved by twice its distance from 0.
    batch = DomainBatch((crops(0, 0.75, 0.75), crops(1, 1.0, 1.0)))  # 0.5 and 1 as the generators see them
    losses = CycleGan(Inverting(), Inverting(), Constant(1.0), Constant(0.0)).generation(batch)
    assert {name: round(float(value.detach()), 5) for name, value in losses.items()} == {
        "fool_source": 0, "fool_target": 1, "cycle_source": 0, "cycle_target": 0,
        "identity_source": 10 * 0.5 * 1, "identity_target": 10 * 0.5 * 2,
    }  # fmt: skip


def test_an_undecided_critic_costs_a_quarter_whatever_it_is_shown():
    algorithm = CycleGan(nn.Identity(), nn.Identity(), Constant(0.5), Constant(1.0))
    algorithm.generation(batch_at(0))
    losses = algorithm.criticism(batch_at(0))
    assert {name: float(value.detach()) for name, value in losses.items()} == {"source": 0.25, "target": 0.5}
    assert float(least_squares(torch.tensor([1.0, 0.0]), 1.0)) == 0.5


def test_generators_learn_from_the_critic_of_the_domain_that_they_make():
    algorithm = CycleGan(nn.Identity(), nn.Identity(), Constant(1.0), Constant(0.0), identity_weight=0.0)
    losses = algorithm.generation(batch_at(0))
    assert set(losses) == {"fool_source", "fool_target", "cycle_source", "cycle_target"}
    assert [losses[name].item() for name in ("fool_source", "fool_target")] == [0, 1]


@pytest.mark.parametrize(("phase", "trained"), [(0, "source_to_target target_to_source"), (1, "_critic")])
def test_each_phase_changes_only_what_it_trains(phase, trained):
    class One(CycleGan):
        def phases(self, step, num_steps):
            if phase == 1:
                self.generation(batch_at(step))
            return [super().phases(step, num_steps)[phase]]

    algorithm = tiny()
    algorithm.__class__ = One
    before = weights(algorithm)
    after = weights(run(algorithm)[0])
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert moved == ({"source_critic", "target_critic"} if phase else set(trained.split()))


def test_same_seed_same_numbers_and_resuming_gives_the_same_bits_pools_included():
    whole, saved = run()
    for again in (run()[0], run(checkpoint=saved[0])[0]):
        one, other = weights(whole), weights(again)
        assert all(torch.equal(one[name], other[name]) for name in one)
        for domain in ("source", "target"):
            pools = [algorithm.state()[domain]["images"] for algorithm in (whole, again)]
            assert len(pools[0]) == 3 and all(torch.equal(a, b) for a, b in zip(*pools, strict=True))


def test_a_finished_run_holds_both_generators_and_nothing_else():
    algorithm, saved = run()
    stored = finished(saved[-1]).weights
    assert {name.split(".")[0] for name in stored} == {"source_to_target", "target_to_source"}
    assert all((stored[name] == value.numpy()).all() for name, value in weights(algorithm).items() if name in stored)


def test_images_survive_the_way_to_the_generators_and_back():
    images = torch.tensor([0.0, 0.25, 1.0, 1.5])
    assert as_images(as_generators_see(images)).tolist() == [0, 0.25, 1, 1]


def test_about_half_of_what_a_full_pool_returns_is_old():
    torch.manual_seed(0)
    pool = ImagePool(50)
    returned = [int(pool.exchanged(torch.full((1, 1, 1, 1), float(n)))) for n in range(2050)]
    assert returned[:50] == list(range(50))
    old = [n for n, image in enumerate(returned) if n >= 50 and image != n]
    assert 900 < len(old) < 1100 and all(returned[n] < n for n in old)
    assert len(set(returned[50:])) > 1900  # an image leaves once; only the first 50 come twice


def test_an_empty_pool_returns_what_it_is_given():
    images = torch.rand(3, 1, 2, 2)
    assert torch.equal(ImagePool(0).exchanged(images), images)
