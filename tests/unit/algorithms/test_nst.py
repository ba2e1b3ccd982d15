"""Neural style transfer on small random networks: the losses by hand, the optimisation by its invariants."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raydom.algorithms.nst import (
    HISTORY,
    StyleTargets,
    Survey,
    coarse_start,
    content_loss,
    content_targets,
    gram_matrix,
    halved,
    losses,
    replay,
    style_loss,
    style_targets,
    survey,
    transfer,
)
from raydom.config import NST_PRESETS, NstSettings
from raydom.errors import ConfigError, DataError
from raydom.networks.features import FeatureNetwork


def small_network(dtype: torch.dtype = torch.float32) -> FeatureNetwork:
    """Two smooth convolutions with seeded weights."""
    generator = torch.Generator().manual_seed(1)
    stages = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Softplus(), nn.Conv2d(4, 5, 3, stride=2), nn.Softplus())
    for parameter in stages.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return FeatureNetwork(
        "small",
        stages.to(dtype),
        {"fine": 1, "coarse": 3},
        lambda x: x,
        style_layers=("fine", "coarse"),
        content_layers=("coarse",),
        source="a test",
    )


def images(n: int, seed: int = 0, shape: tuple[int, int] = (11, 8), channels: int = 3) -> Tensor:
    return torch.rand(n, channels, *shape, generator=torch.Generator().manual_seed(seed))


FORMS = ("sums", "notebook", "means")
CONFIG = NstSettings(steps=12, learning_rate=0.02, style_ratio=1.0)


def targets_of(style: Tensor, config: NstSettings = CONFIG) -> StyleTargets:
    return style_targets(style, small_network(style.dtype), config)


def total(image: Tensor, content: Tensor, targets: StyleTargets) -> Tensor:
    return losses(image, content_targets(content, targets), targets)


def test_gram_of_a_hand_made_feature() -> None:
    features = torch.tensor([[[[1.0, 2.0], [0.0, 1.0]], [[3.0, 0.0], [1.0, 1.0]]]])
    assert torch.equal(gram_matrix(features), torch.tensor([[[6.0, 4.0], [4.0, 11.0]]]) / 4)


def test_the_losses_are_the_sums_of_the_paper() -> None:
    f, p = torch.randn(2, 3, 4, 5, dtype=torch.float64), torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(content_loss(f, p)[1], 0.5 * ((f[1] - p[1]) ** 2).sum())
    flat_f, flat_p = f[0].reshape(3, 20), p[0].reshape(3, 20)  # the paper's N = 3 and M = 20
    energy = ((flat_f @ flat_f.T - flat_p @ flat_p.T) ** 2).sum() / (4 * 3**2 * 20**2)
    both = style_loss({"a": gram_matrix(f), "b": gram_matrix(f)}, {"a": gram_matrix(p), "b": gram_matrix(f)})
    torch.testing.assert_close(both[0], energy / 2)


def test_each_published_form_of_the_loss_by_hand() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[0.0, 3.0]]]])  # C = 2 channels, M = 2 positions
    target = torch.tensor([[[[1.0, 0.0]], [[1.0, 1.0]]]])
    # F F^T = [[5, 6], [6, 9]] and P P^T = [[1, 1], [1, 2]]: squares 16 + 25 + 25 + 49 = 115, over M^2 = 4.
    grams, targets = ({layer: gram_matrix(one) for layer in "ab"} for one in (features, target))
    layer_sum = 115 / 4
    by_form = {
        "sums": (0.5 * (4 + 1 + 4), layer_sum / (4 * 2**2)),  # the mean of two equal layers
        "notebook": ((4 + 1 + 4) / 4, 2 * layer_sum / 2**2 / 2**2),
        "means": ((4 + 1 + 4) / (2 * 2), 2 * 115 / (2**2 * 2**2)),
    }
    for form, (content, style) in by_form.items():
        assert float(content_loss(features, target, form)) == pytest.approx(content)
        assert float(style_loss(grams, targets, form)) == pytest.approx(style)


def test_the_notebooks_weights_are_those_of_its_preset() -> None:
    content, style, image = (images(1, seed) for seed in range(3))
    preset = replace(NST_PRESETS["gatys-notebook"], style_layers=("fine", "coarse"), content_layers=("coarse",))
    targets = targets_of(style, preset)
    mse = torch.nn.functional.mse_loss
    expected = mse(targets.network(image, ["coarse"])["coarse"], targets.network(content, ["coarse"])["coarse"])
    for layer, gram in targets.grams.items():
        features = targets.network(image, [layer])[layer].flatten(2)[0]
        expected += 1e3 / len(features) ** 2 * mse(features @ features.T / features.shape[1], gram[0])
    torch.testing.assert_close(total(image, content, targets), expected[None])


@pytest.mark.parametrize("form", FORMS)
def test_an_image_costs_nothing_against_itself(form: str) -> None:
    image = images(2)
    targets = targets_of(image[:1], replace(CONFIG, loss=form))
    assert float(total(image[:1], image[:1], targets)) == 0.0
    styleless = replace(targets, style_weight=0.0)
    assert torch.equal(total(image, image, styleless), torch.zeros(2))


def test_more_of_the_same_texture_has_the_same_gram_matrix() -> None:
    features = torch.randn(1, 4, 3, 5)
    torch.testing.assert_close(gram_matrix(features.repeat(1, 1, 2, 3)), gram_matrix(features))


def test_the_balance_does_not_depend_on_the_size_of_the_image() -> None:
    content, style = images(1, shape=(33, 27)), images(1, 1)
    targets = replace(targets_of(style), style_weight=0.0, content_layers=("fine",))
    small = total(content, content + 0.1, targets)
    large = total(content.repeat(1, 1, 3, 3), content.repeat(1, 1, 3, 3) + 0.1, targets)
    torch.testing.assert_close(small, large, rtol=0.05, atol=0.0)


def test_at_512_px_the_total_is_alpha_content_plus_beta_style() -> None:
    content, style, image = (images(1, seed, (512, 512)) for seed in range(3))
    targets = targets_of(style, NstSettings(content_weight=3.0, style_weight=7.0))
    features = targets.network(image, ["fine", "coarse"])
    expected = 3.0 * content_loss(features["coarse"], targets.network(content, ["coarse"])["coarse"])
    expected += 7.0 * style_loss({layer: gram_matrix(f) for layer, f in features.items()}, targets.grams)
    torch.testing.assert_close(total(image, content, targets), expected)


@pytest.mark.parametrize("form", ["notebook", "means"])
def test_the_balance_holds_in_the_other_forms_too(form: str) -> None:
    style = images(1, 1)
    targets = targets_of(style, replace(CONFIG, loss=form))
    features = targets.network(style, ["fine", "coarse"])
    zeros = {layer: torch.zeros_like(gram) for layer, gram in targets.grams.items()}
    lost_style = targets.style_weight * style_loss(zeros, targets.grams, form)
    torch.testing.assert_close(lost_style, features["coarse"].square().mean()[None])


def test_style_ratio_1_weighs_losing_all_features_alike() -> None:
    style = images(1, 1)
    targets = targets_of(style)
    features = targets.network(style, ["fine", "coarse"])
    lost_content = content_loss(features["coarse"], torch.zeros_like(features["coarse"])) * 512**2 / (11 * 8)
    zeros = {layer: torch.zeros_like(gram) for layer, gram in targets.grams.items()}
    torch.testing.assert_close(targets.style_weight * style_loss(zeros, targets.grams), lost_content)
    assert targets_of(style, replace(CONFIG, style_ratio=5.0)).style_weight == pytest.approx(5 * targets.style_weight)
    assert targets_of(style, replace(CONFIG, style_weight=42.0)).style_weight == 42.0


@pytest.mark.parametrize(("form", "channels"), [("sums", 1), ("sums", 2), ("sums", 3), ("notebook", 3), ("means", 3)])
def test_the_gradient_is_that_of_finite_differences(form: str, channels: int) -> None:
    content, style, image = (images(1, seed, (7, 5), channels).double() for seed in range(3))
    targets = targets_of(style, replace(CONFIG, loss=form))
    features = content_targets(content, targets)
    assert torch.autograd.gradcheck(lambda x: losses(x, features, targets), (image.requires_grad_(),))


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_the_loss_falls(optimizer: str) -> None:
    content, style = images(1), images(1, 1, (9, 14)) ** 3
    targets = targets_of(style)
    seen: list[float] = []
    config = replace(CONFIG, optimizer=optimizer, steps=40)
    result = transfer(content, content, targets, config, lambda step, loss: seen.append(float(loss)))
    final = float(total(result, content, targets))
    assert len(seen) == 40 and final < seen[0] / 2
    assert result.shape == content.shape


def test_in_bfloat16_the_loss_falls_about_as_far() -> None:
    content, style = images(1), images(1, 1, (9, 14)) ** 3
    targets = targets_of(style)
    rough = targets_of(style, replace(CONFIG, precision="bfloat16"))
    config = replace(CONFIG, steps=40)
    finals = [float(total(transfer(content, content, t, config), content, targets)) for t in (targets, rough)]
    assert finals[0] != finals[1] and finals[1] < 1.1 * finals[0] < 0.5 * float(total(content, content, targets))
    assert transfer(content, content, rough, config).dtype == torch.float32


def test_without_steps_the_start_is_the_result() -> None:
    content, start = images(2), images(2, 5)
    assert torch.equal(transfer(content, start, targets_of(images(1, 1)), replace(CONFIG, steps=0)), start)


def three_images() -> Tensor:
    """An image, a dark one and a black one; in float64, as rounding is all that a batch may change."""
    return torch.stack([images(1)[0], images(1, 3)[0] * 0.1, torch.zeros(3, 11, 8)]).double()


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_images_in_a_batch_do_not_see_each_other(optimizer: str) -> None:
    content = three_images()
    targets = targets_of(images(1, 1, (9, 14)).double())
    config = replace(CONFIG, optimizer=optimizer)
    together = transfer(content, content, targets, config)
    alone = torch.cat([transfer(one, one, targets, config) for one in content.split(1)])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=0)


def test_with_lbfgs_each_image_ends_where_torch_takes_it_alone() -> None:
    content = three_images()
    targets = targets_of(images(1, 1, (9, 14)).double())
    config = replace(CONFIG, optimizer="lbfgs", steps=30)
    result = total(transfer(content, content, targets, config), content, targets)
    for one, loss in zip(content.split(1), result, strict=True):
        image, first = one.clone().requires_grad_(), total(one, one, targets)
        optimizer = torch.optim.LBFGS(
            [image], max_iter=30, history_size=HISTORY, tolerance_grad=0.0, tolerance_change=0.0
        )

        def closure(image=image, one=one, first=first, optimizer=optimizer) -> Tensor:
            optimizer.zero_grad()
            scaled = (total(image, one, targets) / first).sum()
            scaled.backward()
            return scaled

        optimizer.step(closure)
        torch.testing.assert_close(loss, total(image.detach(), one, targets)[0], rtol=1e-4, atol=0.0)


def test_a_coarse_pass_lowers_the_loss_and_leaves_the_finest_detail() -> None:
    content, style = images(1, shape=(34, 30)), images(1, 1, shape=(40, 40)) ** 3
    config = replace(CONFIG, coarse_steps=20, content_weight=0.0)
    start = coarse_start(content, content, targets_of(halved(style), config), config)
    targets = targets_of(style, config)
    assert float(total(start, content, targets)) < 0.7 * float(total(content, content, targets))
    change = (start - content)[..., 2:-2, 2:-2]
    assert float(change.abs().mean()) > 0.05
    steps = [change[..., left::2].diff(dim=3).abs().mean() for left in (0, 1)]  # between pixels two apart
    assert float(change.diff(dim=3).abs().mean()) < 0.7 * float(torch.stack(steps).mean())


def test_channels_that_are_no_colours_are_stylised_each_on_its_own() -> None:
    content, style = images(1, channels=2), images(1, 1, channels=2)
    config = replace(CONFIG, content_weight=1.0, style_weight=1.0)  # one weight for all, as the balance is shared
    both = transfer(content, content, targets_of(style, config), config)
    for channel in range(2):
        one, own_style = content[:, channel : channel + 1], style[:, channel : channel + 1]
        # A batch divides by the first loss of the whole image; Adam does not mind.
        alone = transfer(one, one, targets_of(own_style, config), config)
        torch.testing.assert_close(both[:, channel : channel + 1], alone, atol=2e-3, rtol=0)


def test_an_image_that_is_its_own_style_stays() -> None:
    image = images(1)
    for optimizer in ("adam", "lbfgs"):
        result = transfer(image, image, targets_of(image), replace(CONFIG, optimizer=optimizer))
        assert torch.equal(result, image)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_images_never_become_nan(value: float) -> None:
    flat = torch.full((1, 3, 11, 8), value)
    for content, style in ((flat, images(1)), (images(1), flat), (flat, flat)):
        for optimizer in ("adam", "lbfgs"):
            result = transfer(content, content, targets_of(style), replace(CONFIG, optimizer=optimizer))
            assert bool(torch.isfinite(result).all())


def test_divergence_is_an_error_and_not_a_picture() -> None:
    content = images(1)
    with pytest.raises(DataError, match="diverged to NaN or infinity within 3 steps of adam"):
        transfer(content, content, targets_of(images(1, 1)), replace(CONFIG, steps=3, learning_rate=1e30))


def test_images_smaller_than_the_layers_need_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 3 px"):
        targets_of(images(1, shape=(2, 9)))
    tiny = images(1, shape=(9, 2))
    with pytest.raises(ConfigError, match="too small for layer coarse"):
        transfer(tiny, tiny, targets_of(images(1)), CONFIG)
    with pytest.raises(ConfigError, match="no layer 'relu4_2'; it has fine, coarse"):
        targets_of(images(1), replace(CONFIG, content_layers=("relu4_2",)))


# ---------------------------------------------------------------------------------------- large images, block by block

REFINING = NstSettings(steps=15, refine_steps=15, learning_rate=0.02, style_ratio=3.0)


@pytest.mark.parametrize("loss", FORMS)
@pytest.mark.parametrize("channels", [2, 3])
def test_the_survey_of_a_whole_image_replayed_on_it_is_the_optimisation_itself(loss: str, channels: int) -> None:
    config = replace(REFINING, loss=loss)
    content, start, style = (images(1, seed, (25, 30), channels) for seed in range(3))
    targets = targets_of(style**2, config)
    expected = transfer(content, start, targets, config)
    assert float((expected - start).abs().max()) > 0.1
    # Rounding is all that differs, and Adam enlarges it where a gradient is nearly 0.
    result = replay(content, start, targets, survey(content, start, targets, config), config)
    assert float((result - expected).abs().mean()) < 1e-5


@pytest.mark.parametrize("block_px", [32, 64])
def test_blocks_with_their_halo_come_out_as_in_the_whole_image(block_px: int) -> None:
    content, start, style = (images(1, seed, (128, 128)) for seed in range(3))
    targets = targets_of(style**2, REFINING)
    known = survey(content, start, targets, REFINING)
    expected = replay(content, start, targets, known, REFINING)
    halo, stride = targets.halo_px, targets.stride_px
    assert (halo, stride) == (20, 2)  # 5 px are seen by a feature
    naive, result = torch.empty_like(start), torch.empty_like(start)
    for top in range(0, 128, block_px):
        for left in range(0, 128, block_px):
            core = (..., slice(top, top + block_px), slice(left, left + block_px))
            above, before = min(top, halo), min(left, halo)
            seen = (..., slice(top - above, top + block_px + halo), slice(left - before, left + block_px + halo))
            block = replay(content[seen], start[seen], targets, known, REFINING)
            result[core] = block[..., above : above + block_px, before : before + block_px]
            naive[core] = transfer(content[core], start[core], targets, REFINING)
    assert float((result - expected).abs().mean()) < 1e-5
    assert float((naive - expected).abs().mean()) > 1e-3


def test_windows_are_one_image_to_the_style_loss() -> None:
    content, start, style = (images(n, seed, (24, 24)) for n, seed in ((2, 0), (2, 1), (1, 2)))
    targets = targets_of(style**2, REFINING)
    pooled = survey(content, start, targets, REFINING)
    one = survey(content[:1], start[:1], targets, REFINING)
    twice = survey(content[:1].repeat(2, 1, 1, 1), start[:1].repeat(2, 1, 1, 1), targets, REFINING)
    features = targets.network(start, ("fine", "coarse"))
    for layer, gram in targets.grams.items():
        torch.testing.assert_close(twice.slopes[layer], one.slopes[layer], rtol=1e-3, atol=1e-5)
        residual = gram_matrix(features[layer]).mean(dim=0) - gram[0]
        first = pooled.slopes[layer][0, 0]
        torch.testing.assert_close(first / first.norm(), residual / residual.norm(), rtol=1e-3, atol=1e-5)


def test_what_a_survey_found_can_be_stored() -> None:
    content, start, style = (images(2, seed, (24, 24), channels=2) for seed in range(3))
    targets = targets_of(style[:1] ** 2, REFINING)
    known = survey(content, start, targets, REFINING)
    arrays = known.to_arrays()
    assert arrays["fine.slopes"].dtype == np.float16 and arrays["fine.slopes"].shape == (15, 2, 4 * 5 // 2)
    read = Survey.from_arrays(arrays, targets)
    assert read.content == pytest.approx(known.content)
    for layer in targets.grams:
        largest = float(known.slopes[layer].abs().max())
        torch.testing.assert_close(read.slopes[layer], known.slopes[layer], rtol=1e-3, atol=1e-3 * largest)
    close = replay(content, start, targets, read, REFINING) - replay(content, start, targets, known, REFINING)
    assert float(close.abs().mean()) < 1e-3
    with pytest.raises(DataError, match="no slopes of layer fine"):
        Survey.from_arrays({"content": arrays["content"]}, targets)


def test_without_refinement_steps_blocks_stay_as_they_begin() -> None:
    content, start = images(1), images(1, 5)
    targets, none = targets_of(images(1, 1)), replace(REFINING, refine_steps=0)
    known = Survey.from_arrays(survey(content, start, targets, none).to_arrays(), targets)
    assert torch.equal(replay(content, start, targets, known, none), start)


# -------------------------------------------------------------------------------------------------------- intensities
