import math
from dataclasses import replace

import pytest
import torch

from raydom.algorithms.drit import (
    Drit,
    mode_seeking_loss,
    paired,
    real_or_made_loss,
    standard_normal_divergence,
)
from raydom.algorithms.phases import Batch, DomainBatch
from raydom.config import DisentangledConfig, DritLossConfig, TrainConfig
from raydom.training.loop import Training, finished, train

CROP_PX = 64
FORMS = {
    "shared": DisentangledConfig(num_domains=3, base_channels=2, attribute_size=3),
    "separate": DisentangledConfig(num_domains=2, base_channels=2, attribute_size=3, separate=True),
}
form = pytest.mark.parametrize("networks", FORMS.values(), ids=FORMS)


def batch_at(step: int, num_domains: int = 3, size: int = 2) -> DomainBatch:
    generator = torch.Generator().manual_seed(step)
    nothing = torch.zeros(size, CROP_PX, CROP_PX, dtype=torch.int64)
    return DomainBatch(
        tuple(
            Batch(torch.rand(size, 1, CROP_PX, CROP_PX, generator=generator), nothing, nothing == 0)
            for _ in range(num_domains)
        )
    )


def make(networks: DisentangledConfig, **weights: float) -> Drit:
    return Drit(networks, DritLossConfig(**weights), CROP_PX)


def run(networks: DisentangledConfig, steps: int = 3, checkpoint: bytes | None = None) -> list[bytes]:
    config = TrainConfig(steps=steps, validate_every=1, learning_rate=1e-3)
    saved: list[bytes] = []
    training = Training(make(networks), lambda step: batch_at(step, networks.num_domains))
    train(
        training, config, steps, device=torch.device("cpu"), checkpoint=checkpoint,
        save=lambda report, state: saved.append(state),
    )  # fmt: skip
    return saved


def test_undecided_discriminators_cost_ln_2_a_scale() -> None:
    maps = (torch.zeros(2, 1, 4, 4), torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 1, 1))
    for real in (True, False):
        torch.testing.assert_close(real_or_made_loss(maps, real=real), torch.tensor(3 * math.log(2)))


def test_a_standard_normal_attribute_costs_nothing_and_a_mean_of_one_half_a_nat_a_number() -> None:
    zero = torch.zeros(4, 8)
    assert standard_normal_divergence(zero, zero) == 0
    assert standard_normal_divergence(zero + 1, zero) == 4


def test_images_twice_as_far_apart_halve_the_mode_seeking_loss() -> None:
    image, attribute = torch.rand(2, 1, 3, 3), torch.rand(2, 4)
    near, far = (mode_seeking_loss(image, image + apart, attribute, attribute + 1) for apart in (0.5, 1.0))
    torch.testing.assert_close(near / far, torch.tensor(2.0), rtol=1e-4, atol=0)


@form
def test_a_classifier_of_contents_that_is_undecided_costs_ln_2_an_image(networks: DisentangledConfig) -> None:
    drit = make(networks)
    for parameter in drit.modules["content_discriminator"].parameters():
        torch.nn.init.zeros_(parameter)
    images_of_pair = 2 if networks.separate else 1
    expected = torch.tensor(images_of_pair * math.log(2))
    batch = batch_at(0, networks.num_domains)
    torch.testing.assert_close(drit.tell_contents(batch)["domain"], expected)
    torch.testing.assert_close(drit.translate(batch)["content"], expected)


@form
def test_equal_images_cost_no_reconstruction(networks: DisentangledConfig) -> None:
    drit, batch = make(networks), batch_at(0, networks.num_domains)
    drit._generator.forward = lambda content, attribute, domains: torch.zeros(4, 1, CROP_PX, CROP_PX)
    grey = [Batch(torch.full_like(b.images, 0.5), b.labels, b.valid) for b in batch.domains]
    losses = drit.translate(DomainBatch(tuple(grey)))
    noise = 10 * drit._images_of_pair * 0.5 / 255  # half a grey level on average
    assert losses["self_reconstruction"] == losses["cross_cycle"] == pytest.approx(noise, rel=0.05)


@form
def test_images_without_contrast_have_gradients_like_others(networks: DisentangledConfig) -> None:
    drit, norms = make(networks), {}
    for name, level in {"random": None, "black": 0.0, "below black": -0.1, "above white": 1.1}.items():
        batch = batch_at(0, networks.num_domains)
        if level is not None:
            batch = DomainBatch(tuple(replace(b, images=0 * b.images + level) for b in batch.domains))
        drit.modules["content_encoder"].zero_grad()
        torch.stack(list(drit.translate(batch).values())).sum().backward()
        norms[name] = float(
            torch.nn.utils.get_total_norm([p.grad for p in drit.modules["content_encoder"].parameters()])
        )
    assert max(norms.values()) < 100 * norms["random"]


def test_pairs_are_of_two_domains_and_all_are_drawn() -> None:
    labels = torch.zeros(2, 1, 1, dtype=torch.int64)
    marked = [Batch(torch.full((2, 1, 1, 1), (1 + domain) / 4), labels, labels == 0) for domain in range(3)]
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        images, domains = paired(DomainBatch(tuple(marked)))
        torch.testing.assert_close(images[:, 0, 0, 0], 2 * (1 + domains) / 4 - 1, atol=1.01 / 255, rtol=0)
        assert (domains[:2] != domains[2:]).all()
        seen |= {tuple(pair) for pair in zip(*domains.view(2, 2).tolist(), strict=True)}
    assert len(seen) == 6


@form
def test_each_phase_changes_only_what_it_trains(networks: DisentangledConfig) -> None:
    drit, batch = make(networks), batch_at(0, networks.num_domains)
    phases = {phase.name: phase for step in range(3) for phase in drit.phases(step, 3)}
    assert {name for phase in phases.values() for name in phase.trains} == set(drit.modules)
    for phase in phases.values():
        for name, module in drit.modules.items():
            module.requires_grad_(name in phase.trains).zero_grad(set_to_none=True)
        losses = phase.losses(batch)
        assert all(loss.isfinite() for loss in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        for name, module in drit.modules.items():
            moved = any(p.grad is not None and bool(p.grad.any()) for p in module.parameters())
            assert moved == (name in phase.trains), (phase.name, name)


@form
def test_the_content_discriminator_learns_alone_in_two_of_three_steps(networks: DisentangledConfig) -> None:
    names = [[phase.name for phase in make(networks).phases(step, 9)] for step in range(6)]
    assert names[0] == names[1] == names[3] == names[4] == ["content"]
    assert names[2] == names[5] == [n for n in names[2] if n != "content" or networks.separate]
    without = make(networks, content_adversarial=0.0)
    assert [len(without.phases(step, 9)) for step in range(3)] == [3, 3, 3]
    assert "content_discriminator" not in without.modules


@form
def test_the_same_seed_gives_the_same_numbers_also_after_a_restart(networks: DisentangledConfig) -> None:
    first, again = run(networks), run(networks)
    resumed = run(networks, checkpoint=first[1])
    weights = [finished(saved[-1]).weights for saved in (first, again, resumed)]
    assert all((weights[0][name] == other[name]).all() for other in weights[1:] for name in weights[0])
    assert weights[0]["attribute_encoder.observed"].sum() == pytest.approx(4, rel=0.01)  # a step, two pairs
