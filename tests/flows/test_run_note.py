from types import SimpleNamespace

from flows.run_note import RunNote, _note

HOSTILE = "answer '[free](javascript:alert(1)) <img src=x onerror=alert(1)> | **x** `y`\n# title' cannot be graded"


def test_what_a_data_set_says_is_no_markup_of_the_note():
    run = SimpleNamespace(kind="train", arm="a", replicate=1, stage=0, run_id="1", seconds=1.0, found=False)
    note = _note(RunNote((run,), {"b": RuntimeError(HOSTILE)}, {"best-skill": HOSTILE}, ""), "7")
    for line in note.splitlines()[5:-2]:
        plain = line.removeprefix("| b | | ").removesuffix(" |")
        for mark in "[]()<>|*`#":
            assert plain.replace(f"\\{mark}", "").replace("`best-skill`", "").count(mark) == 0, (mark, line)
    assert "[train a](#/experiments/7/runs/1)" in note
