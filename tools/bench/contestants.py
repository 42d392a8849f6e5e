"""How each program is told to do the same: make a repository, back up, mount."""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Mapping

import measure
from measure import Mount, Usage

PASSWORD = "correct horse battery staple"
BACKUP_TIMEOUT_S = 1800.0


class Contestant(ABC):
    """A program under test, working in a folder of its own that is new in each round."""

    name: str

    def __init__(self, source: Path, work: Path) -> None:
        self.source = source.resolve()
        self.work = work
        self.repository = work / "repository"
        self.point = work / "mount"

    @classmethod
    @abstractmethod
    def version(cls) -> str:
        """Returns name and version, or raises FileNotFoundError if the program is not there."""

    @abstractmethod
    def init(self) -> None:
        """Makes an empty repository."""

    @abstractmethod
    def backup(self, number: int) -> Usage:
        """Backs the source up; ``number`` counts from 1."""

    @abstractmethod
    def mount(self) -> Iterator[Mount]:
        """Shows the newest backup; a context manager."""

    def env(self) -> Mapping[str, str]:
        """Returns the environment of its commands."""
        return {}

    def run(self, *words: str | Path) -> Usage:
        """Runs one of its commands."""
        return measure.run(words, BACKUP_TIMEOUT_S, self.env())

    def size(self) -> int:
        """Returns the bytes in the repository's files."""
        return sum(path.lstat().st_size for path in self.repository.rglob("*") if path.is_file())


def first_line(*words: str) -> str:
    """Returns the first line that a command prints."""
    result = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    return result.stdout.strip().splitlines()[0]


class Strongroom(Contestant):
    """The program of this project."""

    name = "strongroom"
    binary = Path("target/release/strongroom")

    @classmethod
    def version(cls) -> str:
        if not cls.binary.exists():
            raise FileNotFoundError(f"{cls.binary}: build it with `cargo build --release`, or name it (--strongroom)")
        return first_line(str(cls.binary), "--version")

    def env(self) -> Mapping[str, str]:
        return {"STRONGROOM_REPO": str(self.repository), "STRONGROOM_PASSWORD": PASSWORD,
                "STRONGROOM_STATE_DIR": str(self.work / "state")}

    def init(self) -> None:
        self.run(self.binary, "init")

    def backup(self, number: int) -> Usage:
        return self.run(self.binary, "backup", "--files", self.source, "--as", "office", "--json", "--quiet")

    @contextmanager
    def mount(self) -> Iterator[Mount]:
        # One snapshot at the root: `latest` is a link, which `find` and `rg` do not follow.
        words = [self.binary, "mount", self.point, "--snapshot", "latest", "--foreground"]
        with measure.mounted(words, self.point, self.point, self.env()) as mount:
            yield mount


class Before(Strongroom):
    """An older build of the same program (--before)."""

    name = "before"

    @classmethod
    def version(cls) -> str:
        return f"before: {super().version()}"


class Restic(Contestant):
    """restic with its defaults: zstd, AES-256-CTR with Poly1305."""

    name = "restic"

    @classmethod
    def version(cls) -> str:
        return " ".join(first_line("restic", "version").split()[:2])

    def env(self) -> Mapping[str, str]:
        return {"RESTIC_REPOSITORY": str(self.repository), "RESTIC_PASSWORD": PASSWORD,
                "RESTIC_CACHE_DIR": str(self.work / "cache")}

    def init(self) -> None:
        self.run("restic", "init", "--quiet")

    def backup(self, number: int) -> Usage:
        return self.run("restic", "backup", "--quiet", "--compression", "auto", self.source)

    @contextmanager
    def mount(self) -> Iterator[Mount]:
        root = self.point / "snapshots" / "latest" / self.source.relative_to("/")
        with measure.mounted(["restic", "mount", self.point], self.point, root, self.env()) as mount:
            yield mount


class Borg(Contestant):
    """borg with zstd at level 3 and encryption `repokey` (AES-256-CTR with HMAC-SHA256)."""

    name = "borg"

    @classmethod
    def version(cls) -> str:
        return first_line("borg", "--version")

    def env(self) -> Mapping[str, str]:
        return {"BORG_REPO": str(self.repository), "BORG_PASSPHRASE": PASSWORD,
                "BORG_BASE_DIR": str(self.work / "base"), "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}

    def init(self) -> None:
        self.run("borg", "init", "--encryption", "repokey")

    def backup(self, number: int) -> Usage:
        return self.run("borg", "create", "--compression", "zstd,3", f"::run{number}", self.source)

    @contextmanager
    def mount(self) -> Iterator[Mount]:
        root = self.point / self.source.relative_to("/")
        with measure.mounted(["borg", "mount", "--foreground", "::run1", self.point], self.point, root,
                             self.env()) as mount:
            yield mount


class Rustic(Contestant):
    """rustic, which writes repositories in restic's format. No package of Debian's: `cargo install rustic-rs --features mount`."""

    name = "rustic"

    @classmethod
    def version(cls) -> str:
        return first_line("rustic", "--version")

    def env(self) -> Mapping[str, str]:
        return {"RUSTIC_REPOSITORY": str(self.repository), "RUSTIC_PASSWORD": PASSWORD,
                "RUSTIC_CACHE_DIR": str(self.work / "cache"), "RUSTIC_NO_PROGRESS": "true", "RUSTIC_LOG_LEVEL": "error"}

    def init(self) -> None:
        self.run("rustic", "init")

    def backup(self, number: int) -> Usage:
        return self.run("rustic", "backup", self.source)

    @contextmanager
    def mount(self) -> Iterator[Mount]:
        root = self.point / self.source.relative_to("/")
        with measure.mounted(["rustic", "mount", self.point, "latest"], self.point, root, self.env()) as mount:
            yield mount


class Plain(Contestant):
    """No backup program at all: `cp -a`, and the source folder itself for all that reads."""

    name = "plain"

    @classmethod
    def version(cls) -> str:
        return "plain files (cp -a)"

    def init(self) -> None:
        self.repository.mkdir(parents=True)

    def backup(self, number: int) -> Usage:
        return self.run("cp", "-a", "--update", self.source, self.repository)

    @contextmanager
    def mount(self) -> Iterator[Mount]:
        yield Mount(self.source, self.source, 0.0, 0)


ALL: dict[str, type[Contestant]] = {kind.name: kind for kind in (Strongroom, Before, Restic, Borg, Rustic, Plain)}
# What takes part unless somebody asks for others: rustic, where it is installed.
USUALLY = [name for name in ALL if name != "before" and (name != "rustic" or shutil.which("rustic"))]
BACKUP_PROGRAMS = ("restic", "borg", "rustic")


@contextmanager
def fresh(kind: type[Contestant], source: Path, work: Path) -> Iterator[Contestant]:
    """Gives a contestant an empty folder, and removes it afterwards."""
    folder = work / kind.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield kind(source, folder)
    finally:
        measure.retry_busy(lambda: shutil.rmtree(folder))
