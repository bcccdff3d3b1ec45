"""Pack a source into a store, part by part, with a journal, so that it can be stopped at any moment.

A part is written beside its place and renamed, and then its page of the journal in the same way. A part with a page is
done; a part without one is packed anew. At the end every part is read again and compared with the checksum in its page.
Only then the done mark is written. So a finished store is sound, and the same to the byte after any number of stops.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import torch
from torch import Tensor

from alexnet_pl import files
from alexnet_pl.config.choices import Squares
from alexnet_pl.data import decode, store
from alexnet_pl.data.pixel_stats import PixelStats
from alexnet_pl.data.sources import Source
from alexnet_pl.data.sources.base import Unreadable
from alexnet_pl.errors import ConfigError, UserError

PAGE = pa.schema(
    {"name": pa.string(), "label": pa.int64(), "offset": pa.int64(), "bytes": pa.int64(), "skipped": pa.string()}
)
"""A page of the journal: a row for each file of a part, with the reason if it was skipped"""

Advance = Callable[[int], None]
"""A function that is called with the number of further files that are done"""
J = TypeVar("J")
R = TypeVar("R")


class Job(NamedTuple):
    """A part to pack: the files of a split from start to stop - 1."""

    split: str
    number: int
    start: int
    stop: int


class Packing:
    """Pack one source into one store by one plan.

    Args:
        max_skipped: share of the files that may give no image.
        workers: threads; they spend nearly all of their time in libraries that let the others run.
    """

    def __init__(self, source: Source, root: Path, plan: store.Plan, max_skipped: float, workers: int) -> None:
        self.source, self.root, self.plan, self.workers = source, root, plan, workers
        self.limit = int(max_skipped * sum(len(split) for split in source.splits.values()))
        self.jobs = [
            Job(name, number, start, min(start + plan.part, len(split)))
            for name, split in source.splits.items()
            for number, start in enumerate(range(0, len(split), plan.part))
        ]

    def pack(self, advance: Advance) -> None:
        """Write every part that is not there yet.

        Raises:
            ConfigError: more files than allowed gave no image.
        """
        (self.root / "journal").mkdir(exist_ok=True)
        files.sweep_up(self.root)
        pages = self.pages()
        if count_skipped(pages) > self.limit:  # it was refused for that, and may have been mended since
            pages = {job: page for job, page in pages.items() if not count_skipped({job: page})}
        skipped = count_skipped(pages)
        advance(sum(len(page) for page in pages.values()))
        left = [job for job in self.jobs if job not in pages]
        for more in self.parallel(lambda job, stopped: self.pack_part(job, advance, stopped), left):
            skipped += more
            if skipped > self.limit:
                self.refuse()

    def refuse(self) -> NoReturn:
        """Raise ConfigError, because too many files gave no image; list them in skipped.csv."""
        skipped = sum(self.write_skipped(self.pages()).values())
        lost = "1 file" if skipped == 1 else f"{skipped:,} files"
        raise ConfigError(
            f"{lost} gave no image, more than the {self.limit:,} that --max-skipped allows; which and why "
            f"stands in {self.root / 'skipped.csv'}: mend the source and run the same command again, or allow more"
        )

    def parallel(self, work: Callable[[J, threading.Event], R], jobs: Iterable[J]) -> Iterator[R]:
        """Yield the results of work(job, stopped) as they come. Stop all on an error, or when the caller stops."""
        stopped = threading.Event()
        with ThreadPoolExecutor(self.workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            try:
                for future in as_completed([pool.submit(work, job, stopped) for job in jobs]):
                    yield future.result()
            except BaseException:
                stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    # -------------------------------------------------------------------------------------------- one part

    def pack_part(self, job: Job, advance: Advance, stopped: threading.Event) -> int:
        """Write a part and then its page of the journal; return how many of its files were skipped."""
        split = self.source.splits[job.split]
        rows: list[tuple[str, int, int, int, str | None]] = []
        digest, offset, squares = hashlib.sha256(), 0, Squares[self.plan.squares]
        with files.atomic_path(self.path(job)) as path, path.open("wb") as part:
            for i, data in enumerate(split.read(job.start, job.stop), job.start):
                if stopped.is_set():
                    raise InterruptedError
                cell, reason = b"", None
                try:
                    square = decode.centre_square(decode.decode_image(data), self.plan.size, squares)
                    cell = encode(square, self.plan)
                except Unreadable as error:
                    reason = str(error)
                part.write(cell)
                digest.update(cell)
                rows.append((split.names[i], int(split.labels[i]), offset, len(cell), reason))
                offset += len(cell)
                advance(1)
            part.flush()
            os.fsync(part.fileno())  # its page must not be on the disk before it
        head = {"bytes": str(offset), "sha256": digest.hexdigest()}
        page = pa.table(list(zip(*rows, strict=True)), PAGE.with_metadata(head))
        with files.atomic_path(self.page_path(job)) as part:
            pa.parquet.write_table(page, part)
        return len(rows) - page["skipped"].null_count

    def check_part(self, job: Job, advance: Advance, stopped: threading.Event) -> tuple[Job, pa.Table, PixelStats]:
        """Read a finished part again and sum up its images.

        Raises:
            UserError: its bytes are not those that were written. It will be packed anew.
        """
        page = self.page(job)
        if page is None:
            raise UserError(f"{self.path(job)} was changed after it was packed: the same command packs it anew")
        size, form, lengths = self.plan.size, self.plan.form, page["bytes"].to_pylist()
        sums, digest = PixelStats(size), hashlib.sha256()
        with self.path(job).open("rb") as part:
            for start in range(0, len(lengths), sums.block):
                if stopped.is_set():
                    raise InterruptedError
                cells = [bytearray(part.read(length)) for length in lengths[start : start + sums.block]]
                images = [cell for cell in cells if cell]  # the others were skipped
                if images and job.split == "train":
                    try:
                        sums.add(torch.stack([decode.decode_stored(cell, size, form) for cell in images]))
                    except (ValueError, RuntimeError):  # no image any more: without it, the checksum differs
                        break
                for cell in cells:
                    digest.update(cell)
                advance(len(cells))
        if digest.hexdigest() != page.schema.metadata[b"sha256"].decode():
            self.page_path(job).unlink()
            raise UserError(
                f"{self.path(job)} does not hold what was written to it (is the disk sound?): "
                f"the same command packs it anew"
            )
        return job, page, sums

    def path(self, job: Job) -> Path:
        return self.root / self.plan.file(job.split, job.number)

    def page_path(self, job: Job) -> Path:
        return self.root / "journal" / f"{job.split}-{job.number:05d}.parquet"

    def page(self, job: Job) -> pa.Table | None:
        """Return the journal's page of a part; None if the part has to be packed."""
        with suppress(OSError, ValueError, LookupError, pa.ArrowException):  # a page that a power cut left half is none
            if not self.page_path(job).is_file():
                return None
            page = pa.parquet.read_table(self.page_path(job))
            if page.schema.equals(PAGE) and self.fits(page, job):
                return page
        return None

    def fits(self, page: pa.Table, job: Job) -> bool:
        """Return whether a page lists the files of its part in their order, and as many bytes as the part has."""
        split, head = self.source.splits[job.split], page.schema.metadata or {}
        offsets, lengths = page["offset"].to_numpy(), page["bytes"].to_numpy()
        return (
            page["name"].to_pylist() == list(split.names[job.start : job.stop])
            and np.array_equal(page["label"].to_numpy(), split.labels[job.start : job.stop])
            and np.array_equal(offsets, np.cumsum(lengths) - lengths)
            and np.array_equal(lengths > 0, page["skipped"].is_null().to_numpy())
            and self.path(job).stat().st_size == lengths.sum() == int(head[b"bytes"])
            and b"sha256" in head
        )

    def pages(self) -> dict[Job, pa.Table]:
        """Return the journal: a page for each part that is packed."""
        return {job: page for job in self.jobs if (page := self.page(job))}

    # -------------------------------------------------------------------------------------------- the end

    def finish(self, advance: Advance) -> store.Store:
        """Check every part; write the index, the statistics, the list of skipped files, and the done mark.

        Raises:
            UserError: a part is damaged, or a split has no image.
        """
        pages, parts, sums = {}, {}, PixelStats(self.plan.size)
        for job, page, of_part in self.parallel(lambda job, stopped: self.check_part(job, advance, stopped), self.jobs):
            pages[job] = page
            sums += of_part
            head = {key.decode(): value.decode() for key, value in page.schema.metadata.items()}
            parts[job] = store.Shard(self.path(job).name, int(head["bytes"]), head["sha256"])
        skipped = self.write_skipped(pages)
        for split, count in skipped.items():
            if count == len(self.source.splits[split]):
                raise ConfigError(
                    f"no file of {split} gave an image, see {self.root / 'skipped.csv'}: mend the source, and remove "
                    f"{self.root}"
                )
        colors = sums.colors()
        with files.atomic_path(self.root / "mean.npy") as part, part.open("wb") as file:
            np.save(file, sums.mean_image().numpy())
        counts = {split: self.write_index(split, pages) for split in self.source.splits}
        tables = ["mean.npy", *(f"{split}.parquet" for split in counts)]
        done = store.Store(
            self.root,
            self.plan,
            self.source.classes,
            images=counts,
            skipped=skipped,
            parts={split: [parts[job] for job in self.jobs if job.split == split] for split in self.source.splits},
            others=[store.measure_shard(self.root / name) for name in tables],
            colors={"vectors": colors.vectors.tolist(), "std": colors.std.tolist()},
        )
        done.write()
        shutil.rmtree(self.root / "journal")
        return done

    def write_index(self, split: str, pages: dict[Job, pa.Table]) -> int:
        """Write `split`.parquet, a row for each image; return the number of images."""
        tables = []
        for job in self.jobs:
            if job.split == split:
                rows = pages[job].filter(pa.compute.is_null(pages[job]["skipped"])).drop_columns("skipped")
                tables.append(rows.add_column(2, "part", pa.array([job.number] * len(rows), pa.int64())))
        index = pa.concat_tables(tables).replace_schema_metadata()
        with files.atomic_path(self.root / f"{split}.parquet") as part:
            pa.parquet.write_table(index, part)
        return len(index)

    def write_skipped(self, pages: dict[Job, pa.Table]) -> dict[str, int]:
        """Write skipped.csv; return how many files of each split it lists."""
        counts = dict.fromkeys(self.source.splits, 0)
        with (
            files.atomic_path(self.root / "skipped.csv") as beside,
            beside.open("w", newline="", encoding="utf-8") as file,
        ):
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["split", "name", "label", "reason"])
            for job in self.jobs:
                if job in pages:
                    rows = pages[job].filter(pa.compute.is_valid(pages[job]["skipped"])).to_pylist()
                    table.writerows(
                        [job.split, files.csv_cell(row["name"]), row["label"], files.csv_cell(row["skipped"])]
                        for row in rows
                    )
                    counts[job.split] += len(rows)
        return counts


def count_skipped(pages: dict[Job, pa.Table]) -> int:
    """Return how many files gave no image."""
    return sum(len(page) - page["skipped"].null_count for page in pages.values())


def encode(image: Tensor, plan: store.Plan) -> bytes:
    """Return a square, uint8 (size, size, 3), as the bytes that go into its store."""
    if plan.quality is None:
        return image.contiguous().numpy().tobytes()
    return decode.encode_jpeg(image.contiguous(), plan.quality)
