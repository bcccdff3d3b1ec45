"""Save the runs of a folder as a workspace of W&B: curves, bars and tables to open and change there.

The folder keeps the address of the workspace in wandb_workspace.json, so that the next call updates it. Sections that
were added in the browser stay.
"""

from __future__ import annotations

import json
from typing import Any

from alexnet_pl import files
from alexnet_pl.errors import ConfigError
from alexnet_pl.report.compare import Report
from alexnet_pl.runs import wandb_server
from alexnet_pl.runs.mirror import wandb_group
from alexnet_pl.runs.naming import WANDB_NAME, flatten_config

MEDIA = {"kernels": "first-layer kernels", "predictions": "predictions"}
"""Keys of images that `mirror.attach_results` logs -> titles of their panels"""


def split_project(project: str) -> tuple[str, str]:
    """Return the entity and the name of ENTITY/PROJECT; raise ConfigError if it is something else."""
    entity, _, name = project.partition("/")
    if "/" in name or not all(0 < len(part) <= WANDB_NAME for part in (entity, name)):
        raise ConfigError(f"--wandb {project} is not ENTITY/PROJECT, such as ada/alexnet_pl")
    return entity, name


def publish(report: Report, project: str, send: bool = True) -> str:
    """Build the workspace of a report's runs, save it with W&B, and write it to wandb_workspace.json in the folder.

    Args:
        project: the project of the runs, ENTITY/PROJECT.
        send: whether to save it with W&B; if not, it is only written to the file, without a key or a network.

    Returns:
        The workspace's address; without `send`, the path of the file.

    Raises:
        UserError: no such project, no key, or W&B did not take it.
    """
    entity, name = split_project(project)
    path = report.folder / "wandb_workspace.json"
    workspace = build(report, entity, name)
    before = files.read_json(path, {"entity": str, "project": str, "address": str}, "remove it")
    address = before.get("address", "") if (before.get("entity"), before.get("project")) == (entity, name) else ""
    if send:
        wandb_server.require_key("--wandb")
        with wandb_server.translated(f"W&B did not take the workspace in {project}: were the runs sent there?"):
            address = _save(workspace, address)
    spec = workspace._to_model().spec.model_dump(by_alias=True, mode="json", exclude_none=True)  # what save() sends
    view = {"entity": entity, "project": name, "name": workspace.name, "address": address, "spec": spec}
    files.write(path, json.dumps(view, indent=1))
    return address if send else str(path)


def _save(workspace: Any, address: str) -> str:
    """Save a workspace, and replace the one at an address if it still exists."""
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


def build(report: Report, entity: str, project: str) -> Any:
    """Return the workspace (wandb_workspaces' Workspace) of a report's runs; ask no server.

    Its lines are those of the report: means over the runs that differ in their seeds only, with bands from the lowest
    to the highest. A plot can be grouped by one key only. If the lines differ in several, the table of runs is grouped
    by all of them, and the plots follow it.
    """
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    keys = grouping_keys(report)
    logged = {key for run in report.runs for row in run.run.metrics for key in row}
    grouping: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "minmax", "aggregate": len(keys) > 1}
    if len(keys) == 1:
        grouping["groupby"] = wr.Config(keys[0])

    def line(key: str, title: str, *more: str) -> wr.LinePlot:
        axes: dict[str, Any] = {"x": "epoch", "title_x": "epoch", "title_y": "error", "range_y": (0, None)}
        return wr.LinePlot(title=title, y=[key, *more], smoothing_factor=0, **axes, **grouping)

    targets = dict.fromkeys(panel.target for panel in report.panels if panel.target is not None)
    timed = f" (to cross: {', '.join(f'{100 * target:g} %' for target in targets)})" if targets else ""
    curves: list[Any] = [line("train/error", "training error" + timed, *(["target/error"] if targets else []))]
    for key, title in {"val/error": "validation error", "val/top5_error": "validation top-5 error"}.items():
        if key in logged:
            curves.append(line(key, title))
    bars = wr.BarPlot(title="validation error at the end", metrics=["val/error"], range_x=(0, None), **grouping)
    column = wr.ParallelCoordinatesPlotColumn
    axes = [column(metric=wr.Config(key)) for key in varying_keys(report) if key != "optim.lr"]
    axes += [column(metric=wr.Config("optim.lr"), log=True), column(metric=wr.SummaryMetric("val/error"))]
    across = wr.ParallelCoordinatesPlot(title="what was varied, and the validation error", columns=axes)
    media: list[Any] = [wr.MediaBrowser(title=title, media_keys=[key]) for key, title in MEDIA.items()]
    groups = sorted({wandb_group(run.config) for run in report.runs})
    differences, wide = wr.RunComparer(diff_only="split"), ws.SectionLayoutSettings(columns=1, rows=2)
    return ws.Workspace(
        entity=entity,
        project=project,
        name=report.folder.name,
        sections=[
            ws.Section(name="Curves", panels=curves, is_open=True),
            ws.Section(name="Results", panels=[bars, across], is_open=True),
            ws.Section(name="Images", panels=media, is_open=True),
            ws.Section(name="Differences", panels=[differences], is_open=True, layout_settings=wide),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=max(10, len(report.runs))),
        runset_settings=ws.RunsetSettings(
            filters=ws.Or(*(ws.Metric("Group") == group for group in groups)),
            groupby=[ws.Config(key) for key in keys],
        ),
    )


def grouping_keys(report: Report) -> list[str]:
    """Return the keys of the configuration that tell the report's lines apart, as few as possible.

    They are the panel, if there are several, then the compared keys, then other keys in which the lines differ.
    """
    lines = [flatten_config(line.runs[0].config) for _, line in report.lines]
    compared = [key for panel in report.panels for name in panel.compare for key in (name, f"{name}.name")]
    keys: list[str] = []

    def groups(by: list[str]) -> int:
        return len({tuple(str(line.get(key)) for key in by) for line in lines})

    for key in dict.fromkeys(("report.panel", *compared, *report.differing_keys)):
        if groups([*keys, key]) > max(1, groups(keys)):
            keys.append(key)
    return keys or [key for key in compared if key in lines[0]][:1]


def varying_keys(report: Report) -> list[str]:
    """Return the keys with single values in which the lines differ."""
    flat = [line.runs[0].flat for _, line in report.lines]
    return [key for key in report.differing_keys if all(isinstance(one.get(key), int | float | str) for one in flat)]
