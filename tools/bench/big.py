#!/usr/bin/env python3
"""Measures how one big file is read through the mount: from its beginning to its end, and here and there.

    tools/bench/big.py                          # 1 GiB, three rounds
    tools/bench/big.py --megabytes 256 --rounds 1

The file is half text and half noise, in turns of 4 MiB, so that both decompression and decryption have work to do. Held against it:
the plain file on the disk, `zstd -d` of the same bytes (one thread, no decryption), and `strongroom check --read-data`, which reads,
decrypts, decompresses and proves every block of the repository once: what the mount does, without a mount. "Cold" is a fresh
mount after the kernel has dropped its caches (as root).
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import contestants
import measure
from bench import PROJECT, machine

STRETCH = 4 << 20
RANDOM_READS = 2_000
RANDOM_BYTES = 4_096
TIMEOUT_S = 600.0


def make(path: Path, megabytes: int) -> None:
    """Writes the file: words in random order, then noise, and so on."""
    source = random.Random(1)
    words = [bytes(source.choices(b"abcdefghijklmnopqrstuvwxyz", k=source.randint(2, 9))) for _ in range(4_000)]
    with path.open("wb") as file:
        for stretch in range(megabytes * (1 << 20) // STRETCH):
            if stretch % 2:
                file.write(source.randbytes(STRETCH))
            else:
                file.write(b" ".join(source.choices(words, k=STRETCH // 5))[:STRETCH].ljust(STRETCH))


def sequential(path: Path) -> float:
    """Returns the seconds that reading the whole file takes, by pieces of a megabyte."""
    return measure.run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"], TIMEOUT_S).wall_s


def here_and_there(path: Path) -> list[float]:
    """Returns the seconds of each of many small reads, in ascending order."""
    source = random.Random(2)
    pages = path.stat().st_size // RANDOM_BYTES
    times = []
    with path.open("rb", buffering=0) as file:
        for _ in range(RANDOM_READS):
            offset = source.randrange(pages) * RANDOM_BYTES
            started = time.perf_counter()
            os.pread(file.fileno(), RANDOM_BYTES, offset)
            times.append(time.perf_counter() - started)
    return sorted(times)


def one(program: contestants.Strongroom, path: Path, packed: Path) -> dict[str, float]:
    """Measures each once; seconds."""
    found = {}
    measure.drop_caches()
    found["plain, cold"] = sequential(path)
    found["plain, warm"] = sequential(path)
    found["zstd -d"] = measure.run(["zstd", "-d", "-q", "-f", "-o", "/dev/null", packed], TIMEOUT_S).wall_s
    measure.drop_caches()
    found["check --read-data"] = program.run(program.binary, "check", "--read-data", "--quiet").wall_s
    measure.drop_caches()
    with program.mount() as mount:
        found["mount, cold"] = sequential(mount.root / path.name)
        found["mount, warm"] = sequential(mount.root / path.name)
    measure.drop_caches()
    with program.mount() as mount:
        times = here_and_there(mount.root / path.name)
        found["4 KiB, median"] = times[len(times) // 2]
        found["4 KiB, 99th percentile"] = times[len(times) * 99 // 100]
        found["mount, peak MiB"] = mount.daemon_peak() / (1 << 20)
    return found


def main() -> int:
    """Runs the measurement; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--strongroom", type=Path, default=PROJECT / "target/release/strongroom", metavar="PATH")
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, metavar="DIR", help="where there is room for twice the file")
    arguments = parser.parse_args()
    contestants.Strongroom.binary = arguments.strongroom.resolve()
    with tempfile.TemporaryDirectory(dir=arguments.work, prefix="bench.") as temporary:
        source = Path(temporary, "source")
        source.mkdir()
        path, packed = source / "big", Path(temporary, "big.zst")
        make(path, arguments.megabytes)
        measure.run(["zstd", "-q", "-3", "-o", packed, path], TIMEOUT_S)
        program = contestants.Strongroom(source, Path(temporary))
        program.init()
        program.backup(1)
        rounds = [one(program, path, packed) for _ in range(arguments.rounds)]
    medians = {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}
    print(f"{arguments.megabytes} MiB, medians of {arguments.rounds}. {machine()}.\n")
    for key, value in medians.items():
        if "4 KiB" in key:
            print(f"{key}: {value * 1e3:.2f} ms")
        elif "MiB" in key:
            print(f"{key}: {value:.0f}")
        else:
            print(f"{key}: {value:.2f} s, {arguments.megabytes / value:.0f} MiB/s")
    print(f"mount, cold, is {medians['check --read-data'] / medians['mount, cold']:.2f} of the speed of check --read-data")
    print(f"mount, warm, is {medians['plain, warm'] / medians['mount, warm']:.2f} of the speed of the plain file, warm")
    return 0


if __name__ == "__main__":
    sys.exit(main())
