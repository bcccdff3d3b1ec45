"""What torchrun and Slurm started, and what they or other programs have left in the environment."""

from __future__ import annotations

import os

import pytest

from alexnet_pl.console import RANK_VARIABLES
from alexnet_pl.errors import ConfigError
from alexnet_pl.jobs import launch
from alexnet_pl.parallel.layouts import Layout
from tests.helpers.jobs import SLURM, TORCHRUN

TWO, FOUR = Layout("ddp", 2), Layout("towers_ddp", 4, 1, 2)


def test_a_task_of_slurm_is_a_process_of_the_run(fresh: pytest.MonkeyPatch):
    for name, value in SLURM.items():
        fresh.setenv(name, value)
    launch.refuse_other_group(Layout("ddp", 2, 2))
    assert launch.join_group(Layout("ddp", 2, 2))
    assert launch.rank() == 3
    told = {name: os.environ[name] for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    assert told == {
        "LOCAL_RANK": "1", "NODE_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "gpu03", "MASTER_PORT": "16234",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("names", "where", "sentence"),
    [
        ({**SLURM, "SLURM_LOCALID": "3"}, Layout("ddp", 2, 2), "use srun --ntasks-per-node"),
        (TORCHRUN, Layout("single"), "torchrun started 2 processes, but .* need 1"),
        (TORCHRUN, FOUR, "torchrun started 2 processes, but .* need 4"),
        ({"WORLD_SIZE": "2"}, TWO, "WORLD_SIZE=2 says .* but RANK is not set: unset WORLD_SIZE"),
        ({**TORCHRUN, "MASTER_ADDR": ""}, TWO, "MASTER_ADDR is not set"),
        ({**TORCHRUN, "RANK": "2"}, TWO, "RANK is 2"),
        ({**TORCHRUN, "RANK": "first"}, TWO, "RANK=first in the environment must be a number"),
        ({"WORLD_SIZE": "two"}, Layout("single"), "WORLD_SIZE=two in the environment must be a number"),
        ({**SLURM, "SLURM_STEP_NUM_TASKS": "x"}, Layout("single"), "SLURM_STEP_NUM_TASKS=x in the environment"),
        ({**SLURM, "SLURM_LOCALID": ""}, Layout("ddp", 2, 2), "SLURM_LOCALID= in the environment must be a number"),
        ({**SLURM, "SLURM_STEP_NODELIST": ""}, Layout("ddp", 2, 2), "SLURM_STEP_NODELIST is not set"),
        (SLURM, TWO, "Slurm started 4 processes, but .* need 2"),
        ({}, Layout("ddp", 2, 2), "start the command with torchrun on every machine"),
    ],
)
def test_another_number_of_processes_is_refused(
    fresh: pytest.MonkeyPatch, names: dict[str, str], where: Layout, sentence: str
):
    for name, value in names.items():
        fresh.setenv(name, value)
    with pytest.raises(ConfigError, match=sentence):
        launch.refuse_other_group(where)


@pytest.mark.parametrize(
    ("variables", "left"),
    [
        ({"RANK": "x", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "0", "SLURM_PROCID": "7", "WORLD_SIZE": "1"}, set()),
        (TORCHRUN, {"RANK", "LOCAL_RANK"}),
    ],
    ids=["alone", "one of two"],
)
def test_one_alone_drops_the_ranks_of_an_earlier_program(
    variables: dict[str, str], left: set[str], fresh: pytest.MonkeyPatch
):
    for name, value in variables.items():
        fresh.setenv(name, value)
    assert launch.started() == int(variables["WORLD_SIZE"])
    assert {name for name in RANK_VARIABLES if name in os.environ} == left
    assert launch.rank() == (1 if left else 0)


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("big1", "big1"),
        ("big1,big2", "big1"),
        ("gpu[3-5]", "gpu3"),
        ("gpu[007,009],big1", "gpu007"),
        ("rack[0-1]n[2-3]-ib", "rack0n2-ib"),
        ("[a-b]1", "a1"),
    ],
)
def test_the_processes_of_several_machines_meet_on_the_first(hosts: str, first: str, fresh: pytest.MonkeyPatch):
    """Not where srun was typed."""
    for name, value in {**SLURM, "SLURM_STEP_NODELIST": hosts, "SLURM_LAUNCH_NODE_IPADDR": "10.0.0.7"}.items():
        fresh.setenv(name, value)
    told = launch.slurm.task_variables(Layout("ddp", 2, 2))
    assert told
    assert told["MASTER_ADDR"] == first


def test_two_steps_of_an_allocation_have_ports_of_their_own(fresh: pytest.MonkeyPatch):
    ports = set()
    for name, value in {**SLURM, "SLURM_NODEID": "0"}.items():
        fresh.setenv(name, value)
    for step in ("0", "1", "4294967290"):
        fresh.setenv("SLURM_STEP_ID", step)
        ports.add((launch.slurm.task_variables(Layout("ddp", 2)) or {})["MASTER_PORT"])
    assert len(ports) == 3
    assert all(15_000 <= int(port) < 25_000 for port in ports)
