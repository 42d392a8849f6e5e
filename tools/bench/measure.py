"""Runs commands and mounts, measures them, and leaves nothing behind."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator, Mapping, Sequence

MOUNT_TIMEOUT_S = 60.0
UNMOUNT_TIMEOUT_S = 20.0
SAMPLE_INTERVAL_S = 0.02

Words = Sequence[str | Path]


class CommandFailed(Exception):
    """A command ended with an error, ran out of time, or printed what it should not."""


@dataclass(frozen=True)
class Usage:
    """What a finished command took."""

    wall_s: float
    cpu_s: float
    rss_bytes: int
    output: str


def resident_peak(pid: int) -> int:
    """Returns the largest resident size of a living process so far, in bytes; 0 if it has gone."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass
    return 0


def kill_group(process: subprocess.Popen[bytes], with_signal: signal.Signals) -> None:
    """Signals a process that leads its own group, and all that it started."""
    try:
        os.killpg(process.pid, with_signal)
    except ProcessLookupError:
        pass


def run(words: Words, timeout_s: float, env: Mapping[str, str] | None = None, cwd: Path | None = None,
        allowed: Sequence[int] = (0,)) -> Usage:
    """Runs a command to its end; raises CommandFailed on a status that is not allowed and when time runs out.

    The peak of its memory is the larger of what the kernel reports at its end and of samples on the way: the kernel
    counts the parent's memory at the moment of the fork too, so a figure not above ours is taken from the samples.
    """
    words = [str(word) for word in words]
    started = time.perf_counter()
    process = subprocess.Popen(words, env={**os.environ, **(env or {})}, cwd=cwd, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    sampled = 0
    ended = threading.Event()
    expired = threading.Event()

    def watch() -> None:
        nonlocal sampled
        while not ended.wait(SAMPLE_INTERVAL_S):
            sampled = max(sampled, resident_peak(process.pid))
            if time.perf_counter() - started > timeout_s:
                expired.set()
                kill_group(process, signal.SIGKILL)
                return

    errors: list[bytes] = []
    assert process.stdout is not None and process.stderr is not None
    drain = threading.Thread(target=lambda: errors.append(process.stderr.read()), daemon=True)
    watcher = threading.Thread(target=watch, daemon=True)
    try:
        drain.start()
        watcher.start()
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
    finally:
        ended.set()
        if process.returncode is None:
            kill_group(process, signal.SIGKILL)
            process.wait()
        watcher.join()
    drain.join(1.0)
    if expired.is_set():
        raise CommandFailed(f"`{' '.join(words[:4])}` took longer than {timeout_s:.0f} s")
    if process.returncode not in allowed:
        text = b"".join(errors).decode(errors="replace").strip()[-2000:]
        raise CommandFailed(f"`{' '.join(words[:4])}` ended with status {process.returncode}:\n{text}")
    reported = usage.ru_maxrss * 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = reported if reported > own * 1.1 or sampled == 0 else sampled
    process.stdout.close()
    return Usage(wall, usage.ru_utime + usage.ru_stime, peak, output.decode(errors="replace"))


def drop_caches() -> bool:
    """Makes the kernel forget what it has read; returns False where only root may do that."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        return False
    return True


def is_mounted(point: Path) -> bool:
    """Tells whether something is mounted there, without touching the mount itself (which could hang)."""
    escaped = str(point).replace("\\", "\\134").replace(" ", "\\040")
    return any(line.split()[4] == escaped for line in Path("/proc/self/mountinfo").read_text().splitlines())


def unmount(point: Path, lazy: bool = False) -> None:
    """Unmounts as root or as the user who mounted; errors are left to the caller's second look."""
    commands = [["umount", *(["-l"] if lazy else []), str(point)],
                ["fusermount3", "-u", *(["-z"] if lazy else []), str(point)]]
    for command in commands:
        if is_mounted(point):
            try:
                subprocess.run(command, timeout=UNMOUNT_TIMEOUT_S, check=False, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
            except (subprocess.TimeoutExpired, FileNotFoundError):
                continue


@dataclass
class Mount:
    """A mount that is open."""

    point: Path
    root: Path
    ready_s: float
    daemon_pid: int

    def daemon_peak(self) -> int:
        """Returns the largest resident size of the daemon so far, in bytes."""
        return resident_peak(self.daemon_pid)


@contextmanager
def mounted(words: Words, point: Path, root: Path, env: Mapping[str, str]) -> Iterator[Mount]:
    """Mounts by a command that stays in the foreground, and unmounts whatever happens.

    ``ready_s`` is the time from starting the command until `ls` of ``root`` (a path below the mount) has answered.
    """
    point.mkdir(parents=True, exist_ok=True)
    log = point.with_name(point.name + ".log")
    with ExitStack() as stack:
        sink = stack.enter_context(log.open("wb"))
        started = time.perf_counter()
        process = subprocess.Popen([str(word) for word in words], env={**os.environ, **env}, stdin=subprocess.DEVNULL,
                                   stdout=sink, stderr=sink, start_new_session=True)
        stack.callback(close_mount, process, point)
        while not is_mounted(point):
            if process.poll() is not None:
                raise CommandFailed(f"the mount ended with status {process.returncode}:\n{log.read_text()[-2000:]}")
            if time.perf_counter() - started > MOUNT_TIMEOUT_S:
                raise CommandFailed(f"nothing was mounted within {MOUNT_TIMEOUT_S:.0f} s:\n{log.read_text()[-2000:]}")
            time.sleep(0.002)
        run(["ls", root], MOUNT_TIMEOUT_S)
        yield Mount(point, root, time.perf_counter() - started, process.pid)


def close_mount(process: subprocess.Popen[bytes], point: Path) -> None:
    """Unmounts, waits for the daemon, and kills it if it does not go."""
    deadline = time.monotonic() + UNMOUNT_TIMEOUT_S
    while is_mounted(point) and time.monotonic() < deadline:
        unmount(point)
        time.sleep(0.05)
    kill_group(process, signal.SIGTERM)
    try:
        process.wait(UNMOUNT_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        kill_group(process, signal.SIGKILL)
        process.wait()
    unmount(point, lazy=True)
    if is_mounted(point):
        print(f"warning: {point} is still mounted", file=sys.stderr)


@contextmanager
def spinners(count: int) -> Iterator[None]:
    """Keeps ``count`` CPUs awake with processes that give way to everything else (nice 19)."""
    processes = [subprocess.Popen(["nice", "-n", "19", "sh", "-c", "while :; do :; done"], start_new_session=True)
                 for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            kill_group(process, signal.SIGKILL)
            process.wait()


def retry_busy(action: Callable[[], None]) -> None:
    """Calls ``action`` again for a while when something is still in use."""
    for attempt in range(20):
        try:
            return action()
        except OSError:
            if attempt == 19:
                raise
            time.sleep(0.25)
