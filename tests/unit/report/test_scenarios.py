"""The table and the picture of a comparison of scenarios."""

from raydom.report.scenarios import TITLES, scenario_figure, scenario_table


def test_scenarios_are_told_by_mean_and_deviation_over_seeds(tmp_path):
    shared = {"images": 2, "edges": 10, "oob_auc": 0.5, "vi": 1.0} | dict.fromkeys(TITLES, 0.5)
    values = {"original": (0.1, 0.3), "stylised": (0.25,)}
    rows = [
        shared | {"test": test, "scenario": scenario, "seed": seed, "rand_error": value}
        for test in ("a", "b")
        for scenario, found in values.items()
        for seed, value in enumerate(found)
    ]
    table = scenario_table(rows).to_pylist()
    assert [(row["test"], row["scenario"], row["seeds"]) for row in table] == [
        ("a", "original", 2), ("a", "stylised", 1), ("b", "original", 2), ("b", "stylised", 1),
    ]  # fmt: skip
    assert [row["rand_error"] for row in table[:2]] == ["0.2000 ± 0.1414", "0.2500"]
    scenario_figure(rows, "drawn", str(tmp_path / "figure.png"))
    assert (tmp_path / "figure.png").stat().st_size > 5000
