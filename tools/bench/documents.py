#!/usr/bin/env python3
"""Measures what a month of edited Office documents stores, beside restic and borg.

    tools/bench/documents.py                    # 60 documents, 30 days, a table
    tools/bench/documents.py --quick            # 12 documents, 4 days: does everything work?

Documents are made and edited by python-docx, openpyxl and python-pptx, which write as Word, Excel and PowerPoint do: every
part of the document anew, deflated by zlib. On each day some documents are edited: a few words, a paragraph, some cells, a
row, the text of a slide. The same seed gives the same documents and edits. Every program backs up the same folder on every
day. The first size is that of the repository after the first backup; the others are what the days added to it.

`make bench-documents` installs what this needs into a virtual environment of its own.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import sys
import tempfile
import time
import types
import zipfile
from pathlib import Path
from typing import Callable

import contestants
from bench import PROJECT, machine, table_of
from contestants import Contestant
from measure import CommandFailed

DAY_0 = 1_793_491_200  # 2026-11-01
EDITED_SHARE = 0.15


class ByContent(contestants.Strongroom):
    """Strongroom with archives taken apart."""

    name = "strongroom, by content"

    def init(self) -> None:
        self.run(self.binary, "init", "--archives", "by-content")


class Whole(contestants.Strongroom):
    """Strongroom with archives as they are."""

    name = "strongroom, whole"

    def init(self) -> None:
        self.run(self.binary, "init", "--archives", "whole")


KINDS: list[type[Contestant]] = [ByContent, Whole, contestants.Restic, contestants.Borg]


class Clock:
    """What `zipfile` takes for the time."""

    now = DAY_0

    def install(self) -> None:
        """Lets archives be dated by this clock and not by the machine's."""
        zipfile.time = types.SimpleNamespace(time=lambda: self.now, localtime=time.gmtime)  # type: ignore[attr-defined]


class Author:
    """Writes and edits documents, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        letters = "eeeeeaaaiiiooounnnrrrtttlllssscdghmpbvfwkz"
        self.words = ["".join(self.random.choices(letters, k=self.random.randint(2, 11))) for _ in range(9_000)]
        # A few words are common, most are rare.
        self.weights = [1 / (rank + 3) for rank in range(len(self.words))]
        self.pictures = [self.picture() for _ in range(12)]

    def text(self, words: int) -> str:
        """Returns some sentences."""
        chosen = self.random.choices(self.words, self.weights, k=words)
        return " ".join(chosen).capitalize() + "."

    def picture(self) -> bytes:
        """Returns a photograph: noise that no program shrinks, as JPEG."""
        from PIL import Image

        side = self.random.choice([120, 200, 320])
        pixels = Image.frombytes("RGB", (side, side), self.random.randbytes(side * side * 3))
        out = io.BytesIO()
        pixels.save(out, "JPEG", quality=60)
        return out.getvalue()

    def make_docx(self, path: Path) -> None:
        """Writes a report: headings, paragraphs, a table, in every third a picture."""
        import docx

        report = docx.Document()
        for _ in range(self.random.choice([3, 6, 12, 30])):
            report.add_heading(self.text(5), level=1)
            for _ in range(self.random.randint(3, 9)):
                paragraph = report.add_paragraph()
                for _ in range(self.random.randint(1, 4)):
                    paragraph.add_run(self.text(self.random.randint(10, 40)) + " ").bold = self.random.random() < 0.1
        table = report.add_table(rows=8, cols=4)
        for row in table.rows:
            for cell in row.cells:
                cell.text = self.text(3)
        if self.random.random() < 0.3:
            report.add_picture(io.BytesIO(self.random.choice(self.pictures)))
        report.save(str(path))

    def edit_docx(self, path: Path) -> None:
        """Changes some words, and adds a paragraph."""
        import docx

        report = docx.Document(str(path))
        runs = [run for paragraph in report.paragraphs for run in paragraph.runs]
        for run in self.random.sample(runs, min(3, len(runs))):
            words = run.text.split(" ")
            words[self.random.randrange(len(words))] = self.random.choice(self.words)
            run.text = " ".join(words)
        if self.random.random() < 0.5:
            report.add_paragraph(self.text(30))
        report.core_properties.revision += 1
        report.save(str(path))

    def make_xlsx(self, path: Path) -> None:
        """Writes a table of bookings on one to three sheets."""
        import openpyxl

        book = openpyxl.Workbook()
        for number in range(self.random.randint(1, 3)):
            sheet = book.active if number == 0 else book.create_sheet(f"Quarter {number}")
            sheet.append(["Date", "Customer", "Item", "Number", "Price", "Total"])
            for row in range(self.random.choice([60, 300, 1500])):
                count, price = self.random.randint(1, 40), round(self.random.random() * 900, 2)
                sheet.append([f"2026-{row % 12 + 1:02}-{row % 28 + 1:02}", self.random.choice(self.words[:400]),
                              self.text(2), count, price, f"=D{row + 2}*E{row + 2}"])
        book.save(str(path))

    def edit_xlsx(self, path: Path) -> None:
        """Changes some cells, and adds rows."""
        import openpyxl

        book = openpyxl.load_workbook(str(path))
        sheet = self.random.choice(book.worksheets)
        for _ in range(4):
            sheet.cell(self.random.randint(2, sheet.max_row), self.random.choice([4, 5])).value = self.random.randint(1, 90)
        for _ in range(self.random.randint(0, 3)):
            sheet.append(["2026-12-01", self.random.choice(self.words[:400]), self.text(2), 1, 9.5, 9.5])
        book.save(str(path))

    def make_pptx(self, path: Path) -> None:
        """Writes slides: titles, lists, here and there a picture."""
        import pptx
        from pptx.util import Inches

        talk = pptx.Presentation()
        for _ in range(self.random.choice([5, 12, 25])):
            slide = talk.slides.add_slide(talk.slide_layouts[1])
            slide.shapes.title.text = self.text(4)
            slide.placeholders[1].text = "\n".join(self.text(8) for _ in range(4))
            if self.random.random() < 0.2:
                slide.shapes.add_picture(io.BytesIO(self.random.choice(self.pictures)), Inches(1), Inches(1))
        talk.save(str(path))

    def edit_pptx(self, path: Path) -> None:
        """Changes the list of a slide."""
        import pptx

        talk = pptx.Presentation(str(path))
        slide = talk.slides[self.random.randrange(len(talk.slides))]
        lines = slide.placeholders[1].text.split("\n")
        lines[self.random.randrange(len(lines))] = self.text(8)
        slide.placeholders[1].text = "\n".join(lines)
        talk.save(str(path))

    def make(self, folder: Path, count: int) -> None:
        """Writes documents into folders of ten."""
        for number in range(count):
            kind = ["docx", "docx", "xlsx", "docx", "pptx", "xlsx"][number % 6]
            path = folder / f"project {number // 10}" / f"{number} {self.random.choice(self.words)}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            getattr(self, f"make_{kind}")(path)

    def edit(self, folder: Path) -> int:
        """Edits a day's share of the documents; returns the bytes of the files that were written."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        chosen = self.random.sample(paths, max(2, round(len(paths) * EDITED_SHARE)))
        for path in chosen:
            getattr(self, f"edit_{path.suffix[1:]}")(path)
        return sum(path.stat().st_size for path in chosen)


def measured(arguments: argparse.Namespace, progress: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Runs the month; returns each program's figures."""
    clock, author = Clock(), Author(arguments.seed)
    clock.install()
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.cache, prefix="documents.") as work:
        source = Path(work, "source")
        author.make(source, arguments.documents)
        programs = []
        for kind in KINDS:
            folder = Path(work, kind.name.replace(" ", "-").replace(",", ""))
            folder.mkdir()
            programs.append(kind(source, folder))
            programs[-1].init()
        plain = {"source": sum(path.stat().st_size for path in source.rglob("*") if path.is_file()), "edited": 0}
        for day in range(arguments.days + 1):
            if day:
                clock.now = DAY_0 + day * 86_400
                plain["edited"] += author.edit(source)
            for program in programs:
                usage = program.backup(day + 1)
                own = figures.setdefault(program.name, {"cpu": 0.0})
                own["cpu"] += usage.cpu_s
                size = program.size()
                if day == 0:
                    own["first"], own["cpu first"] = size, usage.cpu_s
                elif day == 1:
                    own["day 2"] = size - own["first"]
                own["month"] = size - own["first"]
            progress(f"day {day} of {arguments.days}")
    figures["plain files"] = {"first": plain["source"], "month": plain["edited"]}
    return figures


def main() -> int:
    """Runs the bench; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strongroom", type=Path, default=PROJECT / "target/release/strongroom", metavar="PATH")
    parser.add_argument("--documents", type=int, default=60)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="12 documents, 4 days")
    parser.add_argument("--cache", type=Path, metavar="DIR",
                        default=Path(os.environ.get("STRONGROOM_CACHE") or PROJECT / ".cache"))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.documents, arguments.days = 12, 4
    arguments.cache = arguments.cache.resolve()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    contestants.Strongroom.binary = arguments.strongroom.resolve()
    started = time.monotonic()
    try:
        versions = [kind.version() for kind in KINDS if kind is not ByContent]
        figures = measured(arguments, lambda text: print(f"[{time.monotonic() - started:4.0f} s] {text}", file=sys.stderr))
    except (CommandFailed, FileNotFoundError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.documents} documents, {arguments.days} days. {machine()}. {'; '.join(versions)}.\n")
    rows = [("first backup (KB)", "first", 1e-3), ("added by day 2 (KB)", "day 2", 1e-3),
            (f"added by {arguments.days} days (KB)", "month", 1e-3), ("CPU of the first backup (s)", "cpu first", 1),
            ("CPU of all backups (s)", "cpu", 1)]
    print(table_of(figures, rows, "strongroom, by content", ("restic", "borg")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
