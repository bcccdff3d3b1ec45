"""What a GPU is to tell, the most important first, as one Markdown table; `bench/gpu_day.sh` starts it.

    python bench/gpu_day.py --cifar10 DIR     under ten minutes on a GPU; without DIR, on generated images
    python bench/gpu_day.py --dry             the same on a CPU with nets of a few kernels, as far as it can

Needs no network and no W&B. Each part has a time limit of its own; one that fails or runs out of time says so in the
table, and the others go on. Runs, output and the table, table.md, are in the folder of --out.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ratios
import torch

import alexnet_pl
from alexnet_pl.config.schema import as_dict
from alexnet_pl.data.store import Plan, Shard, Store, measure_shard
from alexnet_pl.files import ROOT
from alexnet_pl.parallel.layouts import Layout, rank_variables
from alexnet_pl.runs import provenance
from alexnet_pl.runs.run import Run, find_runs

TRAIN = ["-m", "alexnet_pl.train", "logger=csv"]
TINY = "model.widths={conv1: 4, conv2: 4, conv3: 4, conv4: 4, conv5: 4, fc6: 8, fc7: 8}"
ONE_RANK = "import sys; from alexnet_pl.parallel import layouts; kind = sys.argv.pop(1); "
ONE_RANK += "layouts.layout = lambda trainer: layouts.Layout(kind); from alexnet_pl.training import fit; fit.main()"
"""A layout of several devices on one: NCCL, exchanges and checkpoints, with nobody to talk to"""

Rows = list[tuple[str, str]]


class Failed(Exception):
    """A part cannot go on: why."""


class Part(NamedTuple):
    name: str
    seconds: int
    do: Callable[[Day], Rows]


class Day:
    """Runs commands within the time of a part, in the folder of the results."""

    def __init__(self, out: Path, dry: bool, cifar10: Path | None) -> None:
        self.out, self.dry, self.cifar10 = out, dry, cifar10
        self.device = "cpu" if dry else "cuda"
        self.trainer = ["trainer=cpu"] if dry else ["trainer=gpu"]
        self.deadline = 0.0

    def start(self, *words: object, **variables: str) -> subprocess.Popen[str]:
        command = [sys.executable, *map(str, words)]
        print(" ".join(command), flush=True)
        return subprocess.Popen(
            command,
            cwd=self.out,
            env=os.environ | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, process: subprocess.Popen[str], code: int = 0) -> str:
        """Return what a command printed.

        Raises:
            Failed: it ended with another code, or the time is over.
        """
        try:
            out, _ = process.communicate(timeout=max(1.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired as error:
            process.kill()
            process.communicate()
            raise Failed("out of time") from error
        with (self.out / "output.txt").open("a") as file:
            print(*process.args, out, sep="\n", file=file)  # type: ignore[misc]
        if process.returncode != code:
            raise Failed(f"exit code {process.returncode}: {(out.strip().splitlines() or ['no word'])[-1]}")
        return out

    def run(self, *words: object, **variables: str) -> str:
        """Return what a command printed, once it has ended well."""
        return self.wait(self.start(*words, **variables))

    def train(self, name: str, *words: str) -> Run:
        """Train as the command does; return the run."""
        self.run(*TRAIN, *self.trainer, f"name={name}", *words)
        return find_runs(self.out / "runs" / name)[0]

    def bench(self, script: str, *words: object) -> str:
        return self.run(ROOT / "bench" / script, *words)


def speed(run: Run) -> str:
    """Of the last epoch."""
    row = [row for row in run.metrics if "train/epoch_error" in row][-1]
    return f"{row['images_per_second']:,.0f} images/s, waiting for images {row['data_wait']:.1%}"


# ------------------------------------------------------------------------------------------------ parts, in their order
def steps(day: Day) -> Rows:
    rows: Rows = []
    for size, count in ((2, 1),) if day.dry else ((128, 20), (1024, 5)):
        few = ["--device", day.device, "--batch-size", size, "--steps", count, "--rounds", 1 if day.dry else 3]
        for rate, what in re.findall(r"^ *([\d,.]+) images/s  (.*)$", day.bench("step.py", *few), re.MULTILINE):
            rows.append((f"step of {size}: {what}", f"{rate} images/s"))
    return rows


def gpu_tests(day: Day) -> Rows:
    chosen = [ROOT / "tests" / file for file in ("model/test_lrn.py", "training/test_optim.py", "data/test_loader.py")]
    if day.dry:
        return [("pytest -m gpu", "needs a GPU")]
    out = day.run("-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *chosen)
    return [("pytest -m gpu", out.strip().splitlines()[-1])]


def figure1(day: Day) -> Rows:
    rows: Rows = []
    data = [f"data.root={day.cifar10}", "data=cifar10"] if day.cifar10 else []
    few = ["trainer.limit_train_batches=4", "model.width=0.25", "trainer.max_epochs=1"] if day.dry else []
    for precision in ("32-true", "bf16-mixed"):
        words = [f"trainer.precision={precision}", "trainer.max_epochs=4", *few]
        run = day.train(f"figure1_{precision}", "experiment=figure1", *data, *words)
        rows.append((f"Figure 1's net, {precision}", f"{speed(run)}; {run.done['seconds']} s in all"))
    return rows


def store_words(day: Day) -> list[str]:
    """AlexNet on a store, which is made where there is none."""
    if not (day.out / "store" / "store.json").is_file():
        make_store(day.out / "store", *((64, 72) if day.dry else (40_960, 256)))
    common = ["experiment=alexnet", "data=imagenet", f"data.root={day.out / 'store'}"]
    common += ["trainer.limit_val_batches=0", "trainer.enable_checkpointing=false", "test_views=0", "optim=sgd_2012"]
    common += ["optim.lr=0.001", "stuck_after_steps=0", "train_error_window=4096"]
    if day.dry:
        common += [TINY, "model.input_size=67", "data.crop_size=67"]
    return common


def from_a_store(day: Day) -> Rows:
    common, rows = [*store_words(day), "trainer.max_epochs=1"], list[tuple[str, str]]()
    for name, size, *words in (
        ("a store", 128, "trainer.precision=bf16-mixed"),
        ("a store, large batches", 1024, "trainer.precision=bf16-mixed"),
        ("a store, cuDNN's fastest", 128, "trainer.precision=bf16-mixed", "trainer.benchmark=true"),
        ("a store, fp32", 128, "trainer.precision=32-true"),
        ("a store in the GPU's memory", 128, "trainer.precision=bf16-mixed"),
    ):
        size, place = 16 if day.dry else size, "always" if "memory" in name else "never"
        words += [f"data.batch_size={size}", f"data.on_device={place}"]
        run = day.train(re.sub(r"\W+", "_", name), *common, *words)
        rows.append((f"AlexNet through the command, batches of {size} from {name}", speed(run)))
    return rows


def compiled(day: Day) -> Rows:
    """The second epoch: the first one waits for the compiler."""
    words = ["trainer.max_epochs=2", "trainer.precision=bf16-mixed", "data.on_device=always", "model.compile_net=true"]
    run = day.train("compiled", *store_words(day), f"data.batch_size={16 if day.dry else 128}", *words)
    return [("AlexNet from a store in the GPU's memory, the net compiled", speed(run))]


SMALL = ["experiment=alexnet", "optim=sgd_2012", "optim.lr=0.001", "data.resize=72", "model.input_size=67"]
SMALL += ["data.crop_size=67", "test_views=0", "train_error_window=640", "stuck_after_steps=0"]


def resumed(day: Day) -> Rows:
    """Whether two runs are the same to the bit, and one that was stopped and continued."""
    words = [*SMALL, *([TINY, "trainer.limit_train_batches=12"] if day.dry else ["model.width=0.25"])]
    words += ["data.batch_size=64", "trainer.max_epochs=3", "trainer.limit_val_batches=1"]
    runs = [day.train("whole", *words), day.train("again", *words)]
    cut = day.start(*TRAIN, *day.trainer, "name=cut", *words)
    while not list(day.out.glob("runs/cut/*/checkpoints/last.ckpt")) and cut.poll() is None:
        if time.monotonic() > day.deadline:
            break
        time.sleep(0.02)
    cut.send_signal(signal.SIGTERM)
    day.wait(cut, 128 + signal.SIGTERM)
    runs.append(day.train("cut", *words))
    first, *others = (torch.load(run.last, map_location="cpu", weights_only=True)["state_dict"] for run in runs)
    rows: Rows = []
    for what, other in zip(("the same run again", "stopped and continued"), others, strict=True):
        most = max(float((other[name] - weight).abs().max()) for name, weight in first.items())
        rows.append((what, "the same bits" if most == 0 else f"weights differ by {most:.2g} at most"))
    return rows


def layouts_on_one(day: Day) -> Rows:
    rows: Rows = []
    for kind in ("ddp", "towers", "owt"):
        run = Run(day.out / "runs" / f"one_rank_{kind}")
        words = [*SMALL, *([TINY] if day.dry else []), "data.batch_size=64", "trainer.max_epochs=1", "model.towers=1"]
        words += ["trainer.limit_train_batches=8", "trainer.limit_val_batches=1", *day.trainer]
        run.start(as_dict(alexnet_pl.compose("logger=csv", *words)), [])
        run.release()
        alone = rank_variables(Layout(kind), 0, 0, 0, "127.0.0.1", 29_517)
        day.run("-c", ONE_RANK, kind, run.folder, **alone)
        rows.append((f"{kind} with one process", f"done, validation error {run.done['metrics']['val/error']:.3f}"))
    return rows


def the_rest(day: Day) -> Rows:
    few = ["--rounds", 1, "--steps", 1] if day.dry else ["--rounds", 3, "--steps", 20]
    out = day.bench("lrn.py", "--device", day.device, "--dtype", "bfloat16", *few)
    rows = [(what, f"{ms} ms") for ms, what in re.findall(r"^ *([\d.]+) ms, keeps [\d.]+  (.*)$", out, re.MULTILINE)]
    shown = day.run(
        "-m", "alexnet_pl.evaluate", find_runs(day.out / "runs" / "whole")[0].folder, "--device", day.device
    )
    rows.append(("evaluate", shown.strip().splitlines()[0]))
    small = [*SMALL, TINY] if day.dry else ["experiment=alexnet"]
    estimated = day.run("-m", "alexnet_pl.estimate", *small, *day.trainer)
    return [*rows, ("estimate", estimated.strip().splitlines()[0])]


PARTS = [
    Part("The step", 120, steps),
    Part("Tests", 60, gpu_tests),
    Part("Figure 1", 50, figure1),
    Part("From a store", 120, from_a_store),
    Part("The same bits", 70, resumed),
    Part("Layouts", 50, layouts_on_one),
    Part("The rest", 60, the_rest),
    Part("Compiled", 70, compiled),
]
"""600 seconds at most"""


def make_store(root: Path, count: int, size: int) -> None:
    """Write a raw store of random pictures, of which a few are written again and again: only the bytes' way matters."""
    root.mkdir(parents=True, exist_ok=True)
    plan, cell = Plan("random", "random", f"{count}", size, "raw", None), size * size * 3
    some = np.random.default_rng(1).integers(0, 256, (64, cell), dtype=np.uint8).tobytes()
    np.save(root / "mean.npy", np.full((size, size, 3), 127.5))
    parts, images = dict[str, list[Shard]](), {"train": count, "val": 64}
    for split, n in images.items():
        path = root / plan.file(split, 0)
        with path.open("wb") as file:
            for _ in range(0, n, 64):
                file.write(some)
        row = np.arange(n)
        columns = {"name": row.astype(str), "label": row % 1000, "part": 0 * row, "offset": row * cell}
        pq.write_table(pa.table(columns | {"bytes": np.full(n, cell)}), root / f"{split}.parquet")
        parts[split] = [Shard(path.name, path.stat().st_size, "")]
    others = [measure_shard(root / name) for name in ("mean.npy", "train.parquet", "val.parquet")]
    colors = {"vectors": np.eye(3).tolist(), "std": [100.0, 30.0, 15.0]}
    Store(root, plan, [f"c{i}" for i in range(1000)], images, {"train": 0, "val": 0}, parts, others, colors).write()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="on a CPU, with nets of a few kernels")
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10, for Figure 1")
    parser.add_argument("--out", type=Path, default=Path("gpu_day"), help="folder of the results (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], help="some of the parts")
    given = parser.parse_args()
    if not given.dry and not torch.cuda.is_available():
        sys.exit("no CUDA GPU is here: --dry goes as far as a CPU can")
    given.out.mkdir(parents=True, exist_ok=True)
    day = Day(given.out.resolve(), given.dry, given.cifar10 and given.cifar10.resolve())
    versions, state = provenance.versions(), provenance.git_state()
    commit = state.get("commit", "of no checkout")[:7] + ("-dirty" if state.get("dirty") else "")
    lines = [f"{ratios.machine(day.device)}, pytorch-lightning {versions['pytorch-lightning']}, commit {commit}", ""]
    lines += ["| part | what | |", "|---|---|---|"]
    for part in PARTS:
        if given.only and part.name not in given.only:
            continue
        began = time.monotonic()
        day.deadline = began + part.seconds * (4 if given.dry else 1)
        try:
            rows = part.do(day)
        except Failed as error:
            rows = [("FAILED", str(error))]
        rows = [*rows, ("seconds", f"{time.monotonic() - began:.0f}")]
        lines += [f"| {part.name} | {what} | {value} |" for what, value in rows]
        (day.out / "table.md").write_text("\n".join(lines) + "\n")  # what is known, should the rest not end
    print("\n" + "\n".join(lines))
    if any("| FAILED |" in line for line in lines):
        sys.exit(1)


if __name__ == "__main__":
    main()
