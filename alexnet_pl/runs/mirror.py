"""The W&B run of a run folder: started with it, and resumed under the same id for later additions.

If a run was trained offline, or W&B did not take an addition, the addition waits in `wandb/added.json` of its folder
until `sync` sends it. So a run that is trained once has one folder of W&B's.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from alexnet_pl import files
from alexnet_pl.errors import UserError
from alexnet_pl.runs import wandb_server
from alexnet_pl.runs.naming import WANDB_TAG, artifact_name, cut, run_group
from alexnet_pl.runs.run import Run

BY_EPOCH = ("train/*", "train_eval/*", "val/*", "test/*", "target/*")
"""Metrics that W&B draws against the epoch"""
SYNC = "python -m alexnet_pl.sync"


def wandb_group(config: dict[str, Any]) -> str:
    """Return the W&B group of a run's configuration, which is that of its sweep."""
    return cut(run_group(config["name"], config["scale"]))


def start(run: Run, mode: str, folder: Path | None = None) -> Any:
    """Start or resume the W&B run of a run; return wandb's Run.

    Args:
        mode: online or offline.
        folder: folder for W&B's files; None: the run's folder.
    """
    import wandb

    cfg = run.config
    logger, tags = cfg["logger"], [cfg["name"], cfg["data"]["name"], cfg["model"]["name"]]
    # Without limits, a server that does not answer delays the start by 90 s, and the end for ever.
    patience = 30 if logger["log_model"] == "none" else 600  # a checkpoint takes longer to send
    try:
        experiment = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            dir=folder or run.folder,
            id=run.identity["id"],
            resume="allow",
            name=cut(run.folder.name),
            project=logger["project"],
            entity=logger["entity"],
            group=wandb_group(cfg),
            job_type="train",
            tags=[*(cut(tag, WANDB_TAG) for tag in tags), *logger["tags"]],
            config=cfg,
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=20, finish_timeout=patience, finish_timeout_raises=True
            ),
        )
    except Exception:
        wandb.teardown()  # it would hold on to the run's id
        raise
    for metric in (*BY_EPOCH, "images_seen", "images_per_second", "data_wait"):
        experiment.define_metric(metric, step_metric="epoch")
    return experiment


# ------------------------------------------------------------------------------------------------ a checkpoint


def keep_checkpoint(run: Run, which: str, done: dict[str, Any]) -> None:
    """Log a run's checkpoint to its open W&B run, as an artifact: a run folder with this one checkpoint.

    Args:
        which: last or best; also an alias of the artifact.
        done: the coming content of the run's done mark.
    """
    import wandb

    cfg = run.config
    artifact = wandb.Artifact(artifact_name(run_group(cfg["name"], cfg["scale"]), run.folder.name), type="model")
    for name in ("config.yaml", "run.json", "metrics.csv"):
        artifact.add_file(str(run.folder / name), name)
    kept = f"checkpoints/{which}.ckpt"
    artifact.add_file(str(run.folder / kept), kept, skip_cache=True, policy="immutable")  # copied nowhere
    with artifact.new_file("done.json") as file:
        json.dump(done, file)
    wandb.log_artifact(artifact, aliases=["latest", which])


# ------------------------------------------------------------------------------------------------ what comes later


def attach_results(run: Run, summary: dict[str, float], images: dict[str, Path]) -> None:
    """Add values and images to the W&B run of a finished run: at once if it was online, else by the next `sync`.

    Do nothing for a run that is not done, or that has no W&B run.

    Args:
        summary: values to put beside the run's last metrics, {"evaluate/10-probabilities/error": 0.4}.
        images: PNG files by their keys; `kernels` and `predictions` have panels in the report's workspace.
    """
    if not run.done or not any(run.folder.glob("wandb/*run-*")):
        return
    waiting = added(run)
    for key, path in images.items():
        with files.atomic_path(_image(run, key)) as part:
            shutil.copyfile(path, part)
    keys = sorted({*waiting.get("images", []), *images})
    finite = {key: value for key, value in summary.items() if math.isfinite(value)}
    waiting = {"summary": waiting.get("summary", {}) | finite, "images": keys}
    files.write(_added_file(run), json.dumps(waiting, indent=1))
    if run.config["logger"]["mode"] == "online":
        try:
            send_added(run)
        except UserError as error:
            print(f"{error}; its folder has them: {SYNC} {run.folder} sends them", file=sys.stderr)


def added(run: Run) -> dict[str, Any]:
    """Return the additions to a run that W&B does not have yet, {"summary": {}, "images": [key]}; empty if none."""
    return files.read_json(_added_file(run), {"summary": {}, "images": [str]}, "remove it, and add the results again")


def send_added(run: Run) -> str:
    """Send the additions to a run; return the address of its W&B run.

    Raises:
        UserError: W&B did not take them. They wait for the next time.
    """
    import wandb

    waiting = added(run)
    failure = f"W&B did not take what was added to {run.folder.name}"
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder, wandb_server.translated(failure):
        experiment = start(run, "online", Path(folder))
        experiment.summary.update(waiting["summary"])
        if waiting["images"]:
            experiment.log({key: wandb.Image(str(_image(run, key))) for key in waiting["images"]})
        experiment.finish(exit_code=0)
    if added(run) == waiting:  # else more has come meanwhile
        _added_file(run).unlink()
    return str(experiment.url)


def _added_file(run: Run) -> Path:
    return run.folder / "wandb" / "added.json"


def _image(run: Run, key: str) -> Path:
    return run.folder / "wandb" / f"added-{key}.png"
