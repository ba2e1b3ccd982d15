"""Tasks that are made when they are looked at are those that a list would hold."""

import tracemalloc

import numpy as np
import pytest

from raydom.images.tiles import cut_blocks
from raydom.inference.tasks import Cut, Task, Tasks

CUTS = [
    Cut(0, "block", "a@b-1", (70, 90), 32, "f"),
    Cut(0, "block", "b", (30, 31), 32, "g"),
    Cut(1, "pair", "c", (33, 1), 16, "h"),
]


def _listed(cuts=CUTS):
    return [
        Task(cut.job, cut.kind, block, cut.fingerprint)
        for cut in cuts
        for block in cut_blocks(cut.image_id, cut.shape, cut.size)
    ]


def test_they_are_the_blocks_of_each_image_in_their_order():
    tasks, listed = Tasks(CUTS), _listed()
    assert len(tasks) == len(listed) == 9 + 1 + 3 and list(tasks) == listed
    assert [tasks[n] for n in range(-2, 13)] == listed[-2:] + listed
    assert list(tasks[3:11]) == listed[3:11] and tasks.largest_px == 32 * 32
    assert [cut.number(task.block.block_id) for cut in CUTS for task in Tasks([cut])] == [*range(9), 0, 0, 1, 2]


@pytest.mark.parametrize("places", [[], [12], [0, 1, 2, 7, 8, 9, 11], [9, 3, 4, 0], range(13)])
def test_some_of_them_survive_their_journey_as_text_in_any_order(places):
    some = Tasks(CUTS).chosen([*places])
    assert list(Tasks.from_json(some.to_json())) == list(some) == [_listed()[n] for n in places]


def test_images_are_told_and_chosen_from():
    tasks = Tasks(CUTS)
    assert tasks.image_ids() == {"a@b-1", "b", "c"}
    first = np.arange(13) < 9
    assert tasks.image_ids(first) == {"a@b-1"} and list(tasks.chosen(~first)) == _listed()[9:]
    assert tasks.of_images({"b", "c"}).tolist() == (~first).tolist()
    joined = Tasks.joined([tasks.chosen(first), Tasks([]), tasks.chosen([10, 12])])
    assert list(joined) == [*_listed()[:9], _listed()[10], _listed()[12]]


def test_a_million_tasks_are_sixteen_bytes_each_at_most_and_a_batch_of_them_a_short_text():
    tracemalloc.start()
    tasks = Tasks([Cut(0, "block", "a", (64_000, 64_000), 64, "f")])
    held = tasks.chosen(np.arange(1_000_000) % 3 > 0)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(tasks) == 1_000_000 and len(held) == 666_666 and size < 16 * len(tasks)
    assert len(tasks[5000:5128].to_json()) < 100
