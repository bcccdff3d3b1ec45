"""Sync: send the offline W&B runs of folders of runs to the server.

    wandb login
    python -m alexnet_pl.sync runs/figure1

W&B's own client sends, in a process for each run and a few of them at a time: in one process for all, a file that
cannot be read would keep the others from being sent. A run that was stopped and continued has left a folder of W&B's
for each start; they are sent in their order, as one run. What is sent, the client marks: the command can be repeated
at any time.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from alexnet_pl import files
from alexnet_pl.errors import ConfigError, UserError
from alexnet_pl.jobs import checks
from alexnet_pl.runs.run import Run, find_runs

SENT, BEFORE, FAILED, LATER, NONE = "sent", "sent before", "failed", "later", "none"
CUT = "the file ends with an incomplete record"
"""What the client says of such a file, after it has sent the rest"""


class Outcome(NamedTuple):
    """What became of a run: one of the words above, and its address or the reason."""

    word: str
    said: str


def parts(run: Run) -> list[Path]:
    """The files of a run's offline W&B run, one for each start, the oldest first."""
    return sorted(file for file in run.folder.glob("wandb/offline-run-*/*.wandb") if file.stat().st_size)


def mark(part: Path) -> Path:
    """What the client leaves beside a file that is sent whole, and looks for before it sends one."""
    return part.with_name(f"{part.name}.synced")


def synced(part: Path) -> bool:
    return mark(part).exists()


def outcome(run: Run) -> Outcome | None:
    """What can be said of a run without sending anything; None where there is something to send."""
    known = parts(run)
    if not run.identity:
        return Outcome(LATER, "not begun")
    if not known:
        online = any(run.folder.glob("wandb/run-*"))
        return Outcome(BEFORE, "as it went") if online else Outcome(NONE, f"logger={run.config['logger']['name']}")
    if all(map(synced, known)):
        return Outcome(BEFORE, "")
    try:
        if own := files.lock(run.folder):
            own.close()
    except BlockingIOError:  # sent now, it would count as sent, and its end would be missing
        return Outcome(LATER, "it is being trained: sync it when that has ended")
    return None


def send(run: Run) -> Outcome:
    """Send what is not sent of a run, one start after the other, and stop where one cannot be sent."""
    cut, address = "", ""
    for part in parts(run):
        if synced(part):
            continue
        said = _client(part, run.folder)
        if CUT in said:  # as far as it goes it is sent, and a second time it would be there twice
            mark(part).touch()
            cut = " (a file of its ends in the middle of a record: the machine stopped while it was written)"
        elif not synced(part):
            reasons = re.findall(r"(?:ERROR|Error:) (.*)", said)
            return Outcome(FAILED, "; ".join(dict.fromkeys(reasons)) or f"W&B's client gave no reason for {part}")
        found = re.search(r"View run .* at (\S+)", said)
        address = found[1] if found else address
    return Outcome(SENT, address + cut)


def _client(part: Path, folder: Path) -> str:
    """Have W&B's client send a file; returns what it printed. Its exit code says nothing, its mark does."""
    quiet = ("WANDB_MODE", "WANDB_SILENT", "WANDB_QUIET")  # they would keep it from sending, or from saying why not
    env = {key: value for key, value in os.environ.items() if key not in quiet}
    return subprocess.run(
        [sys.executable, "-m", "wandb", "sync", str(part.absolute())],
        env=env | {"WANDB_DIR": str(folder.absolute())},  # where it keeps a log of its own
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ).stdout


def sync(folders: list[Path], jobs: int) -> Iterator[tuple[Run, Outcome]]:
    """Send the runs of folders, `jobs` at a time; yields each as soon as it is through.

    Raises:
        UserError: no run, none with a W&B run, no key, or no answer from the server; nothing is sent then.
    """
    found = {run.folder.resolve(): run for folder in folders for run in find_runs(folder)}
    known = [(run, outcome(run)) for run in found.values()]
    if all(said and said.word == NONE for _, said in known):
        raise ConfigError(
            f"no run in {', '.join(map(str, folders))} has a W&B run to send: they were trained with "
            + " and ".join(dict.fromkeys(said.said for _, said in known if said))
        )
    ready = [run for run, said in known if said is None]
    if ready:
        checks.needs_wandb_key("sync")
        _reach()
    yield from ((run, said) for run, said in known if said)
    with ThreadPoolExecutor(jobs) as pool:
        sending = {pool.submit(send, run): run for run in ready}
        try:
            for sent in as_completed(sending):
                yield sending[sent], sent.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _reach() -> None:
    """Raise UserError if the server does not answer: the client would try again for ever."""
    address = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        urllib.request.urlopen(address, timeout=20).close()
    except urllib.error.HTTPError:
        return  # an answer
    except OSError as error:
        raise UserError(
            f"W&B's server {address} does not answer ({getattr(error, 'reason', error)}): sync again when it does"
        ) from error


def main() -> None:
    """The command. Exit code 0: all is sent that can be; 1: a mistake, or runs that were not sent, with the reasons."""
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.sync",
        description="Send the offline W&B runs of folders to the server, each run once: what is sent already is "
        "skipped, and what a continued run has added since goes to the same run there.",
    )
    parser.add_argument("folders", type=Path, nargs="+", help="runs, or folders of runs such as runs/figure1")
    parser.add_argument("--jobs", type=int, default=4, metavar="N", help="runs to send at a time (default: 4)")
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error("--jobs must be at least 1")
    console = Console(highlight=False, soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    counts: Counter[str] = Counter()
    try:
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
            total = sum(len(find_runs(folder)) for folder in args.folders)
            task = bar.add_task("sync", total=total)
            for run, (word, said) in sync(args.folders, args.jobs):
                counts[word] += 1
                bar.advance(task)
                console.print(f"{word:11}  {run.folder.name}" + f": {said}" * bool(said), markup=False)
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    of = ", ".join(f"{n} {word}" for word, n in counts.items() if word != SENT)
    print(f"{counts[SENT]} of {counts.total()} runs sent" + f" ({of})" * bool(of))
    if counts[FAILED]:
        sys.exit("some runs were not sent: the same command tries those again and skips the others")


if __name__ == "__main__":
    main()
