"""What the scripts here share: interleaved rounds, medians with their range, and the bars that ratios must hold.

Rounds are interleaved (each runs every way once, in turn), so that a drift of the machine meets all alike. A ratio is
taken within each round; told are the median over the rounds and the range.
"""

from __future__ import annotations

import argparse
import atexit
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch

from alexnet_pl import cpu

Way = TypeVar("Way", bound=Hashable)


@dataclass(frozen=True)
class Row:
    """A measured figure: a ratio of two speeds, or a share."""

    what: str
    median: float
    low: float
    high: float
    unit: str = "times as fast"
    bar: float | None = None  # the least it must be

    @property
    def holds(self) -> bool:
        """Whether it keeps to its bar, if it has one."""
        return self.bar is None or self.median >= self.bar

    def __str__(self) -> str:
        bar = "" if self.bar is None else f"  [bar {self.bar:g}: {'holds' if self.holds else 'FAILS'}]"
        return f"{self.median:6.2f} ({self.low:.2f} to {self.high:.2f}) {self.unit}: {self.what}{bar}"


def arguments(doc: str | None, rounds: int, steps: int) -> argparse.ArgumentParser:
    """The options that every script has."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="rounds that count (%(default)s), after a first")
    parser.add_argument("--steps", type=int, default=steps, help="what each way does in a round (%(default)s times)")
    parser.add_argument("--json", type=Path, help="write the rows there, for bench/all.py")
    return parser


def train(folder: Path, threads: int, *words: str) -> None:
    """Our command, in a folder, to its end."""
    command = [sys.executable, "-m", "alexnet_pl.train", *words]
    env = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)


class Apart:
    """A way in a process of its own, with the memory and the threads that its program would have.

    Args:
        prepare: run in that process, gives what is called there each time.
        precision: of one of our runs, with the environment of a job of a sweep; None for a peer.
    """

    def __init__(self, prepare: Callable[[], Callable[..., Any]], precision: str | None) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        with patch.dict(os.environ):
            if precision:
                os.environ.update(cpu.process_environment(precision))
            self.process = context.Process(target=_serve, args=(other, prepare))
            self.process.start()
        other.close()
        atexit.register(self.pipe.close)  # upon which the process ends

    def __call__(self, *arguments: Any) -> Any:
        self.pipe.send(arguments)
        return self.pipe.recv()


def _serve(pipe: Connection, prepare: Callable[[], Callable[..., Any]]) -> None:
    multiprocessing.set_start_method(None, force=True)  # a loader there starts its own as it would anywhere
    run = prepare()
    while True:
        try:
            arguments = pipe.recv()
        except EOFError:  # the script has ended
            return
        pipe.send(run(*arguments))


def interleaved(ways: Mapping[Way, Callable[[], float]], rounds: int) -> dict[Way, list[float]]:
    """What each way returns in each round; the first round warms up and does not count."""
    values: dict[Way, list[float]] = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, run in ways.items():
            value = run()
            if number:
                values[way].append(value)
    return values


def row(what: str, values: Sequence[float], unit: str = "times as fast", bar: float | None = None) -> Row:
    return Row(what, statistics.median(values), min(values), max(values), unit, bar)


def ratio(ours: Sequence[float], peer: Sequence[float], what: str, bar: float | None = None) -> Row:
    """Of two ways' speeds, round by round."""
    return row(what, [a / b for a, b in zip(ours, peer, strict=True)], bar=bar)


def machine(device: str = "cpu") -> str:
    """Where a figure was measured."""
    where = torch.cuda.get_device_name() if device == "cuda" else cpu.name()
    return f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def print_rows(rows: list[Row], file: Path | None) -> None:
    """Print them, and keep them where asked to."""
    for each in rows:
        print(each)
    if file:
        file.write_text(json.dumps([asdict(each) for each in rows]))
