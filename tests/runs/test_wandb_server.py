"""W&B's server as the environment names it: its key, its address, and one that is not what it should be."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from alexnet_pl import sync
from alexnet_pl.config.choices import LoggerName, WandbMode
from alexnet_pl.config.schema import Logger, from_dict
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.jobs import checks
from alexnet_pl.runs import artifacts, wandb_server
from alexnet_pl.runs.run import Run
from tests.helpers.bad_servers import ANSWERS, bad_server
from tests.helpers.runs import offline_run
from tests.helpers.wandb_server import KEY, Server


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user without an account."""
    for name in ("WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("machine", "base_url", "found"),
    [
        ("api.wandb.ai", None, True),
        ("example.org", None, False),
        ("wandb.example.org", "https://wandb.example.org", True),
        ("api.wandb.ai", "https://wandb.example.org", False),
        ("localhost:8080", "http://localhost:8080", True),
    ],
)
@pytest.mark.parametrize("variable", [True, False])
def test_a_key_in_a_netrc_file_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, base_url: str | None, found: bool, variable: bool
):
    assert not wandb_server.key()
    file = tmp_path / ("elsewhere" if variable else ".netrc")
    file.write_text(f"machine {machine}\n  login user\n  password {KEY}\n")
    if variable:
        monkeypatch.setenv("NETRC", str(file))
    if base_url:
        monkeypatch.setenv("WANDB_BASE_URL", base_url)
    assert wandb_server.key() == (KEY if found else "")


BAD = [
    "hello", "", " ", "file:///etc/passwd", "ftp://example.org", "http://", "https://a b", " https://example.org",
    "https://example.org\n", "http://127.0.0.1:99999", "http://127.0.0.1:port", "http://[::1", "127.0.0.1:8080",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return offline_run(tmp_path_factory.mktemp("offline") / "run")


@pytest.mark.parametrize("address", BAD)
def test_what_is_no_address_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, run: Run, capsys: pytest.CaptureFixture[str], address: str
):
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    cfg = from_dict(run.config)
    for mode in (WandbMode.online, WandbMode.offline):
        cfg.logger = Logger(LoggerName.wandb, mode)
        with pytest.raises(ConfigError, match="is not the address of a W&B server"):
            checks.check(cfg)
    with pytest.raises(ConfigError, match="is not the address of a W&B server"):
        artifacts.fetch("wandb:ada/alexnet_pl/net:best")
    monkeypatch.setattr(sys, "argv", ["alexnet-sync", str(run.folder)])
    with pytest.raises(SystemExit) as end:
        sync.main()
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: WANDB_BASE_URL=")


SAYS = {
    "fails": "answers HTTP 500", "is busy": "answers HTTP 429", "is another": "answers HTTP 404",
    "refuses the key": "refuses the key", "is a page": "not answer as", "is a list": "not answer as",
    "is cut": "not answer as", "is no HTTP": "not answer as", "hangs up": "not answer", "is silent": "not answer",
}  # fmt: skip


@pytest.mark.parametrize("kind", [kind for kind in ANSWERS if kind != "fails later"])
def test_a_server_that_is_not_what_it_should_be_is_one_sentence(monkeypatch: pytest.MonkeyPatch, kind: str):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr(wandb_server, "SECONDS", 5 if ANSWERS[kind] is not None else 0.1)
    with bad_server(kind) as address:
        monkeypatch.setenv("WANDB_BASE_URL", address)
        with pytest.raises(UserError, match=SAYS[kind]) as refusal:
            wandb_server.require("sync")
    (sentence,) = refusal.value.sentences
    assert sentence.isprintable()
    assert address in sentence


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nobody_there_and_no_tls_is_one_sentence(monkeypatch: pytest.MonkeyPatch, scheme: str):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with bad_server("fails") as plain:
        address = plain.replace("http:", "https:") if scheme == "https" else "http://127.0.0.1:9"  # the discard port
        monkeypatch.setenv("WANDB_BASE_URL", address)
        with pytest.raises(UserError, match=f"W&B's server {address} does not answer"):
            wandb_server.require("sync")


def test_a_proper_answer_needs_a_key(monkeypatch: pytest.MonkeyPatch):
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.environment["WANDB_BASE_URL"])
        with pytest.raises(ConfigError, match="sync needs a W&B key and none was found"):
            wandb_server.require("sync")
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        wandb_server.require("sync")
