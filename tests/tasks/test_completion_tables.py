import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from holdfast.data.shards import Question, png, write_questions
from tasks.completion_tables import completion_tables
from tasks.parent_runs import study_run
from tasks.tracking import open_store

COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


def question(number: int, images: int = 1) -> Question:
    pictures = tuple(png(Image.new("RGB", (8, 8), COLORS[number])) for _ in range(images))
    return Question(f"q{number}", f"i{number}", pictures, f"puzzle {number}?", "1, 2", "", "jigsaw", "jigsaw")


def record(number: int, role: str = "target") -> dict[str, object]:
    return {"id": f"q{number}", "role": role, "completion": f"<b>{number}</b>", "answer": "1, 2", "correct": False}


@pytest.fixture
def directories(tmp_path):
    """A stage's directory with two evaluations and rollouts, and the data they are about."""
    out, data = tmp_path / "out", tmp_path / "data"
    (out / "evaluations").mkdir(parents=True)
    data.mkdir()
    write_questions(data / "target-test.parquet", [question(0), question(1, images=3)])
    write_questions(data / "target-train.parquet", [question(2)])
    rows = {"step-000000": [record(0)], "step-000010": [record(1), record(0), record(0, "prior")]}
    for name, evaluation in rows.items():
        pq.write_table(pa.Table.from_pylist(evaluation), out / f"evaluations/{name}.parquet")
    rollouts = [{"step": s, "id": "q2", "prompt": "chat", "completion": "?", "score": 0.5} for s in range(40)]
    pq.write_table(pa.Table.from_pylist(rollouts), out / "completions.parquet")
    return out, data


def test_a_table_shows_the_last_evaluations_target_answers_beside_their_pictures(directories):
    named = dict(completion_tables(*directories))
    columns = named["evaluations.json"]
    assert columns["id"] == ["q1", "q0"]
    assert columns["prompt"] == ["puzzle 1?", "puzzle 0?"]
    assert columns["completion"] == ["<b>1</b>", "<b>0</b>"]
    assert [image.size for image in columns["image"]] == [(24, 8), (8, 8)]
    assert [image.getpixel((0, 0)) for image in columns["image"]] == [COLORS[1], COLORS[0]]


def test_a_table_of_rollouts_shows_the_last_ones_with_their_rewards(directories):
    columns = dict(completion_tables(*directories))["rollouts.json"]
    assert columns["step"] == list(range(8, 40))
    assert columns["prompt"][0] == "puzzle 2?"
    assert columns["score"] == [0.5] * 32


def test_a_table_of_questions_in_text_has_no_pictures_and_a_mixed_one_has_dots(directories):
    out, data = directories
    write_questions(data / "target-train.parquet", [question(2, images=0)])
    write_questions(data / "target-test.parquet", [question(0), question(1, images=0)])
    named = dict(completion_tables(out, data))
    assert "image" not in named["rollouts.json"]
    assert [image.size for image in named["evaluations.json"]["image"]] == [(1, 1), (8, 8)]


def test_a_table_can_be_read_back_from_the_store_and_is_not_logged_twice(root, study, directories):
    store = open_store(root)
    with study_run(root, study) as run_id:
        for _ in range(2):
            for name, columns in completion_tables(*directories):
                store.artifacts.table(run_id, columns, name)
    table = store.client.load_table(store.experiment(study.name), "evaluations.json", [run_id])
    assert list(table["completion"]) == ["<b>1</b>", "<b>0</b>"]
    picture = store.client.download_artifacts(run_id, table["image"][0]["filepath"])
    with Image.open(io.BytesIO(open(picture, "rb").read())) as image:
        assert image.size == (24, 8)


def test_a_text_that_is_too_long_for_a_page_is_cut(directories):
    out, data = directories
    rollouts = [{"step": 0, "id": "q2", "prompt": "chat", "completion": "no " * 100_000, "score": 0.5}]
    pq.write_table(pa.Table.from_pylist(rollouts), out / "completions.parquet")
    completion = dict(completion_tables(out, data))["rollouts.json"]["completion"][0]
    assert completion.endswith("no no …")
    assert len(completion) < 10_000
