import math

import pytest
import torch
from torch import nn

from raydom.algorithms.adaptation import class_probabilities, domain_cost, self_information
from raydom.algorithms.classifier_discrepancy import ClassifierDiscrepancy, distance
from raydom.algorithms.dann import Dann
from raydom.algorithms.entropy import EntropyMinimisation
from raydom.algorithms.mean_teacher import MeanTeacher
from raydom.algorithms.output_adversary import OutputAdversary
from raydom.algorithms.phases import Batch, DomainBatch
from raydom.algorithms.reversal import reversal_strength, reversed_gradient
from raydom.algorithms.supervised import LabelLosses
from raydom.config import NetworkConfig, TrainConfig
from raydom.errors import ConfigError
from raydom.networks.build import build_network
from raydom.networks.domain_heads import MapCritic
from raydom.training.loop import Loop

LABELS = LabelLosses()
CONFIG = TrainConfig(steps=4, learning_rate=1e-2, crop_px=32)


def unet(seed=0, name="unet"):
    return build_network(NetworkConfig(name=name, base_channels=4, depth=2), seed)


MADE = {
    "dann": lambda: Dann(unet(), LABELS, ("encoder0", "bottleneck", "decoder1")),
    "reversal": lambda: OutputAdversary(unet(), LABELS, MapCritic(2, 4, 3)),
    "alternating": lambda: OutputAdversary(unet(), LABELS, MapCritic(2, 4, 3), updates="alternating"),
    "adversarial entropy": lambda: OutputAdversary(
        unet(), LABELS, MapCritic(2, 4, 3), updates="alternating", maps="self-information"
    ),
    "entropy": lambda: EntropyMinimisation(unet(), LABELS, weight=1.0),
    "discrepancy": lambda: ClassifierDiscrepancy(unet(), unet(1), LABELS, trunk_updates=2),
    "teacher": lambda: MeanTeacher(unet(), LABELS, confidence=0.5),
    "teacher of a network with several outputs": lambda: MeanTeacher(unet(name="u2netp"), LABELS, confidence=0.5),
}


def batch(labelled=False) -> DomainBatch:
    generator = torch.Generator().manual_seed(0)

    def crops(shift):
        images = torch.rand(2, 1, 32, 32, generator=generator) + shift
        return Batch(images, (images[:, 0] > 0.5 + shift).long(), torch.ones(2, 32, 32, dtype=torch.bool))

    return DomainBatch((crops(0.0), crops(0.3)), crops(0.3) if labelled else None)


def test_the_gradient_comes_back_reversed_and_scaled():
    features = torch.ones(3, requires_grad=True)
    told = reversed_gradient(features, 0.25)
    assert torch.equal(told, features)
    (told * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert features.grad.tolist() == [-0.25, -0.5, -0.75]


def test_the_strength_warms_up_as_published():
    assert reversal_strength("warm-up", 0, 100) == 0
    assert reversal_strength("warm-up", 50, 100) == pytest.approx(0.9866, abs=1e-4)
    assert reversal_strength("warm-up", 100, 100) == pytest.approx(0.9999, abs=1e-4)
    assert reversal_strength("constant", 0, 100) == 1


def test_an_undecided_classifier_costs_ln_2_and_the_source_is_0():
    zeros = torch.zeros(4)
    assert float(domain_cost(zeros, zeros)) == pytest.approx(math.log(2))
    assert float(domain_cost(zeros - 20, zeros + 20)) < 1e-6
    assert float(domain_cost(zeros + 20, zeros - 20)) > 19


def test_entropy_is_1_where_all_classes_are_as_likely_and_0_where_one_is_certain():
    for channels in (1, 3):
        entropy = self_information(class_probabilities(torch.zeros(1, channels, 2, 2))).sum(dim=1)
        torch.testing.assert_close(entropy, torch.ones(1, 2, 2))
    certain = self_information(class_probabilities(torch.full((1, 1, 2, 2), 200.0)))
    assert float(certain.sum()) == 0.0


def test_equal_heads_do_not_disagree():
    logits = torch.randn(2, 1, 32, 32)
    assert float(distance((logits, logits.clone()), batch())) == 0.0
    assert float(distance((logits + 100, logits - 100), batch())) == pytest.approx(1.0, abs=1e-6)


def test_the_reversal_makes_features_less_telling_while_the_head_learns_to_tell():
    """Down its own gradient the head gets better; the network, which gets it reversed, makes it worse."""
    algorithm = Dann(unet(), LABELS, ("bottleneck",), weight=1.0, schedule="constant")
    cost = algorithm.losses(batch(), 1.0)["domain_bottleneck"]
    network, head = algorithm.modules["network"], algorithm.modules["domain_bottleneck"]
    mine, theirs = list(network.encoder.parameters()), list(head.parameters())
    gradients = torch.autograd.grad(cost, mine + theirs)
    for group, rises in ((mine, True), (theirs, False)):
        chosen = gradients[: len(mine)] if rises else gradients[len(mine) :]
        with torch.no_grad():
            for parameter, gradient in zip(group, chosen, strict=True):
                parameter -= 1e-4 * gradient
            after = algorithm.losses(batch(), 1.0)["domain_bottleneck"]
            for parameter, gradient in zip(group, chosen, strict=True):
                parameter += 1e-4 * gradient
        assert bool(after > cost) == rises


def test_in_turns_the_network_makes_the_target_look_like_the_source_and_the_critic_tells_them_apart():
    critic = MapCritic(2, 4, 3)
    last = critic.layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, -20.0)  # takes all maps for those of the source
    algorithm = OutputAdversary(unet(), LABELS, critic, weight=0.5, updates="alternating")
    segment, criticise = algorithm.phases(0, 4)
    assert segment.losses(batch())["fooled"].item() == pytest.approx(0, abs=1e-6)
    assert criticise.losses(batch())["domain"].item() == pytest.approx(10)  # half of the 20 nats of the target


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("labelled", [False, True])
def test_a_phase_changes_only_what_it_trains_and_all_is_finite(name, labelled):
    algorithm = MADE[name]()
    loop = Loop(algorithm, CONFIG, CONFIG.steps, torch.device("cpu"))
    phases = algorithm.phases(2, 4)
    assert {one for phase in phases for one in phase.trains} == set(algorithm.modules) - {"teacher"}
    for phase in phases:
        before = {name: [p.clone() for p in module.parameters()] for name, module in algorithm.modules.items()}
        losses = loop._update(phase, batch(labelled))
        assert all(math.isfinite(value) for value in losses.values())
        for module_name, module in algorithm.modules.items():
            same = all(torch.equal(a, b) for a, b in zip(before[module_name], module.parameters(), strict=True))
            assert same == (module_name not in phase.trains), (phase.name, module_name)


@pytest.mark.parametrize("name", MADE)
def test_the_same_seed_gives_the_same_numbers_and_a_checkpoint_goes_on_where_it_was(name):
    def trained(steps, state=None):
        loop = Loop(MADE[name](), CONFIG, CONFIG.steps, torch.device("cpu"))
        if state is not None:
            loop.load_state(state)
        for _ in range(steps):
            loop.record(loop.advance(batch()), None, at_checkpoint=True)
        return loop

    whole = trained(3)
    resumed = trained(1, trained(2).state())
    for a, b in zip(
        whole.algorithm.exported().state_dict().values(),
        resumed.algorithm.exported().state_dict().values(),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_pretraining_learns_the_labels_alone():
    for name, make in MADE.items():
        algorithm = make()
        algorithm.pretrain_steps = 2
        (phase,) = algorithm.phases(1, 4)
        assert set(phase.losses(batch())) == {"dice", "bce"}, name
        assert algorithm.phases(2, 4) != algorithm.phases(1, 4)


def test_a_teacher_that_believes_nothing_teaches_nothing_and_follows_the_network():
    algorithm = MeanTeacher(unet(), LABELS, confidence=0.99999, decay=0.9)
    assert not algorithm.losses(batch())["taught"]
    with torch.no_grad():
        for parameter in algorithm.modules["network"].parameters():
            parameter.fill_(1.0)
    before = next(algorithm.exported().parameters()).clone()
    algorithm.after_step()
    torch.testing.assert_close(next(algorithm.exported().parameters()), before * 0.1 + 0.9)  # (1 + 0) / (10 + 0)


def test_levels_that_there_are_not_are_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"no level encoder5; a unet of depth 2 has encoder0, encoder1, bottleneck, "):
        Dann(unet(), LABELS, ("encoder5",))
    with pytest.raises(ConfigError, match="twice"):
        Dann(unet(), LABELS, ("bottleneck", "bottleneck"))
    with pytest.raises(ConfigError, match="--network unet"):
        Dann(unet(name="u2netp"), LABELS)


@pytest.mark.parametrize("level", unet().levels)
def test_every_level_can_be_judged(level):
    algorithm = Dann(unet(), LABELS, (level,))
    losses = algorithm.losses(batch(), 1.0)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in algorithm.heads[level].parameters())
    assert losses[f"domain_{level}"].isfinite()
