"""A run folder: its files, and how to write and read them.

    runs/<name>/<overrides>/
        config.yaml     the whole resolved configuration
        run.json        identity: W&B id, overrides, versions, git commit, seed, start
        metrics.csv     one row per window of training images and per epoch
        train.log       a line per epoch, and warnings
        checkpoints/    last.ckpt, best.ckpt
        done.json       the done mark with the final metrics; or failed.json with the reason
    runs/<name>/sweep.json   the jobs a sweep asked for, started or not

The folder is the truth: resuming, skipping and reporting read nothing else. Files are written under another name and
then renamed, so each is whole or missing.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from omegaconf import OmegaConf

from alexnet_pl.errors import ConfigError, InUse, TrainingError, UserError
from alexnet_pl.files import expand, lock, read_json, write
from alexnet_pl.runs import artifacts, provenance
from alexnet_pl.runs.config import REMOVE_RUN, read_config
from alexnet_pl.runs.metrics import read_rows, write_rows
from alexnet_pl.runs.naming import config_differences
from alexnet_pl.runs.sweep import read_sweep

CHECKPOINT_NAMES = ["last", "best"]
"""A run's checkpoints by name: after its last epoch, and after the epoch with the lowest validation error"""
JOB_VARIABLE, JOBS_VARIABLE = "ALEXNET_PL_JOB", "ALEXNET_PL_JOBS"
"""Environment variables of a job in a sweep: its place, `3 of 8`, and the number of jobs."""


# ------------------------------------------------------------------------------------------------ writing a run
@dataclass
class Run:
    """One run folder."""

    folder: Path
    lock: TextIO | None = None
    id: str = ""
    """of the run that this process has claimed the folder for"""

    @property
    def last(self) -> Path:
        """The checkpoint to continue from."""
        return self.folder / "checkpoints" / "last.ckpt"

    def start(self, config: dict[str, Any], overrides: list[str]) -> None:
        """Claim the folder: write config.yaml and run.json, or continue the run that they describe.

        Raises:
            ConfigError: the folder cannot be written, is in use, or holds a run with another configuration.
        """
        try:
            self.refuse_another(config)
            self.last.parent.mkdir(parents=True, exist_ok=True)
            self._lock()
            identity = self.identity
            if identity:  # what goes on from here may be other code, on another machine
                identity.setdefault("continued", []).append(_session())
                identity["id"] = _given_id() or identity["id"]
            else:
                identity = _identity(config, overrides)
            self.record(config)  # first: whoever sees an identity, as another process of the run, reads it next
            write(self.folder / "run.json", json.dumps(identity, indent=1))
            (self.folder / "failed.json").unlink(missing_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the run folder {self.folder} cannot be written: {error.strerror} ({error.filename})"
            ) from error
        self.id = identity["id"]

    def require(self) -> None:
        """Raise TrainingError if the folder was removed, or another run has made it anew."""
        found = self.identity.get("id")
        if not found or found != (self.id or found):
            what = "holds another run by now" if found else "is gone"
            raise TrainingError(f"the run folder {self.folder} {what}: it was removed while the run trained")

    def record(self, config: dict[str, Any]) -> None:
        """Write config.yaml. For a run that exists, only bookkeeping can have changed."""
        write(self.folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))

    def _lock(self) -> None:
        """Lock the folder until this process ends."""
        if self.lock:  # it is ours already
            return
        try:
            self.lock = lock(self.folder)
        except BlockingIOError as error:
            raise InUse(f"another process is training in {self.folder}: wait for it, or stop it") from error

    def release(self) -> None:
        """Unlock the folder; processes that inherited the lock still hold it."""
        if self.lock:
            self.lock.close()
            self.lock = None

    def refuse_another(self, config: dict[str, Any]) -> None:
        """Raise ConfigError if the folder holds a run of another configuration; bookkeeping does not count.

        A config.yaml alone may come from a run that was killed at its start, or from something that is no run.
        """
        begun = self.identity or (self.folder / "config.yaml").exists()
        changed = config_differences(self.config, config) if begun else {}
        if changed:
            said = ", ".join(f"{key} was {old} and is now {new}" for key, (old, new) in changed.items())
            raise ConfigError(
                f"{self.folder} holds a run of another configuration ({said}): give this one a folder of its own "
                f"with name=..., or remove that folder"
            )

    def finish(self, metrics: dict[str, float], seconds: float) -> None:
        """Write the done mark, with the metrics that are finite."""
        self.require()
        kept = {name: value for name, value in metrics.items() if math.isfinite(value)}
        write(self.folder / "done.json", json.dumps({"metrics": kept, "seconds": round(seconds, 1)}, indent=1))

    def fail(self, reason: str) -> None:
        """Write the reason why the run ended early, or print it if it cannot be written. The next start removes it."""
        try:
            if self.id:
                self.require()
            write(self.folder / "failed.json", json.dumps({"reason": reason}, indent=1))
        except (UserError, OSError) as error:  # the folder is gone, or its disk is full
            print(f"no failed.json is left ({error}) of this failure: {reason}", file=sys.stderr, flush=True)

    def rewind(self, images_seen: int, origin: Run) -> None:
        """Drop the rows of metrics.csv from after a checkpoint (0: there was none); training writes them again.

        Args:
            origin: the run that wrote the checkpoint, this one or the one it starts from.
        """
        path = self.folder / "metrics.csv"
        kept = [row for row in origin.metrics if row["images_seen"] <= images_seen]
        rows = [row for row in kept if "test/error" not in row]  # the test at the end comes again as well
        if rows:
            write_rows(path, rows)
        else:
            path.unlink(missing_ok=True)

    # -------------------------------------------------------------------------------------------- reading

    @property
    def identity(self) -> dict[str, Any]:
        """Content of run.json: W&B id, overrides, versions, git, seed, start, machine; empty before the start.

        Raises:
            ConfigError: it is damaged.
        """
        return read_json(self.folder / "run.json", IDENTITY, REMOVE_RUN, needs="id")

    @property
    def config(self) -> dict[str, Any]:
        """Configuration in config.yaml. Keys that are newer than the file have their defaults.

        Raises:
            ConfigError: it is damaged, or another version of this package wrote it.
        """
        return read_config(self.folder / "config.yaml")

    @property
    def done(self) -> dict[str, Any]:
        """Content of the done mark; empty while the run is not done."""
        return read_json(self.folder / "done.json", {"metrics": {}}, REMOVE_MARK, needs="metrics")

    def check(self) -> None:
        """Raise ConfigError if a file is damaged that is needed at the end. Call this before long work."""
        _ = self.identity, self.config, self.done

    @property
    def failure(self) -> str:
        """Reason why the run ended early; empty if it did not, or wrote none."""
        found = read_json(self.folder / "failed.json", {"reason": str}, REMOVE_MARK, needs="reason")
        return str(found.get("reason", ""))

    @property
    def failed_at(self) -> int:
        """Time at which the reason was written, in nanoseconds; 0 if there is none."""
        path = self.folder / "failed.json"
        return path.stat().st_mtime_ns if path.is_file() else 0

    @property
    def status(self) -> str:
        """State of the run: done, failed, unfinished (begun, and neither of those) or missing (never begun)."""
        if self.done:
            return "done"
        if self.failure:
            return "failed"
        return "unfinished" if self.identity else "missing"

    @property
    def metrics(self) -> list[dict[str, float]]:
        """Rows of metrics.csv without empty cells. A last line that a kill cut short is ignored."""
        return read_rows(self.folder / "metrics.csv")


IDENTITY = {
    "id": str, "overrides": [str], "git": {"commit": str}, "versions": {}, "machine": {}, "continued": [{}],
}  # fmt: skip
"""The types of run.json's entries"""
REMOVE_MARK = "remove it, and the run goes on from its last checkpoint"


def _identity(config: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    return {
        "id": _given_id() or secrets.token_hex(4),
        "overrides": overrides,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],  # not its folder: runs are published
        "seed": config["seed"],
        **_session(),
    }


def _given_id() -> str:
    """Return the W&B id that W&B's agent gives to a run of a W&B sweep; the run belongs to the sweep by it."""
    return os.environ.get("WANDB_RUN_ID", "") if "WANDB_SWEEP_ID" in os.environ else ""


def _session() -> dict[str, Any]:
    return {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "git": provenance.git_state(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
    }


# ------------------------------------------------------------------------------------------------ finding runs


def find_runs(folder: Path) -> list[Run]:
    """Return the runs of a folder: itself if it is a run, else those below it and those that its sweep asked for.

    An artifact of W&B is downloaded, and is the folder of a run.

    Raises:
        ConfigError: there is no such folder, no run in it, or its sweep.json is damaged.
    """
    folder = artifacts.fetch(str(folder)) if artifacts.is_artifact(folder) else folder
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder: give a run, or a folder of runs such as runs/figure1")
    if os.path.lexists(folder / "run.json"):
        return [Run(folder)]
    asked = list(read_sweep(folder))
    begun = sorted(path.name for path in folder.iterdir() if os.path.lexists(path / "run.json"))
    names = asked + [name for name in begun if name not in asked]
    if not names:
        raise ConfigError(f"{folder} holds no run: start one with python -m alexnet_pl.train")
    return [Run(folder / name) for name in names]


def find_checkpoint(ckpt_path: str, key: str = "ckpt_path") -> Path:
    """Return the checkpoint that a path names: a file, a run folder, a folder of one run, or an artifact of W&B's.

    Args:
        key: the key or argument that gave the path, for messages.
    Raises:
        ConfigError: there is none, or there are several runs.
    """
    path = expand(ckpt_path)
    if artifacts.is_artifact(path):
        folder = artifacts.fetch(ckpt_path)
        path = min(folder.rglob("*.ckpt"), default=folder)
    if path.is_dir():
        there = find_runs(path)
        if len(there) > 1:
            names = ", ".join(run.folder.name for run in there)
            raise ConfigError(f"{key}={ckpt_path} holds {len(there)} runs: name one of them ({names})")
        path = there[0].last
        if not os.path.lexists(path):
            path = path.with_name("best.ckpt")  # as an artifact may have it alone
    if not os.path.lexists(path):
        raise ConfigError(f"{key}={ckpt_path} is neither a checkpoint nor the folder of a run that has one")
    return path
