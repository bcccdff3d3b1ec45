"""Write a model card: a net, its data, its training, its errors, and the code that made it."""

from __future__ import annotations

import json
import shlex
from typing import Any

from alexnet_pl.config.schema import as_dict
from alexnet_pl.errors import visible_line
from alexnet_pl.files import read_json
from alexnet_pl.runs.naming import flatten_config
from alexnet_pl.runs.run import Run
from alexnet_pl.runs.trained import TrainedModel

RECIPE = (
    "model.dropout", "optim.name", "optim.lr", "optim.momentum", "optim.weight_decay", "optim.bias_lr_mult",
    "optim.schedule", "optim.lr_milestones", "optim.lr_factors", "data.batch_size", "data.resize", "data.crop_size",
    "data.random_crop", "data.random_flip", "data.color_noise", "data.pixel_scale", "trainer.max_epochs",
    "trainer.precision", "pretrained", "seed",
)  # fmt: skip
"""Keys in the card that say how a net was trained; config.yaml has all keys"""
ERRORS = {"val": "validation set, centre crop", "test": "validation set, at the end"}


def model_card(net: TrainedModel, weights: str) -> str:
    """Return README.md for a folder with a net: Markdown below a head in YAML, as model hubs expect it.

    Args:
        weights: the name of the file with the net's weights.
    Raises:
        ConfigError: a file of the run is damaged.
    """
    cfg, data = net.cfg, net.cfg.data
    parameters = sum(p.numel() for p in net.net.parameters())
    head = {"library_name": "alexnet_pl", "pipeline_tag": "image-classification", "tags": ["alexnet", cfg.model.name]}
    parts = [
        "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---"]),
        f"# {_code(net.name)}",
        f"AlexNet (Krizhevsky, Sutskever and Hinton, 2012) as {_code(cfg.model.name)}: {parameters:,} parameters, "
        f"{len(net.classes):,} classes, images of {data.input_size} x {data.input_size} pixels.",
        "## Use",
        "```bash\npython -m alexnet_pl.predict FOLDER photographs/   # FOLDER is this one\n```",
        f"`{weights}` holds the weights. `preprocessing.json` says how an image becomes the input, `mean.npy` is the "
        "mean image, and `config.yaml` the whole configuration.",
    ]
    if net.run is None:
        return "\n\n".join([*parts, "No run came with the weights: how they were trained is not known here."]) + "\n"
    recipe = flatten_config(as_dict(cfg))
    rows = [[f"`{key}`", _code(recipe[key])] for key in RECIPE]
    parts += [
        "## Data",
        f"{_code(data.name)}, {data.num_classes:,} classes" + (f", store {_code(data.store)}." if data.store else "."),
        "## Recipe",
        _table(["key", "value"], rows),
        "```bash\n"
        + visible_line(shlex.join(["python", "-m", "alexnet_pl.train", *net.run.identity.get("overrides", [])]))
        + "\n```",
        "## Errors",
        _errors(net.run),
        "## Code",
        _code_table(net.run),
    ]
    return "\n\n".join(parts) + "\n"


def _errors(run: Run) -> str:
    """Return a table of the errors at the end of training, and of each evaluation in the run's folder."""
    done = run.done
    metrics = done.get("metrics", {})
    rows = [
        [what, *(_share(metrics.get(f"{kind}/{error}")) for error in ("error", "top5_error"))]
        for kind, what in ERRORS.items()
        if f"{kind}/error" in metrics
    ]
    for file in sorted(run.folder.glob("evaluation/*/evaluation.json")):
        told = read_json(file)
        what = f"{told.get('split')} split, {told.get('images')} images, {told.get('views')} views"
        rows.append([f"{what} ({_code(file.parent.name)})", _share(told.get("error")), _share(told.get("top5_error"))])
    table = _table(["on", "top-1 error", "top-5 error"], rows) if rows else "None was measured."
    return table if done else f"{table}\n\nTraining was not finished when this was written."


def _code_table(run: Run) -> str:
    identity = run.identity
    git, machine = identity.get("git", {}), identity.get("machine", {})
    commit = git.get("commit", "not known") + (", with changes that were not committed" if git.get("dirty") else "")
    took = f"{run.done.get('seconds')} seconds" if run.done else "not known"
    versions = ", ".join(f"{name} {version}" for name, version in identity.get("versions", {}).items())
    rows = [["commit", commit], ["started", identity.get("started")], ["training took", took], ["versions", versions]]
    return _table(["", ""], [*rows, ["machine", ", ".join(map(str, machine.values()))]])


def _table(heads: list[str], rows: list[list[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(visible_line(cell).replace('|', '/') for cell in line)} |" for line in lines)


def _share(value: Any) -> str:
    return f"{100 * value:.2f} %" if isinstance(value, float) else "-"


def _code(value: Any) -> str:
    """Return a value in backticks, so that Markdown takes no character of it as markup."""
    return f"`{visible_line(value).replace('`', ' ')}`"
