"""Every script here, one after the other, in one table; exit code 1 where a ratio is below its bar.

    python bench/all.py                          under ten minutes on two cores
    python bench/all.py --only lrn loop          some of them
    python bench/all.py --device cuda            what a GPU does: lrn, step, data and epoch

The table is in Markdown, with the machine, the versions and the commit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ratios

from alexnet_pl.runs import provenance

SCRIPTS = ["lrn", "counts", "step", "data", "loop", "layouts", "epoch", "start", "scale"]
ON_GPUS = ["lrn", "step", "data", "epoch"]


def table(rows: list[ratios.Row]) -> str:
    """In Markdown."""
    lines = ["| | median | range | bar |", "|---|---|---|---|"]
    for row in rows:
        bar = "" if row.bar is None else f"{row.bar:g}{'' if row.holds else ': FAILS'}"
        unit = "" if row.unit == "times as fast" else f" {row.unit}"
        lines.append(f"| {row.what} | {row.median:.2f}{unit} | {row.low:.2f} to {row.high:.2f} | {bar} |")
    return "\n".join(lines)


def run(script: str, device: str) -> list[ratios.Row]:
    """The rows of one script, which prints what it has to say besides."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.json"
        command = [sys.executable, str(Path(__file__).with_name(f"{script}.py")), "--json", str(file)]
        subprocess.run([*command, *(["--device", device] if script in ON_GPUS else [])], check=True)
        return [ratios.Row(**row) for row in json.loads(file.read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS)
    given = parser.parse_args()
    began = time.perf_counter()
    rows: list[ratios.Row] = []
    for script in given.only or (SCRIPTS if given.device == "cpu" else ON_GPUS):
        print(f"\n{script}.py", flush=True)
        rows += run(script, given.device)
    versions, state = provenance.versions(), provenance.git_state()
    commit = state.get("commit", "of no checkout")[:7] + ("-dirty" if state.get("dirty") else "")
    packages = ", ".join(f"{name} {versions[name]}" for name in ("python", "torch", "pytorch-lightning"))
    print(f"\n{ratios.machine(given.device)}, {packages}, commit {commit}, {time.perf_counter() - began:.0f} s\n")
    print(table(rows))
    if failing := [row for row in rows if not row.holds]:
        sys.exit("\nbelow the bar:\n" + "\n".join(map(str, failing)))


if __name__ == "__main__":
    main()
