"""Every claim of the paper has a command, and every command runs: at scale=smoke, to a row in the report's table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from alexnet_pl import ROOT
from alexnet_pl.config.schema import as_dict
from alexnet_pl.jobs import local
from alexnet_pl.report import paper
from alexnet_pl.report.ablation import judge
from alexnet_pl.report.compare import collect
from alexnet_pl.report.outputs import write_report
from alexnet_pl.runs.metrics import write_rows
from alexnet_pl.runs.run import Run
from alexnet_pl.train import train as train_run
from tests.helpers.commands import Command
from tests.helpers.runs import job_config

pytestmark = pytest.mark.slow

FACTS = ROOT.parent / "shared" / "alexnet-2012-facts.md"
TOPICS = {
    "Data", "Input", "Size", "Figure 2", "ReLU", "Two GPUs", "LRN", "Pooling", "Translations + flips", "Colour PCA",
    "Dropout", "SGD", "Init", "LR", "Time", "Depth", "Table 1 (2010 test)", "Table 2 (2012)", "Pre-training",
    "Fall 2009", "Qualitative",
}  # fmt: skip
"""The rows of the facts file's table of the paper's quantitative claims, its section 8."""
CLAIMS = paper.claims()
SWEEPS = {claim.sweep: claim for claim in CLAIMS if claim.sweep}
SEARCHES = {"figure1_lr"}  # for a rate that another sweep takes: no claim of the paper
QUICK = ["scale=smoke", "trainer.limit_train_batches=2", "logger=csv", "trainer=cpu"]
AFTER = {"finetune": "pretrain"}  # begins with the net of another sweep


def jobs(name: str) -> list[list[str]]:
    """The overrides of each job of a sweep, as Hydra expands them."""
    params = OmegaConf.load(ROOT / "sweeps" / f"{name}.yaml").hydra.sweeper.params
    overrides = OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in params.items()])
    return BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]


def few_seeds(name: str) -> list[list[str]]:
    """The jobs of a sweep with one seed for each line; with two where the seeds are what it is about."""
    more = {f"seed={seed}" for seed in range(3 if name == "seeds" else 2, 6)}
    return [job for job in jobs(name) if not more & set(job)]


def run_here(jobs: Sequence[local.Job], at_once: int, jobs_per_gpu: int) -> None:
    """Run jobs as a sweep does, here and not in processes of their own."""
    for job in jobs:
        train_run(job.cfg, job.run, job.overrides)
        job.run.release()


def smoke(train: Command, name: str) -> list[list[str]]:
    """Run a sweep at scale=smoke, with a job for each line; those jobs."""
    few = few_seeds(name)
    seeds = dict.fromkeys(word.removeprefix("seed=") for job in few for word in job if word.startswith("seed="))
    words = [f"seed={','.join(seeds)}"] if seeds else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run_jobs", run_here)
        done = train(f"sweep={name}", *QUICK, *words)
    assert done.returncode == 0, done.stderr
    return few


def test_no_claim_is_missing():
    assert {claim.topic for claim in CLAIMS} == TOPICS
    assert {file.stem for file in (ROOT / "sweeps").glob("*.yaml")} == set(SWEEPS) | SEARCHES


@pytest.mark.skipif(not FACTS.is_file(), reason="the facts about the net of 2012 lie beside the checkout, not in it")
def test_the_topics_are_those_of_the_facts():
    section = FACTS.read_text().split("## 8.")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| (?!Topic|---)(.+?) \|", section, re.MULTILINE)) == TOPICS


@pytest.mark.parametrize("name", [claim.sweep for claim in CLAIMS if claim.sweep])
def test_a_sweep_runs_and_is_reported(train: Command, tmp_path: Path, name: str):
    """Each job at scale=smoke; each has a line in the table, and the page and the image are there."""
    if name in AFTER:
        smoke(train, AFTER[name])
    ran = smoke(train, name)
    told, paths = write_report(tmp_path / "runs" / f"{name}_smoke")
    assert sorted(len(line.runs) for _, line in told.lines) == sorted(seeds(ran))
    assert not told.incomplete
    assert all(path.stat().st_size > 1000 for path in paths)


def seeds(ran: list[list[str]]) -> list[int]:
    """How many jobs differ in nothing but their seed, for each line."""
    lines = [tuple(word for word in job if not word.startswith("seed=")) for job in ran]
    return [lines.count(line) for line in dict.fromkeys(lines)]


@pytest.mark.parametrize("name", SWEEPS)
def test_its_file_says_what_it_is(name: str):
    """The paper's words, the command as the claim has it, the time and the result, above the settings."""
    head = (ROOT / "sweeps" / f"{name}.yaml").read_text().split("\n\n")[0]
    said = re.sub(r"\n#\s*", " ", head.split("defaults:")[0])
    assert re.search(r"(Paper, section|Paper, Table|Not in the paper)", said)
    assert SWEEPS[name].command in said
    assert re.search(r"Time.*Result|Time and result|Time:.*Result:", said)


DESCRIBED = [claim for claim in CLAIMS if "alexnet_pl.describe" in claim.command]


@pytest.mark.parametrize("claim", DESCRIBED, ids=lambda c: c.id)
def test_a_net_is_described(describe: Command, claim: paper.Claim):
    told = describe(*claim.command.removeprefix("python -m alexnet_pl.describe ").split())
    assert told.returncode == 0, told.stderr
    assert "60,965,224" in told.stdout


@pytest.mark.parametrize("name", SWEEPS)
def test_it_can_be_reported_at_full_scale(name: str, tmp_path: Path):
    """Its runs as they would be, but for the images, with rows made up: none is refused, its claims are judged."""
    for number, job in enumerate(ran := few_seeds(name)):
        overrides = [f"sweep={name}", "data=shapes", "data.resize=300", "logger=csv", "pretrained=null", *job]
        cfg = job_config(*overrides)
        assert cfg.scale.name == "paper"
        run = Run(tmp_path / name / str(number))
        run.start(as_dict(cfg), overrides)
        rows = [{"epoch": e, "images_seen": e, "train/error": 0.9 / e, "val/error": 0.8 / e} for e in (1, 2)]
        write_rows(run.folder / "metrics.csv", [*rows, rows[-1] | {"test/error": 0.4, "test/top5_error": 0.1}])
        run.finish({}, 1)
    told = collect(tmp_path / name)
    assert sorted(len(line.runs) for _, line in told.lines) == sorted(seeds(ran))
    for judged in judge(SWEEPS[name], told.panels):
        assert judged.verdict in ("no difference", "no difference, one seed", "same sign, one seed", "not measured")
