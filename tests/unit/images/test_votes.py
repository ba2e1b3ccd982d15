import numpy as np

from raydom.images.votes import voted


def test_many_objects_that_all_views_have_come_out_once_each_by_their_mean_score() -> None:
    rng = np.random.default_rng(0)
    grid = 1 + np.arange(30 * 40).reshape(30, 40)
    objects = np.kron(grid, np.pad(np.ones((3, 4), int), ((0, 1), (0, 1)))).astype(np.int32)
    views, scores = [], []
    for _ in range(8):  # each numbers them in its own order, by its own scores
        number = np.concatenate([[0], 1 + rng.permutation(grid.size)])
        views.append(number[objects].astype(np.int32))
        scores.append(rng.permutation(grid.size) / grid.size)
    labels, means = voted(views, scores)
    expected = np.mean([own[view[objects > 0] - 1] for view, own in zip(views, scores, strict=True)], axis=0)
    assert len(means) == grid.size
    assert np.array_equal(labels > 0, objects > 0)
    np.testing.assert_allclose(means[labels[objects > 0] - 1], expected)
