#!/usr/bin/env python3
"""Measures Strongroom beside restic, borg and plain files, on the same tenant, in turns.

    tools/bench/bench.py                        # all that are installed, three rounds, a table of medians
    tools/bench/bench.py --only restic,borg     # some of them
    tools/bench/bench.py --large                # also with a tenant of 200,000 files, and how each cost grows
    tools/bench/bench.py --before PATH          # an older build of Strongroom takes part as well
    tools/bench/bench.py --quick                # a small tenant, one round: does everything work?

Each round gives each program an empty repository and measures the first backup, a second run over the unchanged source,
and fresh mounts: one for `find` and `ls`, one for `ls` alone, one for ripgrep, one for `cp -r` of one person's mail to
memory, one for 1,000 single mails in random order. The order of the programs changes from round to round. The source is
read once before each backup, so that all of them find it in memory and the disk decides nothing; "cold" means a fresh
mount after the kernel has dropped its caches (as root), "warm" the same command again. Counts and hits through a mount
must equal those of the source, or the run fails.

On machines whose idle CPUs sleep deeply (virtual machines above all), a request to a file system in user space takes
five times as long when the daemon's CPU has to be woken for it, and the figures then say more about the machine than
about the program. ``--spin`` keeps the CPUs awake during the mount measurements with one process per CPU at nice 19,
which gives way to everything else: for all programs alike, and noted under the table.

Only Python's standard library is used. borg, ripgrep and zstd come from the distribution, and restic from the next one
(tools/bench/restic.sh). rustic takes part where it is installed (`cargo install rustic-rs --features mount`).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import bounds
import contestants
import measure
from contestants import Contestant
from measure import CommandFailed

PROJECT = Path(__file__).resolve().parents[2]
READ_TIMEOUT_S = 1200.0
LARGE = {"users": 60, "mails_per_user": 3000, "files_per_user": 330}  # 200,000 files
NEEDLE = "heliograph"  # strongroom-corpora plants it in one message in four hundred


@dataclass(frozen=True)
class Metric:
    """One row of the table."""

    key: str
    label: str
    unit: str


METRICS = [
    Metric("backup_wall", "first backup", "s"),
    Metric("backup_cpu", "first backup, CPU", "s"),
    Metric("backup_rss", "first backup, peak memory", "MiB"),
    Metric("again_wall", "unchanged run", "s"),
    Metric("again_cpu", "unchanged run, CPU", "s"),
    Metric("size", "repository", "MB"),
    Metric("mount_ls", "mount to first `ls`", "s"),
    Metric("find_cold", "`find`, cold", "s"),
    Metric("find_warm", "`find`, warm", "s"),
    Metric("ls_cold", "`ls -lR`, cold", "s"),
    Metric("ls", "`ls -lR`, warm", "s"),
    Metric("rg_cold", "`rg`, cold", "s"),
    Metric("rg_warm", "`rg`, warm", "s"),
    Metric("cp_cold", "`cp -r` of a mailbox, cold", "s"),
    Metric("cp_warm", "`cp -r` of a mailbox, warm", "s"),
    Metric("read_all", "1,000 random mails, cold", "s"),
    Metric("read_p50", "one of them, median", "ms"),
    Metric("read_p99", "one of them, 99th percentile", "ms"),
    Metric("read_warm", "1,000 random mails, warm", "s"),
    Metric("mount_rss", "mount, peak memory", "MiB"),
]
SCALES = {"s": 1.0, "MiB": 1 / (1 << 20), "MB": 1e-6, "ms": 1e3}
Results = dict[str, dict[str, list[float]]]


def files_below(root: Path) -> Iterator[Path]:
    """Yields every file below a folder in a fixed order."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            yield Path(folder, name)


def find_count(root: Path) -> tuple[float, int]:
    """Runs `find | wc -l`; returns seconds and the count."""
    usage = measure.run(["sh", "-c", 'find "$0" | wc -l', root], READ_TIMEOUT_S)
    return usage.wall_s, int(usage.output)


def rg_hits(root: Path, word: str) -> tuple[float, int]:
    """Searches all files for a word; returns seconds and how many files hold it."""
    words = ["rg", "--files-with-matches", "--no-ignore", "--hidden", "--no-config", "-e", word, str(root)]
    usage = measure.run(words, READ_TIMEOUT_S, allowed=(0, 1))
    return usage.wall_s, len(usage.output.splitlines())


def read_mails(root: Path, names: Path) -> None:
    """Reads the listed files and prints each one's seconds as JSON: the work of a child process (--read-mails)."""
    times = []
    for name in names.read_text().splitlines():
        started = time.perf_counter_ns()
        with open(root / name, "rb", buffering=0) as mail:
            while mail.read(1 << 20):
                pass
        times.append((time.perf_counter_ns() - started) / 1e9)
    json.dump(times, sys.stdout)


def most_mail(source: Path, mails: list[Path]) -> Path:
    """Returns the folder of the person with the most mail, relative to the source: two levels below it, or less."""
    owners = Counter(Path(*path.relative_to(source).parts[:-1][:2]) for path in mails)
    return owners.most_common(1)[0][0]


def copy_out(folder: Path, wanted_bytes: int) -> float:
    """Copies a folder to memory and removes the copy; returns the seconds that copying took."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench.") as target:
        usage = measure.run(["cp", "-r", folder, target], READ_TIMEOUT_S)
        expect("cp -r", sum(path.lstat().st_size for path in files_below(Path(target))), wanted_bytes)
    return usage.wall_s


def expect(what: str, found: int, wanted: int) -> None:
    """Fails the run if a mount shows something else than the source holds."""
    if found != wanted:
        raise CommandFailed(f"{what}: {found} through the mount, {wanted} in the source")


class Bench:
    """The measurements of all rounds."""

    def __init__(self, source: Path, work: Path, word: str, spin: bool) -> None:
        self.source = source
        self.work = work
        self.word = word
        self.spin = spin
        self.results: Results = {}
        self.cold = measure.drop_caches()
        self.source_bytes = sum(path.lstat().st_size for path in files_below(source))
        self.files = sum(1 for _ in files_below(source))
        self.entries = find_count(source)[1]
        self.hits = rg_hits(source, word)[1]
        mails = [path for path in files_below(source) if path.suffix == ".eml"] or list(files_below(source))
        chosen = random.Random(1).sample(mails, min(1000, len(mails)))
        self.mailbox = most_mail(source, mails)
        self.mailbox_bytes = sum(path.lstat().st_size for path in files_below(source / self.mailbox))
        self.names = work / "mails"
        self.names.write_text("".join(f"{path.relative_to(source)}\n" for path in chosen))

    def add(self, contestant: Contestant, key: str, value: float) -> None:
        """Notes one measurement."""
        self.results.setdefault(contestant.name, {}).setdefault(key, []).append(value)

    def one(self, contestant: Contestant, progress: Callable[[str], None]) -> None:
        """Measures one program once."""
        progress("first backup")
        contestant.init()
        self.warm_source()
        usage = contestant.backup(1)
        self.add(contestant, "backup_wall", usage.wall_s)
        self.add(contestant, "backup_cpu", usage.cpu_s)
        self.add(contestant, "backup_rss", usage.rss_bytes)
        self.add(contestant, "size", contestant.size())
        progress("unchanged run")
        usage = contestant.backup(2)
        self.add(contestant, "again_wall", usage.wall_s)
        self.add(contestant, "again_cpu", usage.cpu_s)
        with measure.spinners(os.cpu_count() or 1) if self.spin else nullcontext():
            self.mounts(contestant, progress)

    def mounts(self, contestant: Contestant, progress: Callable[[str], None]) -> None:
        """Measures what reads, through three fresh mounts."""
        peak = 0
        progress("find, ls")
        measure.drop_caches()
        with contestant.mount() as mount:
            if mount.daemon_pid:
                self.add(contestant, "mount_ls", mount.ready_s)
            for key in ("find_cold", "find_warm"):
                wall, count = find_count(mount.root)
                expect("find", count, self.entries)
                self.add(contestant, key, wall)
            usage = measure.run(["sh", "-c", 'ls -lR "$0" >/dev/null', mount.root], READ_TIMEOUT_S)
            self.add(contestant, "ls", usage.wall_s)
            peak = max(peak, mount.daemon_peak())
        measure.drop_caches()
        with contestant.mount() as mount:
            usage = measure.run(["sh", "-c", 'ls -lR "$0" >/dev/null', mount.root], READ_TIMEOUT_S)
            self.add(contestant, "ls_cold", usage.wall_s)
        progress("rg")
        measure.drop_caches()
        with contestant.mount() as mount:
            for key in ("rg_cold", "rg_warm"):
                wall, hits = rg_hits(mount.root, self.word)
                expect("rg", hits, self.hits)
                self.add(contestant, key, wall)
            peak = max(peak, mount.daemon_peak())
        progress("cp -r")
        measure.drop_caches()
        with contestant.mount() as mount:
            for key in ("cp_cold", "cp_warm"):
                self.add(contestant, key, copy_out(mount.root / self.mailbox, self.mailbox_bytes))
            peak = max(peak, mount.daemon_peak())
        progress("random mails")
        measure.drop_caches()
        with contestant.mount() as mount:
            words = [sys.executable, __file__, "--read-mails", mount.root, self.names]
            times = sorted(json.loads(measure.run(words, READ_TIMEOUT_S).output))
            self.add(contestant, "read_all", sum(times))
            self.add(contestant, "read_p50", times[len(times) // 2])
            self.add(contestant, "read_p99", times[len(times) * 99 // 100])
            self.add(contestant, "read_warm", sum(json.loads(measure.run(words, READ_TIMEOUT_S).output)))
            peak = max(peak, mount.daemon_peak())
        if peak:
            self.add(contestant, "mount_rss", peak)

    def warm_source(self) -> None:
        """Reads the source once, so that every program finds it in memory."""
        for path in files_below(self.source):
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    def medians(self) -> dict[str, dict[str, float]]:
        """Returns each program's median of each metric."""
        return {name: {key: statistics.median(values) for key, values in metrics.items()}
                for name, metrics in self.results.items()}


def formatted(metric: Metric, value: float | None) -> str:
    """Returns a value in the unit of its row, with three figures or so."""
    if value is None:
        return "–"
    value *= SCALES[metric.unit]
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}"


def ratio(value: float | None, other: float | None) -> str:
    """Returns ``value / other`` for the table."""
    return f"{value / other:.2f}" if value and other else "–"


def table(medians: dict[str, dict[str, float]]) -> str:
    """Returns the Markdown table: a row a metric, a column a program, then Strongroom's ratios."""
    names = [name for name in contestants.ALL if name in medians]
    ratios = "strongroom" in names and len(names) > 1
    head = ["", *names]
    if ratios:
        others = [name for name in contestants.BACKUP_PROGRAMS if name in names]
        head += ["strongroom / before"] if "before" in names else []
        head += [f"strongroom / best of {', '.join(others) or 'none'}", "strongroom / plain"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for metric in METRICS:
        values = {name: medians[name].get(metric.key) for name in names}
        line = [f"{metric.label} ({metric.unit})", *(formatted(metric, values[name]) for name in names)]
        if ratios:
            best = min((value for name in others if (value := values.get(name))), default=None)
            line += [ratio(values["strongroom"], values["before"])] if "before" in names else []
            line += [ratio(values["strongroom"], best),
                     ratio(values["strongroom"], values.get("plain"))]
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def table_of(figures: dict[str, dict[str, float]], rows: list[tuple[str, str, float]], own: str,
             peers: tuple[str, ...]) -> str:
    """Returns a Markdown table of sizes and times: a row a figure, a column a program, then the ratio of one program to
    the best of its peers."""
    head = ["", *figures, f"{own} / best of {', '.join(peers)}"]
    lines = [head, ["---", *["--:"] * (len(head) - 1)]]
    for label, key, scale in rows:
        values = [values.get(key) for values in figures.values()]
        best = min((value for name in peers if (value := figures[name].get(key))), default=None)
        cells = ["–" if value is None else f"{value * scale:,.0f}" if scale != 1 else f"{value:.1f}" for value in values]
        lines.append([label, *cells, ratio(figures[own].get(key), best)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def growth_table(benches: list[Bench]) -> str:
    """Returns the Markdown table of Strongroom's costs: a row a metric, a column a tenant, then how often the smallest."""
    medians = [bench.medians().get("strongroom", {}) for bench in benches]
    first = benches[0]
    lines = [["", *(f"{bench.files:,} files" for bench in benches),
              *(f"{bench.files:,} / {first.files:,} files" for bench in benches[1:])],
             ["---", *["--:"] * (2 * len(benches) - 1)],
             ["files", *(f"{bench.files:,}" for bench in benches),
              *(ratio(bench.files, first.files) for bench in benches[1:])]]
    for metric in METRICS:
        values = [found.get(metric.key) for found in medians]
        lines.append([f"{metric.label} ({metric.unit})", *(formatted(metric, value) for value in values),
                      *(ratio(value, values[0]) for value in values[1:])])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def make_tenant(arguments: argparse.Namespace, changed: dict[str, int]) -> Path:
    """Returns the tenant's folder, made new unless the same generator made one of the same sizes before."""
    numbers = {**vars(arguments), **changed}
    sizes = {name.replace("_", "-"): numbers[name] for name in ("seed", "users", "mails_per_user", "files_per_user")}
    generator: Path = arguments.corpora
    if not generator.exists():
        raise CommandFailed(f"{generator} is not there: build it (`cargo build --release -p strongroom-corpora`), or "
                            "name it with --corpora, or a folder with --source")
    arguments.cache.mkdir(parents=True, exist_ok=True)
    folder = arguments.cache / ("tenant-" + "-".join(str(size) for size in sizes.values()))
    mark = folder.with_suffix(".made-by")
    digest = hashlib.sha256(generator.read_bytes()).hexdigest()
    if folder.is_dir() and mark.is_file() and mark.read_text() == digest:
        return folder
    print("making the tenant ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=arguments.cache, prefix="tenant.") as temporary:
        options = [f"--{name}={size}" for name, size in sizes.items()]
        made = Path(temporary, "tenant")
        measure.run([generator, "office", *options, made], 3600)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    mark.write_text(digest)
    return folder


def bound_lines(bench: Bench, medians: dict[str, dict[str, float]]) -> tuple[dict[str, int], list[str]]:
    """Computes the bounds; returns them and what to print of them."""
    found = {"tar | zstd -19 --long": bounds.tar_bound(bench.source, bench.source_bytes),
             "every decoded attachment and text once, zstd -19": bounds.decoded_bound(bench.source,
                                                                                      bench.source_bytes)}
    lines = []
    for name, size in found.items():
        own = medians.get("strongroom", {}).get("size")
        lines.append(f"- {name}: {size / 1e6:.1f} MB" + (f"; strongroom is {own / size:.2f} of it" if own else ""))
    return found, lines


def print_bench(arguments: argparse.Namespace, bench: Bench, versions: dict[str, str],
                progress: Callable[[str], None]) -> dict[str, object]:
    """Prints what one tenant's measurements gave, and returns all of it."""
    medians = bench.medians()
    print(f"{bench.files:,} files, {bench.source_bytes / 1e6:.1f} MB; `{arguments.word}` in {bench.hits} files. "
          f"Medians of {arguments.rounds}. {machine()}. {'; '.join(versions.values())}.")
    print(f"Idle CPUs {'were kept awake' if arguments.spin else 'could sleep'} during the mount measurements"
          + ("." if bench.cold else "; NOT ROOT: caches were not dropped, \"cold\" is a fresh mount only.") + "\n")
    print(table(medians), flush=True)
    found: dict[str, int] = {}
    if arguments.bounds:
        progress("bounds")
        found, lines = bound_lines(bench, medians)
        print("\n" + "\n".join(lines))
    return {"machine": machine(), "versions": versions, "files": bench.files, "spin": arguments.spin,
            "source_bytes": bench.source_bytes, "caches_dropped": bench.cold, "medians": medians,
            "rounds": bench.results, "bounds": found}


def machine() -> str:
    """Returns the processor, kernel and memory in a line."""
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} x {model}, {memory:.0f} GiB, Linux {platform.release()}"


def parse() -> argparse.Namespace:
    """Returns the arguments of the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strongroom", type=Path, default=PROJECT / "target/release/strongroom", metavar="PATH")
    parser.add_argument("--before", type=Path, metavar="PATH", help="an older build of Strongroom, which takes part")
    parser.add_argument("--corpora", type=Path, default=PROJECT / "target/release/strongroom-corpora", metavar="PATH")
    parser.add_argument("--only", default=",".join(contestants.USUALLY), help="programs, separated by commas")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--users", type=int, default=24)
    parser.add_argument("--mails-per-user", type=int, default=500)
    parser.add_argument("--files-per-user", type=int, default=120)
    parser.add_argument("--large", action="store_true",
                        help="measure a tenant of 200,000 files as well, and print how each cost grows")
    parser.add_argument("--quick", action="store_true", help="a small tenant, one round")
    parser.add_argument("--source", type=Path, help="back this folder up instead of a made tenant")
    parser.add_argument("--word", default=NEEDLE, help="what rg looks for")
    parser.add_argument("--bounds", action="store_true", help="compute how small it could get (several minutes more)")
    parser.add_argument("--spin", action="store_true", help="keep idle CPUs awake during mount measurements")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--cache", type=Path, metavar="DIR",
                        default=Path(os.environ.get("STRONGROOM_CACHE") or PROJECT / ".cache"))
    parser.add_argument("--read-mails", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.users, arguments.mails_per_user, arguments.files_per_user, arguments.rounds = 4, 200, 60, 1
    arguments.cache = arguments.cache.resolve()
    if arguments.before:
        arguments.only += ",before"
    unknown = set(arguments.only.split(",")) - set(contestants.ALL)
    if unknown:
        parser.error(f"--only knows {', '.join(contestants.ALL)}; not {', '.join(sorted(unknown))}")
    return arguments


def main() -> int:
    """Runs the bench; returns the exit code."""
    arguments = parse()
    if arguments.read_mails:
        read_mails(*arguments.read_mails)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    contestants.Strongroom.binary = arguments.strongroom.resolve()
    if arguments.before:
        contestants.Before.binary = arguments.before.resolve()
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {text}", file=sys.stderr, flush=True)

    try:
        kinds = [contestants.ALL[name] for name in contestants.ALL if name in arguments.only.split(",")]
        versions = {kind.name: kind.version() for kind in kinds}
        sources = [arguments.source.resolve() if arguments.source else make_tenant(arguments, {})]
        if arguments.large:
            sources.append(make_tenant(arguments, LARGE))
        benches, reports = [], []
        for source in sources:
            with ExitStack() as stack:
                work = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.cache, prefix="bench.")))
                bench = Bench(source, work, arguments.word, arguments.spin)
                for number in range(arguments.rounds):
                    turn = number % len(kinds)
                    for kind in kinds[turn:] + kinds[:turn]:
                        with contestants.fresh(kind, source, work) as contestant:
                            label = f"{bench.files:,} files, round {number + 1} of {arguments.rounds}: {kind.name}"
                            bench.one(contestant, lambda text, label=label: progress(f"{label}: {text}"))
                reports.append(print_bench(arguments, bench, versions, progress))
                benches.append(bench)
        if len(benches) > 1:
            print("\n" + growth_table(benches), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(reports[0] if len(reports) == 1 else reports, indent=2) + "\n")
        progress("done")
        return 0
    except (CommandFailed, FileNotFoundError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; everything is unmounted and removed", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
