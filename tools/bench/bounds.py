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
from email.parser import BytesParser
from email.policy import compat32
from pathlib import Path
from typing import IO, Iterator

TIMEOUT_S = 600


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
    try:
        assert tar.stdout is not None and zstd.stdout is not None
        tar.stdout.close()
        size = count_bytes(zstd.stdout)
        if zstd.wait(TIMEOUT_S) != 0 or tar.wait(TIMEOUT_S) != 0:
            raise RuntimeError("tar | zstd failed")
        return size
    finally:
        for process in (tar, zstd):
            process.kill()
            process.wait()


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
    import tempfile

    # Through a file, so that zstd's output can be counted without a second thread.
    with tempfile.TemporaryFile() as out:
        zstd = subprocess.Popen(zstd_command(source_bytes), stdin=subprocess.PIPE, stdout=out)
        try:
            assert zstd.stdin is not None
            for content in distinct_contents(source):
                zstd.stdin.write(content)
            zstd.stdin.close()
            if zstd.wait(TIMEOUT_S) != 0:
                raise RuntimeError("zstd failed")
            return os.fstat(out.fileno()).st_size
        finally:
            zstd.kill()
            zstd.wait()
