import os
from pathlib import Path

import pytest
from stage_runs import job, use
from team_stack import stack_environment

from holdfast.errors import UserError
from tasks import tracking, worker
from tasks.redaction import redact_file, redacted, redacted_json, refuse_secrets, shown
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGPASSWORD", "planted-word"),
        ("MYSQL_PWD", "planted-word"),
        ("SSHPASS", "planted-word"),
        ("SMTP_PASS", "planted-word"),
        ("GPG_PASSPHRASE", "planted-word"),
        ("GITHUB_PAT", "planted-word"),
        ("AZURE_STORAGE_KEY", "planted-word"),
        ("AZURE_STORAGE_CONNECTION_STRING", "AccountName=me;AccountKey=planted-word;EndpointSuffix=host"),
        ("PREFECT_API_AUTH_STRING", "team:planted-word"),
        ("AWS_ACCESS_KEY_ID", "AKIA-planted-word"),
    ],
)
def test_common_secrets_are_known_by_their_names(name: str, value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    assert redacted(f"<{value}>") == "<***>"
    if value != "planted-word" and name != "AWS_ACCESS_KEY_ID":
        assert redacted("the word planted-word alone") == "the word *** alone"


def test_names_that_only_look_like_a_secrets_hide_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ordinary = {
        "PWD": str(tmp_path),
        "INIT_PWD": str(tmp_path),
        "SSH_ASKPASS": "/usr/bin/ssh-askpass",
        "PGPASSWORD_FILE": "/run/secrets/postgres",
        "COMPASS": "north-by-north",
        "SEARCH_PATH": "/usr/local/lib",
        "MLFLOW_TRACKING_USERNAME": "administrator",
        "AWS_ACCESS_KEY_ID": "minioadmin",
    }
    for name, value in ordinary.items():
        monkeypatch.setenv(name, value)
    text = " ".join(ordinary.values())
    assert redacted(text) == text


def test_a_password_that_is_the_name_of_a_directory_here_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "planted-word").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYSQL_PWD", "planted-word")
    assert redacted("planted-word") == "***"


def test_with_the_stacks_secrets_set_holdfast_is_a_word_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stack_environment(monkeypatch, tmp_path / "stack.env")
    assert redacted("holdfast: see holdfast.kind") == "holdfast: see holdfast.kind"
    refuse_secrets({"name": "holdfast-1", "images": {"path": "/home/me/holdfast/photos"}})
    for name in ("POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY", "MLFLOW_FLASK_SERVER_SECRET_KEY"):
        assert redacted(os.environ[name]) == "***"


def test_of_json_only_values_are_hidden_and_it_stays_json(planted: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PIN_PASSWORD", "12345678")
    text = '{"planted word": ["a planted word", 1.5,  12345678], "x" : "planted\\"quoted http://me:p@host"}\n{"y": 2}'
    clean = '{"planted word": ["a ***", 1.5,  "***"], "x" : "*** http://me:***@host"}\n{"y": 2}'
    assert redacted_json(text) == clean


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
    assert ("(HF_TOKEN has it)" in str(refused.value)) == (place == "model.revision")
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
