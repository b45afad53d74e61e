from pathlib import Path

import pytest
from stage_runs import job, use

from holdfast.errors import UserError
from tasks import tracking, worker
from tasks.redaction import redact_file, redacted, refuse_secrets, shown
from tasks.stage import Attempt, Context, Position
from tasks.tracking import open_store

SECRETS = {
    "HF_TOKEN": "hf_planted12",
    "AWS_SECRET_ACCESS_KEY": "planted/aws+key",
    "MODEL_API_KEY": 'planted"quoted',
    "DB_PASSWORD": "planted word",
}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgresql://me:pass@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("no answer of http://me:p@ss/w:rd@host/x.", "no answer of http://me:***@host/x."),
        ("https://ghp_0123456789abcdefghij@host/x", "https://***@host/x"),
        ("s3://bucket?X-Amz-Signature=abc&part=1", "s3://bucket?X-Amz-Signature=***&part=1"),
        ("postgresql://host/db?user=me&password=abc", "postgresql://host/db?user=me&password=***"),
        ("http://127.0.0.1:5000/#/runs/1?a=b", "http://127.0.0.1:5000/#/runs/1?a=b"),
        ("models:/smoke@best-skill, me@host, 12:30", "models:/smoke@best-skill, me@host, 12:30"),
    ],
)
def test_addresses_lose_their_passwords_and_nothing_else(text: str, clean: str):
    assert redacted(text) == clean


def test_secrets_of_the_environment_are_hidden_in_every_form(planted: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "falsehood")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/run/token/of/aws")
    monkeypatch.setenv("ROOT_PASSWORD", "short")
    text = 'hf_planted12 planted/aws+key planted%2Faws%2Bkey planted\\"quoted "planted word"'
    assert redacted(text) == '*** *** *** *** "***"'
    kept = "falsehood safe.directory /run/token/of/aws short"
    assert redacted(kept) == kept


def test_a_terminal_obeys_nothing_that_is_printed():
    assert shown("\x1b]0;owned\x07\x1b[2J\x9b2J\r\ta\nb") == "\\x1b]0;owned\\x07\\x1b[2J\\x9b2J\\x0d\ta\nb"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"arms": {"a": [{"trainer": {"hub_token": "x"}}]}}, "arms.a.0.trainer.hub_token"),
        ({"images": {"name": "https://me:word@host/data"}}, "images.name"),
        ({"model": {"revision": "hf_planted12"}}, "model.revision"),
        ({"arms": {"a": [{"lora": {"modules": ["x", "s3://b?sig=abc"]}}]}}, "arms.a.0.lora.modules.1"),
    ],
)
def test_a_secret_in_an_experiment_is_refused_and_not_repeated(planted: None, content: dict, place: str):
    with pytest.raises(UserError) as refused:
        refuse_secrets(content)
    assert str(refused.value).startswith(f"{place}: holds a secret")
    assert not any(word in str(refused.value) for word in ("word@", "hf_planted12", "sig=abc"))


def test_words_about_tokens_are_no_secrets(planted: None):
    refuse_secrets({"trainer": {"max_new_tokens": 3, "eos_token": "</s>", "pad_token": "<pad>"}, "seed": 1})


def test_a_stage_that_prints_a_secret_and_fails_leaves_it_nowhere(root: Path, study, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODEL_API_KEY", "planted-in-a-stage")
    use(monkeypatch, "tells_a_secret")
    store = open_store(root)
    context = Context(root=root, study=study, study_run=store.begin("study", "study", {}))
    with pytest.raises(worker.StageFailed, match=r"the key is \*\*\*") as failed:
        Attempt(job(root), context, Position("answers", 1)).run()
    assert "planted-in-a-stage" not in str(failed.value)
    files = [path for path in (root / "mlruns").rglob("*") if path.is_file()]
    assert any(path.name == "log.txt" for path in files)
    for path in files:
        assert b"planted-in-a-stage" not in path.read_bytes(), path


def test_the_error_of_a_run_has_no_password(root: Path):
    store = open_store(root)
    run_id = store.begin("study", "study", {})
    with pytest.raises(OSError, match="no answer"), tracking.ending(store, run_id):
        raise OSError("no answer of http://me:word@host")
    assert store.run(run_id).data.tags["holdfast.error"] == "no answer of http://me:***@host"


def test_a_file_without_secrets_is_not_written_again(planted: None, tmp_path: Path):
    file = tmp_path / "log.txt"
    file.write_bytes(b"fine \xff")
    before = file.stat().st_mtime_ns
    redact_file(file)
    redact_file(tmp_path / "missing")
    assert (file.stat().st_mtime_ns, file.read_bytes()) == (before, b"fine \xff")
    file.write_bytes(b"hf_planted12 \xff")
    redact_file(file)
    assert file.read_bytes() == b"*** \xff"
