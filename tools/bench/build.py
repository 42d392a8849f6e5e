#!/usr/bin/env python3
"""Measures what a build from nothing costs, by settings of the compiler.

    tools/bench/build.py                                    # the release and dist profiles as they are
    tools/bench/build.py release release,lto=thin           # settings side by side: PROFILE[,KEY=VALUE]...
    tools/bench/build.py --top 20 dist,codegen-units=1      # which crates the time went to
    tools/bench/build.py --tests dev dev,opt-level=0        # the tests of the workspace in place of the program

Each setting is built from nothing in a folder of its own, and gets a row: the CPU time of all processes (which holds on
a machine that does other work, too), the time that passed, and the size of the program, as it is and stripped. KEY is any
key of a Cargo profile, such as lto, opt-level or package."*".opt-level. `cargo build --timings` shows the same build as a picture.

The CPU time of a crate is that of its `rustc`; what is left is Cargo, build scripts, and the C code that they compile.
Only Python's standard library is used.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
LOG_VARIABLE = "STRONGROOM_BENCH_BUILD_LOG"
PACKAGES = ["strongroom", "strongroom-simulator"]


def children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compile_one(arguments: list[str]) -> int:
    """Runs as Cargo's RUSTC_WRAPPER: one compilation, whose cost goes to the log."""
    status = subprocess.run(arguments, check=False).returncode
    name = next((value for flag, value in zip(arguments, arguments[1:]) if flag == "--crate-name"), "___")
    if name != "___":
        with open(os.environ[LOG_VARIABLE], "a", encoding="utf-8") as log:
            log.write(f"{children_cpu_s():.3f} {name}\n")
    return status


def environment(folder: Path, log: Path) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("CARGO_PROFILE_")}
    env |= {"CARGO_TARGET_DIR": str(folder), "RUSTC_WRAPPER": str(Path(__file__).resolve()), LOG_VARIABLE: str(log)}
    return env | {"CARGO_INCREMENTAL": "0"}


def toml_value(text: str) -> str:
    return text if text in ("true", "false") or text.isdigit() else f'"{text}"'


def build(setting: str, folder: Path, tests: bool, top: int) -> str:
    log = folder / "crates.log"
    profile, *changes = setting.split(",")
    env = environment(folder, log)
    command = ["cargo", "test", "--no-run", "--workspace"] if tests else ["cargo", "build"]
    command += ["--locked", "--quiet", "--profile", profile]
    command += [] if tests else [word for package in PACKAGES for word in ("-p", package)]
    for change in changes:
        key, value = change.split("=", 1)
        command += ["--config", f"profile.{profile}.{key}={toml_value(value)}"]
    cpu_s, started = children_cpu_s(), time.monotonic()
    subprocess.run(command, cwd=PROJECT, env=env, check=True)
    cpu_s, passed_s = children_cpu_s() - cpu_s, time.monotonic() - started
    costs = sorted(((float(cost), name) for cost, name in map(str.split, log.read_text().splitlines())), reverse=True)
    rest_s = cpu_s - sum(cost for cost, _ in costs)
    print(f"{setting}: {len(costs)} compilations; build scripts, C code and Cargo {rest_s:.0f} s CPU", file=sys.stderr)
    for cost, name in costs[:top]:
        print(f"{cost:8.1f} s  {name}", file=sys.stderr)
    program = folder / ("debug" if profile in ("dev", "test") else profile) / "strongroom"
    stripped = folder / "stripped"
    subprocess.run(["strip", "-o", stripped, program], check=True)
    sizes = " | ".join(f"{path.stat().st_size / 1e6:.1f}" for path in (program, stripped))
    return f"| `{setting}` | {cpu_s:.0f} | {passed_s:.0f} | {sizes} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", default=["release", "dist"], metavar="SETTING")
    parser.add_argument("--tests", action="store_true", help="build the tests of the workspace")
    parser.add_argument("--top", type=int, default=0, metavar="N", help="list the N most expensive crates of each setting")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what was built in DIR/SETTING")
    options = parser.parse_args()
    rows = []
    for setting in options.settings:
        parent = tempfile.mkdtemp(prefix="strongroom-build-") if options.keep is None else options.keep
        folder = Path(parent).resolve() / setting
        folder.mkdir(parents=True)
        try:
            rows.append(build(setting, folder, options.tests, options.top))
        finally:
            if options.keep is None:
                shutil.rmtree(parent)
    print("| setting | CPU (s) | time (s) | program (MB) | stripped (MB) |")
    print("| --- | --: | --: | --: | --: |")
    print("\n".join(rows))


if __name__ == "__main__":
    if LOG_VARIABLE in os.environ and len(sys.argv) > 1 and Path(sys.argv[1]).name == "rustc":
        sys.exit(compile_one(sys.argv[1:]))
    main()
