"""How fast pictures are prepared, read and augmented, on one core, against the usual ways.

    python bench/data.py                                  photographs drawn for the purpose; about a minute
    python bench/data.py --source DIR --rounds 9          an image folder of one's own, <class>/<file>

All ways get the same pictures and one thread; what is timed is processor time. Rounds are interleaved (each runs every
way once, in turn), so a drift of the machine meets all alike; printed are the median pictures per second of each way,
and the median over the rounds of its ratio to its peer, with the range.

The last two rows are by the clock, with a run's reading threads: how many pictures a second reach the device as
floats, augmented (on a processor by one thread). What a run waits for them stands in its own log and metrics.csv.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # as alexnet-train does

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torchvision.transforms import v2

from alexnet_pl import config, data, pictures, provenance
from alexnet_pl.loader import Batches
from alexnet_pl.prepare import Options, prepare
from alexnet_pl.prepare.packing import encode
from alexnet_pl.store import Plan

BATCH = 128
BICUBIC, PREPARE = "prepare: Pillow bicubic, JPEG", "prepare: ours, JPEG"
PIL, JPEG, RAW = "read: Pillow, 256-pixel files, to normalised floats", "read: our store, JPEG", "read: our store, raw"
REFERENCE = "to floats: torchvision's reference, original files"
OURS_JPEG, OURS_RAW = "to floats: ours, JPEG, with colour noise", "to floats: ours, raw, with colour noise"
PAIRS = [
    (PREPARE, BICUBIC),
    (JPEG, PIL),
    (RAW, PIL),
    (OURS_JPEG, PIL),
    (OURS_RAW, PIL),
    (OURS_RAW, REFERENCE),
    (OURS_JPEG, REFERENCE),
]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def photographs(folder: Path, count: int) -> None:
    """As large as ImageNet's usual pictures, 500x375, and about as detailed: some 100 kB each."""
    random = np.random.default_rng(1)
    (folder / "drawn").mkdir(parents=True)
    (folder / "other").mkdir()
    for i in range(count):
        image = np.zeros((375, 500, 3))
        for octave in range(1, 8):  # noise of all scales, as in nature
            size = 2**octave
            coarse = Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8))
            image += (np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC)) - 127.5) / 1.5**octave
        image += random.normal(0, 6, image.shape)
        place = folder / ("drawn" if i % 2 else "other") / f"{i}.jpg"
        Image.fromarray((127.5 + image).clip(0, 255).astype(np.uint8)).save(place, quality=92, subsampling=0)


def squares(image: Image.Image) -> Image.Image:
    """Shorter side to 256 by Pillow, bicubic, then the centre."""
    width, height = image.size
    shorter = min(width, height)
    width, height = 256 * width // shorter, 256 * height // shorter
    left, top = (width - 256) // 2, (height - 256) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + 256, top + 256))


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def modules(source: Path, folder: Path) -> dict[str, data.Pictures]:
    """form -> the data of a run from a store of that form, with all of the training's augmentation."""
    made = {}
    for form in ("raw", "jpeg"):
        prepare(source, folder / form, Options(form=form, workers=1), Console(quiet=True))
        cfg = config.Config(name="bench", seed=1, window=1, subset=0)
        cfg.data = config.Data(
            name=config.DataSet.imagenet,
            root=str(folder / form),
            num_classes=1000,
            size=256,
            crop_size=224,
            flips=True,
            color_noise=config.ColorNoise.released_2012,
        )
        cfg.trainer.limit_val_batches = 0
        made[form] = data.Pictures(cfg)
        made[form].setup("fit")
    return made


def fed(pictures: data.Pictures, device: torch.device, batches: int) -> float:
    """Pictures per second that reach the device, read ahead by threads."""
    pictures.mean = pictures.mean.to(device)
    pictures.train.pinned = device.type == "cuda"  # type: ignore[union-attr]
    rows = torch.arange(batches * BATCH) % len(pictures.train)
    start = time.perf_counter()
    for images, *_ in Batches(pictures.train, lambda: rows, len(rows), BATCH, pictures.train_input, device):
        last = images
    assert last.isfinite().all()  # and so it has arrived
    return len(rows) / (time.perf_counter() - start)


def ways(source: Path, folder: Path, modules: dict[str, data.Pictures]) -> dict[str, Callable[[], int]]:
    """name -> a function that handles some pictures and returns how many."""
    originals = [path.read_bytes() for path in sorted(source.rglob("*.*"))]
    files = []
    for number, original in enumerate(originals):  # what a loader of 256-pixel files reads
        files.append(folder / f"{number}.jpg")
        files[-1].write_bytes(as_jpeg(squares(Image.open(io.BytesIO(original)).convert("RGB"))))
    floats = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    crop = v2.Compose([v2.RandomCrop(224), v2.RandomHorizontalFlip(), *floats])
    reference = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), *floats])
    plan = Plan("", "", 256, "jpeg", 90)
    rows = torch.arange(BATCH) % len(modules["raw"].train)

    def read(form: str) -> Callable[[], int]:
        return lambda: len(modules[form].train.read(rows))

    def to_floats(form: str) -> Callable[[], int]:
        return lambda: len(modules[form].train_input(modules[form].train.read(rows), 0))

    def opened(images: list[Image.Image], transform: v2.Compose) -> int:
        return len(torch.stack([transform(image.convert("RGB")) for image in images]))

    return {
        BICUBIC: lambda: len([as_jpeg(squares(Image.open(io.BytesIO(o)).convert("RGB"))) for o in originals]),
        PREPARE: lambda: len([encode(pictures.fit(pictures.decode(o), 256), plan) for o in originals]),
        PIL: lambda: opened([Image.open(file) for file in (files * BATCH)[:BATCH]], crop),
        JPEG: read("jpeg"),
        RAW: read("raw"),
        REFERENCE: lambda: opened([Image.open(io.BytesIO(o)) for o in originals], reference),
        OURS_JPEG: to_floats("jpeg"),
        OURS_RAW: to_floats("raw"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, help="an image folder; without one, photographs are drawn")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds that count, after one to warm up")
    parser.add_argument("--steps", type=int, default=3, help="times that a round runs each way")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not given.source:
            photographs(folder / "source", 8)
        source = given.source or folder / "source"
        made = modules(source, folder)
        every = ways(source, folder, made)
        speeds: dict[str, list[float]] = {way: [] for way in every}
        for i in range(given.rounds + 1):
            for way, run in every.items():
                start = time.process_time()
                count = sum(run() for _ in range(given.steps))
                if i:
                    speeds[way].append(count / (time.process_time() - start))
        arrived = {f: [fed(made[f], torch.device(given.device), 8 * given.steps) for _ in range(3)] for f in made}
    print(f"\n{provenance.processor()}, one thread, torch {torch.__version__}, {given.rounds} rounds")
    for way, values in speeds.items():
        print(f"{statistics.median(values):8,.0f} images/s  {way}")
    for ours, peer in PAIRS:
        ratios = [a / b for a, b in zip(speeds[ours], speeds[peer], strict=True)]
        print(f"{statistics.median(ratios):6.2f} ({min(ratios):.2f} to {max(ratios):.2f})  {ours} / {peer}")
    for form, values in arrived.items():
        threads = made[form].train.workers
        print(f"{statistics.median(values):8,.0f} images/s  reach {given.device} from {form}, by {threads} threads")


if __name__ == "__main__":
    main()
