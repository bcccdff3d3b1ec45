"""Send the offline W&B runs of folders of runs to the server, each run once.

    python -m alexnet_pl.sync runs/figure1      after `wandb login`

The command skips what it sent before, so you can repeat it at any time. New steps of a continued
run go to the same run on the server.
"""

# W&B's own client, `wandb sync`, does the sending, in a process for each run and a few at a time. What it does not do
# alone: leave out a run that is still being trained, which would then count as sent; give up where the server does not
# answer, or answers with errors; go on past a file that cannot be read; and send the folders that a stopped and
# continued run has left, one for each start, in their order and as one run. What evaluate, report and predict have
# added to a run follows when the rest is there.

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from alexnet_pl import files
from alexnet_pl.console import Meter, exit_on_error, make_console, start_command
from alexnet_pl.errors import ConfigError, UserError, visible
from alexnet_pl.runs import mirror, wandb_server
from alexnet_pl.runs.run import Run, find_runs

SENT, BEFORE, FAILED, LATER, NONE = "sent", "sent before", "failed", "later", "none"
CUT = "the file ends with an incomplete record"
"""Words of W&B's client about a file that was cut short, after it has sent the rest"""
PATIENCE = {f"WANDB__{what}_RETRY_MAX": "3" for what in ("GRAPHQL", "FILE_STREAM", "FILE_TRANSFER")}
PATIENCE |= {"WANDB_HTTP_TIMEOUT": str(wandb_server.SECONDS)}
"""Variables for W&B's client, which would otherwise try again for hours"""


class Outcome(NamedTuple):
    """The outcome of a run: one of the words above, and its address or the reason."""

    word: str
    text: str


def wandb_files(run: Run) -> list[Path]:
    """Return the files of a run's offline W&B run, one for each start, the oldest first."""
    return sorted(file for file in run.folder.glob("wandb/offline-run-*/*.wandb") if file.stat().st_size)


def sent_mark(file: Path) -> Path:
    """Return the mark that the client leaves beside a file once all of it is sent."""
    return file.with_name(f"{file.name}.synced")


def is_sent(file: Path) -> bool:
    return sent_mark(file).exists()


def outcome_without_sending(run: Run) -> Outcome | None:
    """Return the outcome of a run that has nothing to send now; None if it has something."""
    try:
        return _nothing_to_send(run)
    except UserError as error:  # one of its files is damaged
        return Outcome(FAILED, str(error))


def _nothing_to_send(run: Run) -> Outcome | None:
    known = wandb_files(run)
    if not run.identity:
        return Outcome(LATER, "not begun")
    waiting = mirror.added(run)
    if not known and not waiting:
        online = any(run.folder.glob("wandb/run-*"))
        return Outcome(BEFORE, "as it went") if online else Outcome(NONE, f"logger={run.config['logger']['name']}")
    if all(map(is_sent, known)) and not waiting:
        return Outcome(BEFORE, "")
    try:
        if own := files.lock(run.folder):
            own.close()
    except BlockingIOError:  # sent now, it would count as sent, and its end would be missing
        return Outcome(LATER, "it is being trained: sync it when that has ended")
    return None


def send(run: Run, minutes: float) -> Outcome:
    """Send the starts of a run that are not sent yet, one after the other, up to the first that fails.

    Args:
        minutes: limit for one start.
    """
    cut, address = "", ""
    for file in wandb_files(run):
        if is_sent(file):
            continue
        try:
            output = _run_client(file, run.folder, minutes)
        except subprocess.TimeoutExpired:
            return Outcome(FAILED, f"not through after {minutes:g} minutes: --minutes gives it more")
        if CUT in output:  # as far as it goes it is sent, and a second time it would be there twice
            sent_mark(file).touch()
            cut = " (a file of its ends in the middle of a record: the machine stopped while it was written)"
        elif not is_sent(file):
            reasons = re.findall(r"(?:ERROR|Error:) (.*)", output)
            return Outcome(FAILED, "; ".join(dict.fromkeys(reasons)) or f"W&B's client gave no reason for {file}")
        found = re.search(r"View run .* at (\S+)", output)
        address = found[1] if found else address
    return Outcome(SENT, address + cut)


def _run_client(file: Path, folder: Path, minutes: float) -> str:
    """Let W&B's client send a file; return what it printed. Its mark shows success, its exit code does not.

    Raises:
        TimeoutExpired: it took longer than so many minutes, and was stopped.
    """
    quiet = ("WANDB_MODE", "WANDB_SILENT", "WANDB_QUIET")  # they would keep it from sending, or from saying why not
    env = {key: value for key, value in os.environ.items() if key not in quiet}
    return subprocess.run(
        [sys.executable, "-m", "wandb", "sync", str(file.absolute())],
        env=PATIENCE | env | {"WANDB_DIR": str(folder.absolute())},  # where it keeps a log of its own
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=60 * minutes,
    ).stdout


def sync(folders: list[Path], jobs: int, minutes: float = 10) -> Iterator[tuple[Run, Outcome]]:
    """Send the runs of folders, `jobs` at a time. Yield each as soon as it is done.

    Args:
        minutes: limit for each start of a run.
    Raises:
        UserError: no run, none with a W&B run, no key, or no proper answer from the server. Nothing is sent then.
    """
    found = {run.folder.resolve(): run for folder in folders for run in find_runs(folder)}
    known = [(run, outcome_without_sending(run)) for run in found.values()]
    if all(outcome and outcome.word == NONE for _, outcome in known):
        raise ConfigError(
            f"no run in {', '.join(map(str, folders))} has a W&B run to send: they were trained with "
            + " and ".join(dict.fromkeys(outcome.text for _, outcome in known if outcome))
        )
    ready = [run for run, outcome in known if outcome is None]
    if ready:
        wandb_server.require("sync")
        print(f"sending {len(ready)} runs to {wandb_server.address()}, {jobs} at a time", file=sys.stderr)
    yield from ((run, outcome) for run, outcome in known if outcome)
    with ThreadPoolExecutor(jobs) as pool:
        sending = {pool.submit(send, run, minutes): run for run in ready}
        try:
            for future in as_completed(sending):
                yield sending[future], _send_added(sending[future], future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _send_added(run: Run, outcome: Outcome) -> Outcome:
    """Send what was added to a run after its training, if the training itself has been sent."""
    if outcome.word == FAILED or not mirror.added(run):
        return outcome
    try:
        address = mirror.send_added(run)
        return Outcome(SENT, outcome.text or address)
    except UserError as error:
        return Outcome(FAILED, str(error))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m alexnet_pl.sync", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="runs, or folders of runs such as runs/figure1"
    )
    parser.add_argument(
        "--jobs", type=int, default=4, metavar="N", help="runs to send at a time (default: %(default)s)"
    )
    minutes = "minutes that each start of a run may take (default: %(default)s)"
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help=minutes)
    return parser


def main() -> None:
    """Run the command. Exit code 0: all that can be sent was sent; 1: a mistake, or runs not sent, with reasons."""
    start_command()
    parser = make_parser()
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error("--jobs must be at least 1")
    if not 0 < args.minutes < 10_000:
        parser.error("--minutes must be above 0, and at most a week")
    console = make_console()
    counts: Counter[str] = Counter()
    with exit_on_error(", ".join(map(str, args.folders))):
        total = sum(len(find_runs(folder)) for folder in args.folders)
        with Meter("sync", total, console, transient=True) as meter:
            for run, outcome in sync(args.folders, args.jobs, args.minutes):
                counts[outcome.word] += 1
                meter.advance(1)
                text = f": {outcome.text}" if outcome.text else ""
                console.print(visible(f"{outcome.word:11}  {run.folder.name}{text}"))
        others = ", ".join(f"{n} {word}" for word, n in counts.items() if word != SENT)
        print(f"{counts[SENT]} of {counts.total()} runs sent" + (f" ({others})" if others else ""))
        if counts[FAILED]:
            raise UserError("some runs were not sent: the same command tries those again and skips the others")


if __name__ == "__main__":
    main()
