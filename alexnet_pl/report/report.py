"""Write the report of a folder of runs: figures, page, tables and numbers; and draw the kernels of its runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from alexnet_pl import files
from alexnet_pl.errors import ConfigError
from alexnet_pl.report.compare import Report, collect
from alexnet_pl.report.kernels import verdict
from alexnet_pl.report.markdown import markdown
from alexnet_pl.report.numbers import as_json
from alexnet_pl.report.page import report_page
from alexnet_pl.report.plots import draw, draw_kernels
from alexnet_pl.runs.run import find_runs


def write_report(folder: Path, allow: Sequence[str] = ()) -> tuple[Report, list[Path]]:
    """Write figures, page, tables and numbers into the folder; return the report and the paths of figure and page.

    Args:
        allow: keys that may differ between any runs, as for `collect`.
    Raises:
        ConfigError: nothing to draw, or runs that must not be compared; nothing is written then.
    """
    folder = folder.resolve()
    report = collect(folder, allow)
    figure, page = folder / f"{folder.name}.png", folder / "report.html"
    draw(report, figure, figure.with_name(f"{folder.name}.svg"))
    files.write(page, report_page(report))
    files.write(folder / "report.md", markdown(report))
    files.write(folder / "report.json", json.dumps(as_json(report), indent=1, allow_nan=False))
    return report, [figure, page]


def write_kernels(folder: Path) -> list[Path]:
    """Draw the first kernels of each finished run, also into its W&B run, and print how colourful they are.

    Raises:
        ConfigError: no run of the folder is done, or one has no checkpoint.
    """
    from alexnet_pl.runs import trained  # torch and Lightning, which nothing else here needs
    from alexnet_pl.training import loggers

    done = [run for run in find_runs(folder) if run.done]
    if not done:
        raise ConfigError(f"no run in {folder} is done: its kernels are drawn when it is")
    for run in done:
        found = draw_kernels(trained.load(run.folder))
        towers = [f"{found[f'tower{i}']:.2f} ± {found[f'tower{i}_spread']:.2f}" for i in (1, 2) if f"tower{i}" in found]
        print(f"{run.folder.name}: colourfulness {' and '.join(towers)}. {verdict(found)}")
        loggers.attach_results(
            run, {f"kernels/{key}": value for key, value in found.items()}, {"kernels": run.folder / "kernels.png"}
        )
    return [run.folder / "kernels.png" for run in done]
