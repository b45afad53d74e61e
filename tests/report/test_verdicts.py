from made_up_analysis import verdict

from holdfast.report.verdicts import alone, grid, headline, level_sentences, needed, sentences, wins
from holdfast.report.words import duration, number, signed, significant

ARMS = [
    {"arm": "a", "setting": "", "score": 0.5, "retention": 0.9},
    {"arm": "b", "setting": "", "score": 0.6, "retention": 0.4},
]
BETTER, OPEN, ALONE = "better", "not distinguishable", "no verdict (one replicate)"


def test_arms_that_beat_the_same_others_share_a_sentence():
    pairs = [("a", "c"), ("b", "c"), ("a", "d"), ("b", "d"), ("c", "d")]
    assert wins(pairs) == {
        ("a", "b"): ("c", "d"),
        ("c",): ("d",),
    }


def test_the_headline_takes_matched_skill_before_the_end():
    rows = [verdict("a", "b", BETTER, at="matched"), verdict("a", "b", "worse", measure="score")]
    assert headline(rows, ARMS) == "At the same skill, a retains more prior knowledge than b."
    assert headline(rows[1:], ARMS) == "At the end of training, b reaches a higher target score than a."


def test_the_headline_of_undecided_arms_takes_no_side():
    assert "no arm is distinguishable" in headline([verdict("a", "b", OPEN)], ARMS)


def test_the_headline_of_several_settings_is_what_holds_in_all():
    always = [verdict("a", "b", BETTER, setting=setting) for setting in ("x", "y")]
    assert "in every setting, a retains more" in headline(always, ARMS)
    mixed = [verdict("a", "b", BETTER, setting="x"), verdict("a", "b", "worse", setting="y")]
    assert "2 of 2 pairs of arms differ in retention" in headline(mixed, ARMS)


def test_single_trainings_give_no_verdict():
    rows = [verdict("a", "b", ALONE), verdict("a", "b", "not comparable", at="matched")]
    assert alone(rows)
    assert headline(rows, ARMS).endswith("from 0.40 (b) to 0.90 (a). Single trainings give no verdict.")
    assert (
        headline([], ARMS[:1]) == "The arm a ends with a target score of 0.50 and retains 0.90 of its prior accuracy."
    )
    alike = [arm | {"retention": 1.0} for arm in ARMS]
    assert f"all {len(ARMS)} arms retain 1.00 of the prior accuracy. Single trainings" in headline([], alike)
    assert headline([], []) == "No arm has finished training yet."


def test_sentences_say_what_is_undecided_and_what_would_decide_it():
    rows = [verdict("a", "b", BETTER), verdict("a", "c", OPEN)]
    assert sentences(rows) == [
        "At the end of training, a retains more prior knowledge than b.",
        "Undecided, by retention at the end: a and c.",
    ]
    assert [needed(row) for row in rows] == ["", "7 replicates"]


def test_levels_of_a_factor_are_compared_for_each_arm():
    rows = [verdict("off", "on", "worse", factor="thinking", arm="rft"), verdict("off", "on", OPEN, arm="self")]
    assert level_sentences(rows) == [
        "At the end of training, rft retains more prior knowledge with thinking=on than with off.",
        "Undecided: 1 of 2 comparisons.",
    ]


def test_the_grid_has_both_directions():
    found = grid([verdict("a", "b", BETTER, 0.3)])
    assert found["a", "b"] == {"word": "better", "difference": 0.3}
    assert found["b", "a"] == {"word": "worse", "difference": -0.3}


def test_numbers_and_durations_read_well():
    assert [number(value) for value in (0.456, -0.1, -0.001, None)] == ["0.46", "−0.10", "0.00", "–"]
    assert [number(value) for value in (float("inf"), float("nan"), "Infinity")] == ["not finite", "–", "not finite"]
    assert [signed(value) for value in (0.1, -0.1, 0.001)] == ["+0.10", "−0.10", "0.00"]
    assert [significant(value) for value in (0.00123456, -1e-9)] == ["0.00123", "−1e−09"]
    assert [duration(value) for value in (34, 318, 1800, 7500)] == ["34 s", "5.3 min", "30 min", "2 h 5 min"]
