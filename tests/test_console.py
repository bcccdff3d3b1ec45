"""How a command ends: one sentence on stderr and an exit code, whatever stops it."""

from __future__ import annotations

import errno
import io
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from alexnet_pl.console import Meter, exit_on_error, make_console
from alexnet_pl.errors import ConfigError, InUse


def end_of(error: BaseException, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """Exit code and stderr of a command that raises an error."""
    with pytest.raises(SystemExit) as end, exit_on_error(*args):
        raise error
    out, err = capsys.readouterr()
    assert out == ""
    return end.value.code, err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (ConfigError("a.yaml is damaged"), 1, "a.yaml is damaged"),
        (InUse("another process trains here"), 75, "another process trains here"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.csv"), 1, "a.csv: No such file or directory"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "runs/a: No space left on device"),
        (OSError("it ends before byte 7"), 1, "runs/a: it ends before byte 7"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
    ],
)
def test_what_ends_a_command_is_one_sentence(
    error: BaseException, code: int, sentence: str, capsys: pytest.CaptureFixture[str]
):
    assert end_of(error, capsys, "runs/a") == (code, f"error: {sentence}\n")


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), exit_on_error():
        raise ZeroDivisionError


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_says_what_is_kept(signum: signal.Signals, capsys: pytest.CaptureFixture[str]):
    """And nothing has changed for signals that come later."""
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as end, exit_on_error(kept="what is packed is kept"):
        signal.raise_signal(signum)
    assert end.value.code == 128 + signum
    expected = f"error: stopped by {signum.name}; what is packed is kept: the same command continues from it\n"
    assert capsys.readouterr().err == expected
    assert signal.getsignal(signum) is before


def test_threads_may_use_it_too(capsys: pytest.CaptureFixture[str]):
    """Python lets only its main thread set signal handlers."""
    codes: list[int] = []

    def work() -> None:
        try:
            with exit_on_error():
                raise ConfigError("no")
        except SystemExit as end:
            codes.append(end.code)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert codes == [1]
    assert capsys.readouterr().err == "error: no\n"


def test_a_disk_that_is_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The operating system names no file; the command does."""
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    with pytest.raises(SystemExit), exit_on_error(tmp_path / "evaluation"), open("/dev/full", "w") as file:
        print("text", file=file, flush=True)
    assert capsys.readouterr().err == f"error: {tmp_path / 'evaluation'}: No space left on device\n"


def test_names_are_printed_as_they_are(monkeypatch: pytest.MonkeyPatch):
    """Brackets are no markup, colons no emoji, and a long line stays one."""
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    text = "[red]x[/] :cat: " + "word " * 60
    make_console().print(text)
    assert out.getvalue() == text + "\n"


def imported(modules: str, among: str) -> str:
    """Which of some modules a new interpreter has, once it has imported some of ours."""
    names = ", ".join(f"alexnet_pl.{module}" for module in modules.split())
    code = f"import sys, {names}; print(*sorted(set({among.split()}) & set(sys.modules)))"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_commands_import_no_torch_before_their_work_begins():
    assert imported("prepare.cli evaluate.cli predict.cli report.cli sync", "torch rich argparse") == "argparse rich"


def test_what_commands_are_made_of_imports_no_command_line():
    modules = "report.curves report.compare evaluate.settings prepare.options predict.options"
    assert imported(modules, "rich argparse omegaconf") == "omegaconf"


def test_a_transient_bar_leaves_nothing():
    out = io.StringIO()
    with Meter("reading", 2, Console(file=out, force_terminal=True, width=80), transient=True) as meter:
        meter.advance(2)
    assert "reading" in out.getvalue()
    assert out.getvalue().rstrip().endswith("\x1b[2K"), "the last thing is that the line is cleared"
