"""How small the tenant could get: what a repository's size is measured against.

Two bounds, both computed with the zstd command line tool at level 19 and a window as large as the data:

* ``tar | zstd -19 --long``: everything as it lies there, with every repetition found, however far apart;
* every decoded attachment and text once: messages taken apart, base64 and quoted-printable undone, equal parts and
  files kept once. Headers are left out, so no program that restores byte for byte can get below it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from email.parser import BytesParser
from email.policy import compat32
from pathlib import Path
from typing import IO, Iterator

from measure import CommandFailed

TIMEOUT_S = 900.0


@contextmanager
def bounded(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kills the processes when the time is up, and at the end in any case."""
    timer = threading.Timer(TIMEOUT_S, lambda: [process.kill() for process in processes])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        for process in processes:
            process.kill()
            process.wait()


def window_log(size_bytes: int) -> int:
    """Returns the smallest window (as a power of two that zstd takes) that holds ``size_bytes``."""
    return min(31, max(27, size_bytes.bit_length()))


def zstd_command(size_bytes: int) -> list[str]:
    """Returns the command that compresses standard input as far as zstd can."""
    return ["zstd", "-19", f"--long={window_log(size_bytes)}", "-T2", "-c", "-q"]


def count_bytes(stream: IO[bytes]) -> int:
    """Reads a stream to its end and returns its length."""
    total = 0
    while block := stream.read(1 << 20):
        total += len(block)
    return total


def tar_bound(source: Path, source_bytes: int) -> int:
    """Returns the size of ``tar | zstd -19 --long`` over the source."""
    order = ["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]
    tar = subprocess.Popen(["tar", *order, "-C", str(source), "-cf", "-", "."], stdout=subprocess.PIPE)
    zstd = subprocess.Popen(zstd_command(source_bytes), stdin=tar.stdout, stdout=subprocess.PIPE)
    with bounded(tar, zstd):
        assert tar.stdout is not None and zstd.stdout is not None
        tar.stdout.close()
        size = count_bytes(zstd.stdout)
        if zstd.wait() != 0 or tar.wait() != 0:
            raise CommandFailed("tar | zstd failed or ran out of time")
        return size


def distinct_contents(source: Path) -> Iterator[bytes]:
    """Yields every decoded part of every message and every other file, each content once, in order of path."""
    seen: set[bytes] = set()
    parser = BytesParser(policy=compat32)
    for folder, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            data = Path(folder, name).read_bytes()
            contents = [data]
            if name.endswith(".eml"):
                parts = parser.parsebytes(data).walk()
                contents = [part.get_payload(decode=True) or b"" for part in parts if not part.is_multipart()]
            for content in contents:
                digest = hashlib.blake2b(content, digest_size=16).digest()
                if digest not in seen:
                    seen.add(digest)
                    yield content


def decoded_bound(source: Path, source_bytes: int) -> int:
    """Returns the size of every decoded attachment and text once under ``zstd -19 --long``."""
    # Through a file, so that zstd's output can be counted without a second thread.
    with tempfile.TemporaryFile() as out:
        zstd = subprocess.Popen(zstd_command(source_bytes), stdin=subprocess.PIPE, stdout=out)
        with bounded(zstd):
            assert zstd.stdin is not None
            try:
                for content in distinct_contents(source):
                    zstd.stdin.write(content)
                zstd.stdin.close()
            except BrokenPipeError:
                pass  # its status says what happened
            if zstd.wait() != 0:
                raise CommandFailed("zstd failed or ran out of time")
            return os.fstat(out.fileno()).st_size
