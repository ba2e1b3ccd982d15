"""By what trials are compared: a score by name, larger being better."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from raydom.errors import ConfigError
from raydom.images.overlaps import Overlaps
from raydom.search.bench import BenchPlan, kind_of
from raydom.storage.collection import open_collection
from raydom.storage.model_run import open_model_run
from raydom.training.tallies import KINDS, tally, tally_scores

LABEL_FREE = (
    "combined", "certainty", "agreement", "im", "snd", "snd_features", "mmd", "frechet", "frechet_foreground",
    "frechet_background", "visibility", "likeness", "morphology",
)  # fmt: skip
"""Scores that need no labels; see ``raydom.label_free.combined``."""
VALIDATION = "validation"
"""What a training scores itself by."""
ERRORS = ("rand_error", "rand_index_error", "vi_split", "vi_merge", "vi", "cremi")
"""Scores of labels of which less is better."""


def check_objective(name: str, probe: int, *, trains: bool = False) -> str:
    """The name of an objective that there is.

    Raises:
        ConfigError: For one that there is not, and one that needs labels without a probe of them.
    """
    labelled = [name for kind in KINDS for name in tally_scores(tally(Overlaps.none(), kind), kind)]
    known = [*LABEL_FREE, *dict.fromkeys(labelled), *([VALIDATION] if trains else [])]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there is {', '.join(known)}."
        raise ConfigError(f"there is no objective {name!r}; {hint}")
    if name in labelled and not probe:
        raise ConfigError(
            f"--objective {name} compares with labels of the target: say by --probe N how many of its labelled images "
            "it may look at. The others tell the score that is reported."
        )
    if probe and name not in labelled:
        raise ConfigError(f"--probe {probe} has no effect on --objective {name}, which needs no labels. Leave it out.")
    return name


def check_probe(name: str, bench: BenchPlan) -> None:
    """Refuse a score that labels such as these do not have.

    Raises:
        ConfigError: Naming those that they have.
    """
    if not bench.probe_ids or bench.label is None:
        return
    target = open_collection(bench.target)
    records = [target[image_id].record for image_id in (*bench.target_ids, *bench.probe_ids)]
    kind = kind_of(open_model_run(bench.model).spec, records, bench.label)
    scores = tally_scores(tally(Overlaps.none(), kind), kind)
    if name not in scores:
        raise ConfigError(
            f"--objective {name}: what the model tells of {bench.target} is scored as {kind} labels, which have "
            f"{', '.join(scores)}. Choose one of these."
        )


def objective_of(scores: Mapping[str, float | None], name: str, probe: int) -> float:
    """The objective among all scores of a trial.

    Raises:
        ConfigError: If it is not among them.
    """
    value = scores.get(f"probe_{name}" if probe else name)
    if value is None:
        raise ConfigError(
            f"there is no {name} of this trial: the model or the labels do not tell objects, or none are there."
        )
    return -value if name in ERRORS else value


def reported(scores: Mapping[str, float | None]) -> dict[str, float | None]:
    """The scores that are kept of a trial: not what they are made of."""
    return {name: value for name, value in scores.items() if not name.startswith(("raw_", "like_"))}
