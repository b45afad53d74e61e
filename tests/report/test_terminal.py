from rich.console import Console

from holdfast.report.terminal import arms_table


def test_skill_in_the_terminal_is_the_mean_over_all_targets():
    summary = {
        "target": {"benchmark": "counting"},
        "base": {"metrics": {"target/counting/score": 0.6, "target/jigsaw/score": 0.2, "prior/mean/accuracy": 1.0}},
        "arms": {
            "sft": {
                "replicates": 3,
                "score": {"mean": 0.55, "low": 0.45, "high": 0.65},
                "intervals": {"target/counting/score": {"value": 0.9, "low": 0.8, "high": 1.0}},
            }
        },
    }
    console = Console(record=True, width=120)
    console.print(arms_table(summary))
    lines = console.export_text().splitlines()
    assert lines[1].split()[:2] == ["base", "0.40"]
    assert lines[2].split()[:5] == ["sft", "3", "0.55", "±", "0.10"]
