"""The runs of a folder as a saved workspace of W&B: curves, bars and tables that are there to be opened and changed.

The address of the workspace is kept in the folder, in wandb_workspace.json, so that the next call updates it; sections
that were added in the browser stay.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alexnet_pl import checks, files, runs
from alexnet_pl.errors import ConfigError, UserError

MEDIA = {"kernels": "first-layer kernels", "predictions": "predictions"}
"""Keys under which `logger.attach` logs pictures, and their panels' titles"""


def publish(folder: Path, project: str, send: bool = True) -> str:
    """Build the workspace of a folder's runs, save it with W&B, and write it to wandb_workspace.json in the folder.

    Args:
        project: where the runs were sent, ENTITY/PROJECT.
        send: save it with W&B; else it is only written to the file, without a key or a network.

    Returns:
        The workspace's address; without `send`, the path of the file.

    Raises:
        UserError: no run, no such project, no key, or W&B did not take it.
    """
    entity, slash, name = project.partition("/")
    if not (entity and slash and name) or "/" in name:
        raise ConfigError(f"--wandb {project} is not ENTITY/PROJECT, such as ada/alexnet_pl")
    path = folder / "wandb_workspace.json"
    workspace = build(folder, entity, name)
    kept = files.read_json(path)
    address = kept.get("address", "") if (kept.get("entity"), kept.get("project")) == (entity, name) else ""
    if send:
        checks.needs_wandb_key("--wandb")
        try:
            address = _save(workspace, address)
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"W&B did not take the workspace ({reason}): is {project} the project that the runs were sent to?"
            ) from error
    spec = workspace._to_model().spec.model_dump(by_alias=True, mode="json", exclude_none=True)  # what save() sends
    view = {"entity": entity, "project": name, "name": workspace.name, "address": address, "spec": spec}
    files.write(path, json.dumps(view, indent=1))
    return address if send else str(path)


def _save(workspace: Any, address: str) -> str:
    """Save a workspace, in the place of the one at an address if there still is one."""
    import wandb_workspaces.workspaces as ws

    try:
        there = ws.Workspace.from_url(address) if address else None
    except ValueError:  # it was deleted
        there = None
    if there:
        own = {section.name for section in workspace.sections}
        there.sections = workspace.sections + [section for section in there.sections if section.name not in own]
        there.name, there.settings, there.runset_settings = (
            workspace.name,
            workspace.settings,
            workspace.runset_settings,
        )
    return str((there or workspace).save().url)


def build(folder: Path, entity: str, project: str) -> Any:
    """The workspace (wandb_workspaces' Workspace) of a folder's runs; asks no one.

    Lines are means over the runs that share the compared key's value (`figure.compare`), bands go from the lowest to
    the highest. Where the runs form several panels (`figure.panel`), the table of runs is grouped by panel and key,
    and the plots follow it, since a plot of its own can be grouped by one key only.

    Raises:
        ConfigError: no run, or none that has begun.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    begun = [run for run in runs.find(folder) if run.identity]
    if not begun:
        raise ConfigError(f"no run in {folder} has begun: there is nothing to show")
    configs = [run.config for run in begun]
    figures = [config["figure"] for config in configs]
    compared = list(dict.fromkeys(figure["compare"] for figure in figures))
    panels = list(dict.fromkeys(figure["panel"] for figure in figures))
    keys = (["figure.panel"] if len(panels) > 1 else []) + compared
    logged = {key for run in begun for row in run.metrics for key in row}
    grouping: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax"}
    if len(keys) == 1:
        grouping["groupby"] = wr.Config(keys[0])
    else:
        grouping["aggregate"] = True  # as the table of runs is grouped

    def line(key: str, title: str, *more: str) -> wr.LinePlot:
        axes = {"x": "epoch", "title_x": "epoch", "title_y": "error", "range_y": (0, None)}
        return wr.LinePlot(title=title, y=[key, *more], smoothing_factor=0, **axes, **grouping)

    targets = list(dict.fromkeys(figure["target"] for figure in figures if figure["target"] is not None))
    timed = f" (to cross: {', '.join(f'{100 * target:g} %' for target in targets)})" if targets else ""
    curves = [line("train/error", "training error" + timed, *["target/error"] * bool(targets))]
    for key, title in {"val/error": "validation error", "val/top5_error": "validation top-5 error"}.items():
        if key in logged:
            curves.append(line(key, title))
    bars = wr.BarPlot(title="validation error at the end", metrics=["val/error"], range_x=(0, None), **grouping)
    column = wr.ParallelCoordinatesPlotColumn
    axes = [column(metric=wr.Config(key)) for key in swept(configs) if key != "optim.lr"]
    axes += [column(metric=wr.Config("optim.lr"), log=True), column(metric=wr.SummaryMetric("val/error"))]
    across = wr.ParallelCoordinatesPlot(title="what was varied, and the validation error", columns=axes)
    media = [wr.MediaBrowser(title=title, media_keys=[key]) for key, title in MEDIA.items()]
    differences, wide = wr.RunComparer(diff_only="split"), ws.SectionLayoutSettings(columns=1, rows=2)
    return ws.Workspace(
        entity=entity,
        project=project,
        name=folder.resolve().name,
        sections=[
            ws.Section(name="Curves", panels=curves, is_open=True),
            ws.Section(name="Results", panels=[bars, across], is_open=True),
            ws.Section(name="Pictures", panels=media, is_open=True),
            ws.Section(name="Differences", panels=[differences], is_open=True, layout_settings=wide),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=max(10, len(begun))),
        runset_settings=ws.RunsetSettings(
            filters=ws.Or(*(ws.Metric("Group") == group for group in sorted({config["name"] for config in configs}))),
            groupby=[ws.Config(key) for key in keys],
        ),
    )


def swept(configs: list[dict[str, Any]]) -> list[str]:
    """The keys with single values in which runs differ, left out the seed and where and how they are recorded."""
    flat = [runs.flatten(config) for config in configs]
    differing = {key: 0 for config in configs[1:] for key in runs.differences(configs[0], config)}
    single = [key for key in differing if all(isinstance(one.get(key), int | float | str) for one in flat)]
    return [key for key in single if key != "seed"]
