"""Mad overrides, drawn by a seed: each command ends, or refuses in sentences and leaves no file anywhere."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from alexnet_pl import describe, estimate, train
from alexnet_pl.config.keys import key_types
from alexnet_pl.config.schema import as_dict
from alexnet_pl.jobs import launch, local
from alexnet_pl.training import fit
from tests.helpers import commands
from tests.helpers.fuzz import DONE, REFUSED, how_it_ended, untouched

pytestmark = pytest.mark.slow

COUNT = {"train": 54, "train -m": 54, "describe": 54, "estimate": 54}
"""Lists of overrides for each command; they have more than 300 mad ones together"""
COMMANDS = {
    "train": (train.main, []), "train -m": (train.main, ["-m"]), "describe": (describe.main, []),
    "estimate": (estimate.main, []),
}  # fmt: skip
GROUPS = ["model", "data", "optim", "trainer", "logger", "scale", "experiment", "sweep"]
HYDRAS = [
    "hydra", "hydra.mode", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.sweeper.n_jobs",
    "hydra.sweeper.max_batch_size", "hydra.sweeper", "hydra.launcher", "hydra/launcher", "hydra/sweeper",
    "hydra.callbacks", "hydra.job.num", "hydra.job.name", "hydra.foo",
]  # fmt: skip
OTHERS = ["", "nothing", "model.nothing", "trainer.detect_anomaly", "trainer.logger", "trainer.min_epochs", "a.b", "1"]
KEYS = [*key_types(), *GROUPS, *HYDRAS, *OTHERS]
SCALARS = [
    "null", "nan", "-inf", "inf", "-1", "0", "1", "1.5", "1e400", "1e30", "-0.0", "100000000000000000000", "true",
    "abc", "relu", "",
]  # fmt: skip
SHAPES = ["[]", "[1,a]", "[nan]", "[[]]", "{}", "{a:1}", "{conv1:null}", "{conv1:{b:nan}}", "[conv1,conv1]"]
TEXTS = [
    "'", '"', "'a", "a b", " ", "a,b", "1,2", "Übung", "a=b", "(", "#", "&", "~", "$", "\\", "{", "]", ":", "..", "/",
    "/dev/null", "x" * 300, "'a,b'", "@", "%s", "a\tb", "a\nb", "\x07",
]  # fmt: skip
COMPUTED = [
    "${", "${}", "${nope}", "${seed}", "${data}", "${.a}", "${name}", "${oc.env:NOT_SET_ANYWHERE}", "${nope:1}",
    "${lookup:a,{b:1}}", "${packed:null,size,3}", "${oc.decode:'['}", "${hydra.job.num}", "???",
]  # fmt: skip
CALLS = [
    "int(abc)", "float(x)", "str(1)", "range(a,b)", "range(0,0)", "range(0,2)", "range(0,9,0)", "range(0,1,0.5)",
    "choice()", "choice(1,2)", "choice(a,[b])", "glob(zz*)", "glob(*)", "glob(", "interval(0,1)", "sort(2,1)",
    "shuffle(1,2)", "tag(a,1)", "range(0,100000000000)", "extend_list(1)",
]  # fmt: skip
GOOD = [
    "seed=3", "model=alexnet", "experiment=figure1", "experiment=alexnet", "trainer=cpu", "scale=smoke", "logger=csv",
    "optim=released_170", "model.activation=tanh", "trainer.max_epochs=2",
]  # fmt: skip


def draw(rng: random.Random) -> list[str]:
    """Return some overrides, most of them mad."""
    words = rng.sample(GOOD, rng.randint(0, 2))
    for _ in range(rng.choice([0, 1, 1, 2, 2, 2, 2])):
        prefix, package = rng.choice([*[""] * 8, "+", "++", "~"]), rng.choice([*[""] * 12, "@pkg", "@_global_"])
        equals, value = rng.choice([*["="] * 10, ""]), rng.choice(rng.choice([SCALARS, SHAPES, TEXTS, COMPUTED, CALLS]))
        words.append(f"{prefix}{rng.choice(KEYS)}{package}{equals}{value}")
    return words


def finish(jobs: Sequence[local.Job], at_once: int, jobs_per_gpu: int) -> None:
    """Take the place of a sweep's processes: claim each folder, and be done."""
    for job in jobs:
        job.run.start(as_dict(job.cfg), job.overrides)
        job.run.finish({}, 0)


@pytest.mark.parametrize("name", COMMANDS)
def test_no_mad_override_is_a_traceback_or_leaves_a_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Each list is stopped where the command would train or measure."""
    work, home, temporary = (tmp_path / folder for folder in ("work", "home", "temporary"))
    for folder in (work, home, temporary):
        folder.mkdir()
    own = commands.environment(home) | {"TMPDIR": str(temporary)}
    monkeypatch.setattr(commands, "environment", lambda _: own)
    monkeypatch.setattr(fit, "work", lambda cfg, run: None)
    monkeypatch.setattr(launch, "run", lambda start: (launch.Ending(0, ""), launch.Stop()))
    monkeypatch.setattr(local, "run_jobs", finish)
    monkeypatch.setattr(estimate, "show", lambda cfg, link: None)
    main, flags = COMMANDS[name]
    command = commands.train_command(work, monkeypatch, main)
    rng, ended = random.Random(f"2012 {name}"), Counter[str]()
    for _ in range(COUNT[name]):
        words = [*flags, *draw(rng)]
        with untouched(tmp_path, but=[work]):
            result = command(*words)
        how = how_it_ended(result)
        assert how == DONE or not list(work.iterdir()), (words, result.stderr)
        shutil.rmtree(work)
        work.mkdir()
        ended[how] += 1
    assert ended[REFUSED] >= COUNT[name] / 2
    assert ended[DONE] >= COUNT[name] / 20
