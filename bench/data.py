"""How fast images are prepared, read and augmented, on one core, against the usual ways.

    python bench/data.py                                  photographs drawn for the purpose; under two minutes
    python bench/data.py --source DIR --rounds 9          your own image folder, <class>/<file>

All ways get the same images and one thread; what is timed is CPU time. Printed are the median images per
second of each way, and its ratio to its peer (see ratios.py).

Small images are prepared by the whole command, with its checksums, its statistics and its second reading. The peer is
the loop that one would write first, without any of these.

The last two rows are by the clock, with a run's reading threads: how many images a second reach the device as
floats, augmented (on a CPU by one thread). What a run waits for them stands in its own log and metrics.csv.
"""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import photographs
import ratios
import torch
from PIL import Image
from rich.console import Console
from torchvision.transforms import v2

from alexnet_pl.config.choices import ColorNoise
from alexnet_pl.config.schema import Config, Data
from alexnet_pl.data import decode
from alexnet_pl.data.datamodule import ImageDataModule
from alexnet_pl.data.loader import BatchLoader, Replica
from alexnet_pl.data.store import Plan
from alexnet_pl.prepare.options import Options
from alexnet_pl.prepare.packing import encode
from alexnet_pl.prepare.prepare import prepare

BATCH = 128
BICUBIC, PREPARE = "prepare: Pillow bicubic, JPEG", "prepare: ours, JPEG"
PIL, JPEG, RAW = "read: Pillow, 256-pixel files, to normalised floats", "read: our store, JPEG", "read: our store, raw"
REFERENCE = "to floats: torchvision's reference, original files"
OURS_JPEG, OURS_RAW = "to floats: ours, JPEG, with colour noise", "to floats: ours, raw, with colour noise"
SMALL_OURS, SMALL_LOOP = "prepare: ours, images of 64 pixels, raw", "prepare: a plain Pillow loop over the same files"
PAIRS = [  # and the least that the ratio must be
    (PREPARE, BICUBIC, 1.5),
    (SMALL_OURS, SMALL_LOOP, 1.0),
    (JPEG, PIL, 2.5),
    (RAW, PIL, 15.0),
    (OURS_JPEG, PIL, 1.5),
    (OURS_RAW, PIL, 2.5),
    (OURS_RAW, REFERENCE, 5.0),
    (OURS_JPEG, REFERENCE, 3.0),
]
SMALL_ROUNDS = 3
"""At most, as one takes seconds"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def squares(image: Image.Image, size: int = 256) -> Image.Image:
    """Shorter side to `size` by Pillow, bicubic, then the centre."""
    width, height = image.size
    shorter = min(width, height)
    width, height = size * width // shorter, size * height // shorter
    left, top = (width - size) // 2, (height - size) // 2
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.crop((left, top, left + size, top + size))


def as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling=0)
    return buffer.getvalue()


def modules(source: Path, folder: Path) -> dict[str, ImageDataModule]:
    """form -> the data of a run from a store of that form, with all of the training's augmentation."""
    made = {}
    for form in ("raw", "jpeg"):
        prepare(source, folder / form, Options(form=form, workers=1), Console(quiet=True))
        cfg = Config(name="bench", seed=1, train_error_window=1, train_eval_images=0)
        cfg.data = Data(
            kind="packed",
            name="bench",
            root=str(folder / form),
            num_classes=1000,
            size=256,
            crop_size=224,
            random_flip=True,
            color_noise=ColorNoise.released_2012,
        )
        cfg.trainer.limit_val_batches = 0
        made[form] = ImageDataModule(cfg)
        made[form].setup("fit")
    return made


def fed(datamodule: ImageDataModule, device: torch.device, batches: int) -> float:
    """Images per second that reach the device, read ahead by threads."""
    datamodule.mean = datamodule.mean.to(device)
    datamodule.train.pinned = device.type == "cuda"  # type: ignore[union-attr]
    rows = torch.arange(batches * BATCH) % len(datamodule.train)
    start = time.perf_counter()
    for images, *_ in BatchLoader(
        datamodule.train, lambda: rows, len(rows), BATCH, datamodule.train_input, device, draw=datamodule.train_draws
    ):
        last = images
    assert last.isfinite().all()  # and so it has arrived
    return len(rows) / (time.perf_counter() - start)


def ways(source: Path, folder: Path, modules: dict[str, ImageDataModule]) -> dict[str, Callable[[], int]]:
    """name -> a function that handles some images and returns how many."""
    originals = [path.read_bytes() for path in sorted(source.rglob("*.*"))]
    files = []
    for number, original in enumerate(originals):  # what a loader of 256-pixel files reads
        files.append(folder / f"{number}.jpg")
        files[-1].write_bytes(as_jpeg(squares(Image.open(io.BytesIO(original)).convert("RGB"))))
    floats = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    crop = v2.Compose([v2.RandomCrop(224), v2.RandomHorizontalFlip(), *floats])
    reference = v2.Compose([v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), *floats])
    plan = Plan("", "", "", 256, "jpeg", 90)
    rows = torch.arange(BATCH) % len(modules["raw"].train)

    def read(form: str) -> Callable[[], int]:
        return lambda: len(modules[form].train.read(rows))

    def to_floats(form: str) -> Callable[[], int]:
        module, part = modules[form], Replica().slice_of(BATCH)
        return lambda: len(module.train_input(module.train.read(rows), module.train_draws(0, part)))

    def transform_all(images: list[Image.Image], transform: v2.Compose) -> int:
        return len(torch.stack([transform(image.convert("RGB")) for image in images]))

    return {
        BICUBIC: lambda: len([as_jpeg(squares(Image.open(io.BytesIO(o)).convert("RGB"))) for o in originals]),
        PREPARE: lambda: len([encode(decode.centre_square(decode.decode_image(o), 256), plan) for o in originals]),
        PIL: lambda: transform_all([Image.open(file) for file in (files * BATCH)[:BATCH]], crop),
        JPEG: read("jpeg"),
        RAW: read("raw"),
        REFERENCE: lambda: transform_all([Image.open(io.BytesIO(o)) for o in originals], reference),
        OURS_JPEG: to_floats("jpeg"),
        OURS_RAW: to_floats("raw"),
    }


def pack_small(source: Path, folder: Path) -> None:
    """All that the command does with one thread."""
    options = Options(size=photographs.SMALL, form="raw", workers=1)
    prepare(source, folder / "store", options, Console(quiet=True))


def loop_small(source: Path, folder: Path) -> None:
    """All squares in one file, class by class, and a list of their labels."""
    labels = []
    with (folder / "images").open("wb") as file:
        for label, of_class in enumerate(sorted(source.iterdir())):
            for path in sorted(of_class.iterdir()):
                square = squares(Image.open(path).convert("RGB"), photographs.SMALL)
                file.write(np.asarray(square).tobytes())
                labels.append(label)
    np.save(folder / "labels.npy", labels)


def prepared(way: Callable[[Path, Path], None], source: Path, count: int) -> float:
    """Images per second, from a source of so many into a new folder."""
    with tempfile.TemporaryDirectory() as name:
        start = time.process_time()
        way(source, Path(name))
        return count / (time.process_time() - start)


def main() -> None:
    parser = ratios.arguments(__doc__, rounds=7, steps=3)
    parser.add_argument("--source", type=Path, help="an image folder; without one, photographs are drawn")
    parser.add_argument("--small", type=int, default=20_000, help="images of 64 pixels to prepare (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not given.source:
            photographs.draw(folder / "source", 8)
        source = given.source or folder / "source"
        made = modules(source, folder)

        def per_second(run: Callable[[], int]) -> float:
            start = time.process_time()
            count = sum(run() for _ in range(given.steps))
            return count / (time.process_time() - start)

        every = {way: partial(per_second, run) for way, run in ways(source, folder, made).items()}
        speeds = ratios.interleaved(every, given.rounds)
        photographs.draw_small(folder / "small", given.small)
        small = {
            way: partial(prepared, run, folder / "small", given.small)
            for way, run in ((SMALL_OURS, pack_small), (SMALL_LOOP, loop_small))
        }
        speeds |= ratios.interleaved(small, min(given.rounds, SMALL_ROUNDS))
        arrived = {f: [fed(made[f], torch.device(given.device), 8 * given.steps) for _ in range(3)] for f in made}
    print(f"\n{ratios.machine()}, {given.rounds} rounds")
    for way, values in speeds.items():
        print(f"{statistics.median(values):8,.0f} images/s  {way}")
    for form, values in arrived.items():
        threads = made[form].train.workers
        print(f"{statistics.median(values):8,.0f} images/s  reach {given.device} from {form}, by {threads} threads")
    rows = [ratios.ratio(speeds[ours], speeds[peer], f"{ours} / {peer}", bar) for ours, peer, bar in PAIRS]
    ratios.print_rows(rows, given.json)


if __name__ == "__main__":
    main()
