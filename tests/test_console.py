"""How a command ends: one sentence on stderr and an exit code, whatever stops it."""

from __future__ import annotations

import errno
import importlib
import io
import os
import pwd
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from alexnet_pl import ROOT, console
from alexnet_pl.console import RANK_VARIABLES, Meter, exit_on_error, make_console, open_streams, start_command
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


# ------------------------------------------------------------------------------------------------ how a command starts

SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("place", SCRIPTS.values(), ids=SCRIPTS)
def test_each_command_makes_itself_ready_first(place: str, monkeypatch: pytest.MonkeyPatch):
    name, _, function = place.partition(":")
    command = importlib.import_module(name)

    def started(trains: bool = False) -> None:
        raise InterruptedError(str(trains))

    monkeypatch.setattr(command, "start_command", started)
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(InterruptedError, match=str(name == "alexnet_pl.train")):
        getattr(command, function)()


def give_pipe(monkeypatch: pytest.MonkeyPatch) -> int:
    """Give this process a pipe for its output, as a shell does; return the end to read from."""
    read, write = os.pipe()
    stream = os.fdopen(write, "w", encoding="ascii")
    for name in ("stdout", "__stdout__"):
        monkeypatch.setattr(sys, name, stream)
    return read


def test_what_an_encoding_lacks_is_escaped(monkeypatch: pytest.MonkeyPatch):
    reader = give_pipe(monkeypatch)
    os.set_blocking(reader, False)
    open_streams(goes_on=False)
    print("\u00dcbung \u2588 \udcff")
    assert os.read(reader, 99) == b"\\xdcbung \\u2588 \\udcff\n", "at once, not at the end"
    os.close(reader)


@pytest.mark.parametrize("write", [print, lambda text: make_console().print(text)], ids=["print", "console"])
def test_without_a_reader_a_run_goes_on(write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch):
    os.close(give_pipe(monkeypatch))
    open_streams(goes_on=True)
    write("a")
    write("b")


@pytest.mark.parametrize("write", [print, lambda text: make_console().print(text)], ids=["print", "console"])
def test_without_a_reader_another_command_ends_quietly(
    write: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    os.close(give_pipe(monkeypatch))
    open_streams(goes_on=False)
    with pytest.raises(SystemExit) as end, exit_on_error():
        write("a")
    assert end.value.code == 128 + signal.SIGPIPE
    write("what comes at the end is dropped")
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_on_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    with open("/dev/full", "w") as full:
        for name in ("stdout", "__stdout__"):
            monkeypatch.setattr(sys, name, full)
        open_streams(goes_on=False)
        with pytest.raises(SystemExit) as end, exit_on_error("runs/a"):
            print("a")
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: standard output: No space left on device\n"


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_is_closed_is_opened(name: str, monkeypatch: pytest.MonkeyPatch):
    for each in (name, f"__{name}__"):
        monkeypatch.setattr(sys, each, None)
    open_streams(goes_on=False)
    assert not make_console(stderr=name == "stderr").is_terminal
    print("a", file=getattr(sys, name))
    assert os.get_inheritable(getattr(sys, name).fileno()), "else a process that it starts has none"


def test_a_folder_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SystemExit) as end:
        start_command()
    assert end.value.code == 1
    assert capsys.readouterr().err == "error: the current folder was deleted: change to another one\n"


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_a_user_without_a_home_has_one_for_what_libraries_keep(home: str | None, monkeypatch: pytest.MonkeyPatch):
    """A container's user may be unknown to the system."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(console.os, "access", lambda folder, mode: False)
    for name in ("HOME", *console.CACHE_VARIABLES):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if home:
        monkeypatch.setenv("HOME", home)
    start_command()
    assert os.environ["HOME"] == (home or "/")
    folders = {Path(os.environ[name]) for name in console.CACHE_VARIABLES}
    assert all(folder.is_dir() for folder in folders)


def test_a_machine_without_a_place_to_write_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(console.os, "access", lambda folder, mode: False)
    monkeypatch.setattr(console.tempfile, "tempdir", None)
    monkeypatch.setattr(console.tempfile, "_candidate_tempdir_list", lambda: ["/nowhere"])
    with pytest.raises(SystemExit) as end:
        start_command()
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith("error: a folder for temporary files: No usable temporary directory")


def test_ranks_of_an_earlier_program_are_none_of_ours(monkeypatch: pytest.MonkeyPatch):
    """Lightning reads them as it is imported."""
    for name in RANK_VARIABLES:
        monkeypatch.setenv(name, "x")
    start_command(trains=True)
    assert {os.environ[name] for name in RANK_VARIABLES} == {"x"}, "it may be one of several"
    start_command()
    assert not set(RANK_VARIABLES) & set(os.environ)


@pytest.mark.parametrize("name", ["FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "CLICOLOR_FORCE"])
def test_a_log_gets_no_bar_and_no_colour(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, "1")
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with Meter("reading", 2, make_console()) as meter:
        meter.advance(2)
    make_console().print("[red]a", style="red")
    assert out.getvalue() == "[red]a\n"
