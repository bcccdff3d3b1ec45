"""Estimates: the model behind its table against numbers worked out by hand, and the command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from alexnet_pl import estimate
from alexnet_pl.config.schema import Config
from alexnet_pl.model.specs import LayerSpec, layer_specs
from alexnet_pl.parallel import layouts
from alexnet_pl.parallel.layouts import Layout
from alexnet_pl.parallel.traffic import bytes_per_step
from tests.helpers.commands import Command, train_command
from tests.helpers.runs import run_config
from tests.helpers.sources import draw_source, write_folders
from tests.helpers.stores import pack

SMALL = (
    "experiment=alexnet", "model.width=0.05", "model.input_size=67", "data.resize=72", "data.batch_size=8",
    "trainer=cpu",
)  # fmt: skip


def alexnet() -> tuple[Config, list[LayerSpec]]:
    cfg = run_config("experiment=alexnet", "model.num_classes=1000", "trainer.accelerator=cpu")
    return cfg, layer_specs(cfg.model, cfg.data.input_size)


@pytest.mark.parametrize(
    ("where", "seconds"),
    [
        # 10 ms and 1 ms per image; MB that are sent: tests/parallel/test_layouts.py; 1 GB/s, and 0.1 ms each time: the
        # gradients in 4 buckets; conv3 and three layers exchange twice, and the last once more; the copies' once
        (Layout("single"), 0.010 + 0.128),
        (Layout("ddp", 2), 0.010 + 0.064 + 0.2439 + 0.0004),
        (Layout("ddp", 4), 0.010 + 0.032 + 0.3658 + 0.0004),
        (Layout("towers", 2, 1, 2), 0.005 + 0.064 + 0.0313 + 0.0009),
        (Layout("towers_ddp", 4, 1, 2), 0.005 + 0.032 + 0.1376 + 0.0010),
        # of 60,965,224 weights 2,334,080 are in the convolutions
        (Layout("owt", 2), 0.010 * (2_334_080 + 58_631_144 / 2) / 60_965_224 + 0.064 + 0.0185 + 0.0009),
    ],
)
def test_the_model_of_a_step(where: Layout, seconds: float):
    _, plan = alexnet()
    measured = estimate.Measured(0.010, 0.001, {})
    assert measured.step(where, plan, 128, 1e9, 1e-4, "32-true") == pytest.approx(seconds, abs=1e-4)


def test_layouts_that_net_and_batch_allow():
    cfg, plan = alexnet()
    cfg.data.batch_size = 8
    there = [(where.processes, where.name) for where in estimate.layouts_for(cfg, plan)]
    assert there[:4] == [(1, "single"), (2, "ddp"), (2, "towers"), (2, "owt")]
    assert (16, "towers_ddp") in there, "eight pairs share a batch of eight"
    assert (16, "ddp") not in there


@pytest.fixture
def estimates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """alexnet-estimate in tmp_path, in this process."""
    return train_command(tmp_path, monkeypatch, estimate.main)


def rows(out: str) -> dict[tuple[int, str], list[str]]:
    """(devices, layout) -> the other columns."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    return {(int(line[0]), line[1]): line[2:] for line in lines if line[0].isdigit() and len(line) > 4}


def test_the_command_measures_and_runs_nothing(estimates: Command, tmp_path: Path):
    result = estimates(*SMALL, "--link=1")
    assert result.returncode == 0, result.stderr
    found = rows(result.stdout)
    assert {(1, "single"), (2, "ddp"), (2, "towers"), (4, "towers_ddp"), (8, "ddp")} <= set(found)
    measured = {int(n): float(ms) for n, ms in re.findall(r"(\d+) images ([\d.]+) ms", result.stdout)}
    assert set(measured) == {8, 4, 2}
    assert all(ms > 0 for ms in measured.values())
    assert "900,000 images to see" in result.stdout, "90 epochs of the generated images"
    speed = float(found[1, "single"][0].replace(",", ""))
    cfg = run_config(*SMALL)
    two = bytes_per_step(Layout("ddp", 2), layer_specs(cfg.model, 67), 8)
    assert found[2, "ddp"][2] == f"{two / 1e6:,.1f}"
    amount, unit = found[1, "single"][1].split()
    taken = float(amount) * {"s": 1, "min": 60, "h": 3600, "days": 86400}[unit]
    assert taken == pytest.approx(900_000 / speed, rel=0.1)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_a_store_it_is_imagenet(estimates: Command):
    result = estimates(*SMALL, "data=imagenet", "model.num_classes=1000")
    assert result.returncode == 0, result.stderr
    assert "115,305,030 images to see" in result.stdout, "90 times 1,281,167"
    assert "no store in data.root=data/imagenet yet" in result.stdout
    speed, *_, reads = rows(result.stdout)[1, "single"]
    assert float(reads.replace(",", "")) == pytest.approx(float(speed.replace(",", "")) * 3 * 256 * 256 / 1e6, abs=1)


@pytest.mark.parametrize("link", ["fast", "0", "-3", "nan", "inf"])
def test_a_rate_that_is_none(estimates: Command, link: str):
    result = estimates(f"--link={link}")
    assert result.returncode == 2
    assert "--link" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_store_without_validation(estimates: Command, tmp_path: Path):
    """It is measured, as a run without validation would train on it; the net is named."""
    pack(write_folders(tmp_path / "source", draw_source(val=0)), tmp_path / "store")
    result = estimates(*SMALL[1:], "model=alexnet", "data=packed", "data.root=store")
    assert result.returncode == 0, result.stderr
    assert "measured model=alexnet" in result.stdout


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.num_classes=1000000000000", "are more than the"),
        ("data.batch_size=1000000000000", "are more than the"),
        ("trainer=mps", "trainer.accelerator=mps"),
        ("trainer=gpu", "none is here"),
        ("model=null", "is not a choice"),
        ("seed=1,2", "several values"),
        ("sweep=lrn", "several configurations"),
    ],
)
def test_what_cannot_be_measured_here(estimates: Command, monkeypatch: pytest.MonkeyPatch, word: str, said: str):
    monkeypatch.setattr(layouts, "gpu_count", lambda: 0)
    result = estimates(word)
    assert result.returncode == 1
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
