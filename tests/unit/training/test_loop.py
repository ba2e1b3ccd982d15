import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from raydom.algorithms.phases import Algorithm, Phase
from raydom.config import TrainConfig
from raydom.errors import ConfigError, DataError, DivergedError
from raydom.training.loop import Training, finished, number_of_steps, prefetched, scheduled, train

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Points:
    values: torch.Tensor

    def to(self, device):
        return Points(self.values.to(device))


class Duel(Algorithm):
    """A small adversarial training with all that a GAN has: two optimisers, dropout, batch norm, a pool, a rest."""

    learning_rate_factors = {"critic": 0.5}  # noqa: RUF012

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.modules = {
            "generator": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(0.3), nn.Linear(4, 3)),
            "critic": nn.Linear(3, 1),
        }
        self.pool = torch.zeros(2, 3)

    def exported(self):
        return self.modules["generator"]

    def phases(self, step, num_steps):
        generate = Phase("generate", ("generator",), self.fool)
        return (generate,) if step % 3 == 2 else (generate, Phase("criticise", ("critic",), self.tell_apart))

    def fool(self, batch):
        made = self.modules["generator"](batch.values)
        self.made = made.detach()
        return {"fool": -self.modules["critic"](made).mean(), "near": 0.1 * ((made - batch.values) ** 2).mean()}

    def tell_apart(self, batch):
        critic = self.modules["critic"]
        self.pool = 0.5 * self.pool + 0.5 * self.made[:2]
        return {"apart": critic(self.pool).mean() - critic(batch.values).mean()}

    def state(self):
        return {"pool": self.pool}

    def load_state(self, state):
        self.pool = state["pool"]


def batch_at(step: int) -> Points:
    return Points(torch.rand(4, 3, generator=torch.Generator().manual_seed(step)))


CONFIG = TrainConfig(steps=9, validate_every=3, learning_rate=0.05, seed=1)


def run(config=CONFIG, algorithm=None, scores=None, **options):
    """Trains; returns the algorithm, its checkpoints and its reports."""
    algorithm, saved, reports = algorithm or Duel(), [], []
    given = iter(scores) if scores else None
    training = Training(algorithm, options.pop("batches", batch_at), None if given is None else lambda: next(given))
    train(
        training, config, config.steps, device=CPU, save=lambda report, state: saved.append(state),
        watch=reports.append, **options,
    )  # fmt: skip
    return algorithm, saved, reports


def weights(algorithm) -> dict[str, torch.Tensor]:
    return {f"{n}.{k}": v for n, module in algorithm.modules.items() for k, v in module.state_dict().items()}


def assert_same(one, other) -> None:
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_resuming_from_any_checkpoint_gives_the_same_bits():
    whole, saved, _ = run()
    assert len(saved) == 3
    for state in saved:
        resumed, last, _ = run(checkpoint=state)
        assert_same(weights(resumed), weights(whole))
        assert torch.equal(resumed.pool, whole.pool)
        if last:
            one, other = finished(last[-1]), finished(saved[-1])
            assert [{**row, "seconds": 0} for row in one.rows] == [{**row, "seconds": 0} for row in other.rows]


def test_same_seed_same_weights_other_seed_others_and_the_global_generator_is_left_alone():
    first, _, _ = run()
    before = torch.get_rng_state()
    algorithm = Duel()
    torch.set_rng_state(before)
    second, _, _ = run(algorithm=algorithm)
    assert torch.equal(before, torch.get_rng_state())
    assert_same(weights(first), weights(second))
    other, _, _ = run(replace(CONFIG, seed=2))
    assert not torch.equal(weights(first)["critic.weight"], weights(other)["critic.weight"])


def test_a_phase_changes_only_what_it_trains():
    class Still(Duel):
        def phases(self, step, num_steps):
            return super().phases(2, num_steps)

    algorithm = Still()
    critic = {name: value.clone() for name, value in algorithm.modules["critic"].state_dict().items()}
    generator = algorithm.modules["generator"][0].weight.clone()
    run(algorithm=algorithm)
    assert_same(algorithm.modules["critic"].state_dict(), critic)
    assert not torch.equal(algorithm.modules["generator"][0].weight, generator)


def test_a_phase_can_have_a_learning_rate_of_its_own():
    def moved(**fields):
        algorithm = Duel()
        before = {name: value.clone() for name, value in weights(algorithm).items()}
        run(replace(CONFIG, steps=1, schedule="constant", weight_decay=0.0, **fields), algorithm)
        return {name: float((weights(algorithm)[name] - before[name]).abs().max()) for name in before}

    usual, slow = moved(), moved(phase_rates=("criticise=0.1",))
    # The first step of Adam is as long as the learning rate, of which the critic has a half.
    assert usual["critic.weight"] == pytest.approx(0.025, rel=1e-3)
    assert slow["critic.weight"] == pytest.approx(0.0025, rel=1e-3)
    assert slow["generator.4.weight"] == usual["generator.4.weight"] == pytest.approx(0.05, rel=1e-3)
    with pytest.raises(ConfigError, match="no phase critic, tell; the phases are generate, criticise"):
        run(replace(CONFIG, phase_rates=("critic=2", "tell=1", "generate=1")))
    for word in ("critic", "critic=0", "critic=fast", "critic=nan"):
        with pytest.raises(ConfigError, match=f"PHASE=SHARE with a share > 0, such as criticise=0.5; got '{word}'"):
            replace(CONFIG, phase_rates=(word,))
    with pytest.raises(ConfigError, match="given twice in phase_rates a=1,a=2"):
        replace(CONFIG, phase_rates=("a=1", "a=2"))


def test_what_the_algorithm_froze_stays_frozen():
    algorithm = Duel()
    frozen = algorithm.modules["generator"][0].requires_grad_(False)
    before = frozen.weight.clone()
    run(algorithm=algorithm)
    assert torch.equal(frozen.weight, before)


def test_one_step_of_adam_by_hand():
    class Slope(Algorithm):
        def __init__(self):
            self.modules = {"network": nn.Linear(1, 1, bias=False)}
            nn.init.constant_(self.modules["network"].weight, 2.0)

        def phases(self, step, num_steps):
            return (Phase("fit", ("network",), lambda batch: {"a": self.modules["network"].weight.sum() * 3}),)

    config = TrainConfig(steps=1, learning_rate=0.1, weight_decay=0.01, schedule="constant")
    algorithm, _, reports = run(config, Slope())
    # Adam's first step is the learning rate; decoupled decay takes 0.1 * 0.01 * 2
    assert algorithm.modules["network"].weight.item() == pytest.approx(2 - 0.002 - 0.1, abs=1e-6)
    assert reports[0].losses == {"fit.a": 6.0}


def test_the_best_weights_are_those_of_the_best_score_and_the_first_of_equals():
    seen = []

    class Watched(Duel):
        def phases(self, step, num_steps):
            seen.append({k: v.clone() for k, v in self.modules["generator"].state_dict().items()})
            return super().phases(step, num_steps)

    _, saved, reports = run(algorithm=Watched(), scores=[0.5, 0.7, 0.7])
    result = finished(saved[-1])
    assert (result.best_step, result.best_score) == (6, 0.7)
    assert_same({k: torch.from_numpy(v) for k, v in result.weights.items()}, seen[6])
    assert [(r.step, r.score) for r in reports if r.score is not None] == [(3, 0.5), (6, 0.7), (9, 0.7)]


def test_without_a_score_the_last_weights_are_the_best():
    algorithm, saved, _ = run()
    result = finished(saved[-1])
    assert result.best_step == 9 and result.best_score is None
    assert_same(
        {k: torch.from_numpy(v) for k, v in result.weights.items()}, algorithm.modules["generator"].state_dict()
    )


def test_rows_hold_losses_rate_and_score():
    _, saved, _ = run(scores=[0.1, 0.2, 0.3])
    rows = finished(saved[-1]).rows
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert {"generate.fool", "generate.near", "learning_rate", "seconds"} <= rows[0].keys()
    assert "criticise.apart" not in rows[2] and rows[2]["score"] == 0.1


def test_rows_of_several_steps_hold_the_mean_over_the_steps_in_which_a_phase_did_not_rest(monkeypatch):
    _, single, _ = run()
    monkeypatch.setattr("raydom.training.loop.MAX_ROWS", 3)
    _, saved, _ = run()
    each, rows = finished(single[-1]).rows, finished(saved[-1]).rows
    assert [row["step"] for row in rows] == [3, 6, 9]
    for number, row in enumerate(rows):
        for name in ("generate.fool", "criticise.apart"):  # the critic rests in one step of three
            values = [one[name] for one in each[3 * number : 3 * number + 3] if name in one]
            assert row[name] == pytest.approx(sum(values) / len(values), rel=1e-6)


def test_a_loss_that_is_no_number_stops_before_it_reaches_the_weights():
    class Broken(Duel):
        def fool(self, batch):
            losses = super().fool(batch)
            return losses | {"near": losses["near"] * math.nan} if batch.values.isnan().any() else losses

    def batches(step):
        return Points(torch.full((4, 3), math.nan)) if step == 7 else batch_at(step)

    algorithm = Broken()
    with pytest.raises(
        DivergedError, match=r"loss 'fool' of phase 'generate' is nan at step 8 of 9; the checkpoint of step 6"
    ):
        run(algorithm=algorithm, batches=batches)
    assert all(torch.isfinite(p).all() for p in algorithm.modules["generator"].parameters())


def test_a_gradient_that_is_no_number_is_named_too():
    class Root(Algorithm):
        def __init__(self):
            self.modules = {"network": nn.Linear(1, 1, bias=False)}
            nn.init.zeros_(self.modules["network"].weight)

        def phases(self, step, num_steps):
            return (Phase("fit", ("network",), lambda batch: {"root": self.modules["network"].weight.sqrt().sum()}),)

    with pytest.raises(DivergedError, match=r"gradient of 'network' of phase 'fit' is (inf|nan) at step 1"):
        run(TrainConfig(steps=1), Root())


def test_an_unknown_module_is_named():
    class Wrong(Duel):
        def phases(self, step, num_steps):
            return (Phase("generate", ("encoder",), self.fool),)

    with pytest.raises(ConfigError, match="trains encoder; there are parameters to train in generator, critic"):
        run(algorithm=Wrong())


def test_a_checkpoint_of_another_training_is_refused():
    class Wider(Duel):
        def __init__(self):
            super().__init__()
            self.modules["critic"] = nn.Linear(3, 2)

    _, saved, _ = run()
    with pytest.raises(DataError, match="over 9 steps; this one is of generator, critic over 8"):
        run(replace(CONFIG, steps=8), checkpoint=saved[0])
    with pytest.raises(DataError, match="of another network"):
        run(algorithm=Wider(), checkpoint=saved[0])


def test_bfloat16_trains_float32_weights():
    algorithm, _, reports = run(replace(CONFIG, precision="bfloat16"))
    assert algorithm.modules["critic"].weight.dtype == torch.float32
    exact, _, _ = run()
    assert not torch.equal(algorithm.modules["critic"].weight, exact.modules["critic"].weight)
    assert all(math.isfinite(value) for report in reports for value in report.losses.values())


def test_the_cosine_goes_from_the_peak_to_zero():
    assert [scheduled(2.0, "cosine", step, 4) for step in (0, 2, 4)] == pytest.approx([2.0, 1.0, 0.0])
    assert scheduled(2.0, "constant", 4, 4) == 2.0


def test_the_linear_schedule_is_constant_for_half_of_the_steps():
    assert [scheduled(2.0, "linear", step, 8) for step in (0, 4, 6, 8)] == pytest.approx([2.0, 2.0, 1.0, 0.0])


def test_a_module_can_have_a_gradient_norm_of_its_own():
    class Careful(Duel):
        clip_norms = {"critic": 1e-9}  # noqa: RUF012

    before = Careful().modules["critic"].weight
    algorithm, _, _ = run(replace(CONFIG, steps=1, weight_decay=0.0), Careful())
    unlimited, _, _ = run(replace(CONFIG, steps=1, weight_decay=0.0))
    moved = (algorithm.modules["critic"].weight - before).abs().max()
    assert moved < (unlimited.modules["critic"].weight - before).abs().max()


def test_epochs_are_passes_over_the_images_of_at_least_20_steps():
    assert number_of_steps(TrainConfig(epochs=3, batch_size=4), num_images=200, num_workers=2) == 3 * 25
    assert number_of_steps(TrainConfig(epochs=3, batch_size=4), num_images=8, num_workers=1) == 3 * 20
    assert number_of_steps(TrainConfig(steps=7), num_images=200, num_workers=2) == 7


def test_batches_come_in_order_and_a_failing_one_at_its_turn():
    def batch(step):
        if step == 5:
            raise DataError("broken")
        return step

    batches = prefetched(batch, 2, 9)
    assert [next(batches) for _ in range(3)] == [2, 3, 4]
    with pytest.raises(DataError, match="broken"):
        next(batches)
    assert list(prefetched(batch, 6, 9)) == [6, 7, 8] and list(prefetched(batch, 9, 9)) == []


def test_patience_ends_a_training_and_a_restart_ends_it_at_the_same_step():
    config = replace(CONFIG, steps=30, patience=2)
    scores = [0.5, 0.7, 0.6, 0.7, 0.9, 0.9]  # steps 3, 6, 9 and 12: the second is not beaten twice
    whole, saved, reports = run(config, scores=scores)
    assert [report.step for report in reports][-1] == 12 and finished(saved[-1]).best_step == 6
    for done, state in enumerate(saved, start=1):
        resumed, last, again = run(config, scores=[*scores[done:], 1.0], checkpoint=state)
        assert [report.step for report in again] == list(range(3 * done + 1, 13))
        assert (
            not last
            or finished(last[-1]).weights["0.weight"].tolist() == finished(saved[-1]).weights["0.weight"].tolist()
        )
        assert_same(weights(resumed), weights(whole))
    assert len(run(replace(config, patience=None), scores=[0.5] * 10)[2]) == 30
    with pytest.raises(ConfigError, match="patience must be >= 1; got 0"):
        TrainConfig(patience=0)
