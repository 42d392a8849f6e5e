#!/usr/bin/env bash
# Shows Strongroom at work, on real mail: back up, change, back up again, mount, search, copy out, compare, unmount.
#
#   tools/demo.sh               everything, then cleans up
#   KEEP=1 tools/demo.sh        leaves the mount open to look around in, and says how to leave it
#
# Needs the release binaries (`make demo` builds them): STRONGROOM and CORPORA name others. Works in a folder of its own
# under ${TMPDIR:-/tmp}; touches nothing else but the cache of the corpus. Needs /dev/fuse, so mostly root.
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$tools")
strongroom=${STRONGROOM:-$project/target/release/strongroom}
corpora=${CORPORA:-$project/target/release/strongroom-corpora}

fail() {
    printf 'Error: %s\nHint: %s\n' "$1" "$2" >&2
    exit 1
}

[ -x "$strongroom" ] || fail "$strongroom is not there" 'build it with `cargo build --release`, or set STRONGROOM'
[ -x "$corpora" ] || fail "$corpora is not there" 'build it with `cargo build --release -p strongroom-corpora`'
[ -r /dev/fuse ] && [ -w /dev/fuse ] || fail '/dev/fuse cannot be used' 'run the demo as root (sudo make demo)'
command -v fusermount3 >/dev/null || fail 'fusermount3 is missing' 'apt-get install fuse3'

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
heading() { printf '\n%s── %s%s\n' "$bold" "$1" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$1" "$plain"; }
# Prints a command as one would type it, then runs it. Without pipefail: `head` may leave early.
show() {
    printf '%s$ %s%s\n' "$bold" "$1" "$plain"
    bash -c "$1"
}

demo=$(mktemp -d "${TMPDIR:-/tmp}/strongroom-demo.XXXXXX")
mounted() { grep -qF " $demo/mount " /proc/self/mountinfo; }
leave() {
    if mounted; then
        fusermount3 -u "$demo/mount" 2>/dev/null || umount "$demo/mount" 2>/dev/null || umount -l "$demo/mount" || true
    fi
    # Never delete through a mount that is still there.
    mounted || rm -rf --one-file-system "$demo"
}
failed() {
    status=$?
    trap - EXIT
    [ "$status" -eq 0 ] || printf '\nThe demo did not reach its end (status %d); cleaning up.\n' "$status" >&2
    cd /
    leave
    exit "$status"
}
trap failed EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

started=$SECONDS
mkdir "$demo/bin"
ln -s "$(realpath "$strongroom")" "$demo/bin/strongroom"
export PATH="$demo/bin:$PATH"
export STRONGROOM_REPO="$demo/repository" STRONGROOM_PASSWORD='demo only' STRONGROOM_STATE_DIR="$demo/state"
search='grep -ril'
! command -v rg >/dev/null || search='rg -il --sort path'

heading 'Real mail, and some documents beside it'
note "The Spam Assassin public corpus (2002), and generated office documents."
mkdir -p "$demo/data"
"$tools/corpus-spamassassin.sh" "$demo/data/Mail" | sed "s|$demo/||"
"$corpora" office --users 1 --mails-per-user 0 --files-per-user 60 "$demo/tenant" >/dev/null
mv "$demo"/tenant/Users/*/OneDrive/Documents "$demo/data/Documents"
rm -rf "$demo/tenant"
cd "$demo"
show 'ls data data/Mail'
show 'find data -type f | wc -l; du -sh --apparent-size data'

heading 'A repository, and the first snapshot'
note "STRONGROOM_REPO names it, STRONGROOM_PASSWORD opens it."
show 'strongroom init'
show 'strongroom backup --files data --as demo'

heading 'A day goes by: one message comes, one goes, one moves, a note is edited'
new='Mail/easy-ham-1/09999.hello.eml'
mapfile -t mails < <(find data/Mail/easy-ham-1 -name '0010*.eml' -printf '%P\n' | sort)
gone=${mails[0]} moved=${mails[1]}
edited=$(find data/Documents -name '*.md' -printf '%P\n' | sort | head -n 1)
cp "data/Mail/easy-ham-1/$gone" deleted-original.eml
show "printf 'From: alice@contoso.com\r\nSubject: The heliograph\r\n\r\nIt needs a new mirror.\r\n' > data/$new"
show "rm data/Mail/easy-ham-1/$gone"
show "mv data/Mail/easy-ham-1/$moved data/Mail/hard-ham-1/"
show "echo 'A line more.' >> 'data/Documents/$edited'"
show 'strongroom backup --files data --as demo'
show 'strongroom snapshots'
note 'What is different between the two?'
show 'strongroom diff latest~1 latest'
note 'What was deleted is still in the first one, byte for byte:'
show "strongroom cat 'latest~1:Mail/easy-ham-1/$gone' | cmp - deleted-original.eml && echo identical"

heading 'The snapshot as a folder'
mkdir mount
show 'strongroom mount mount'
mounted || fail 'nothing is mounted' 'see the messages above'
show 'ls mount mount/latest mount/latest/Mail'
show 'ls -l mount/latest/Documents | head -n 6'
show 'find mount/latest/ -type f | wc -l'
show "$search heliograph mount/latest/Mail"
show "$search antarctica mount/latest/Mail | head -n 5"
show "cp mount/latest/$new copy.eml && cmp copy.eml data/$new && echo identical"
show 'diff -r data mount/latest && echo "source and snapshot are the same"'

if [ "${KEEP:-0}" = 1 ]; then
    trap - EXIT INT TERM
    heading "Yours to look around: $demo/mount"
    printf 'When you are done:\n    fusermount3 -u %s/mount && rm -rf %s\n' "$demo" "$demo"
    printf 'For more commands on the repository:\n    export STRONGROOM_REPO=%s STRONGROOM_PASSWORD=%q STRONGROOM_STATE_DIR=%s\n' \
        "$STRONGROOM_REPO" "$STRONGROOM_PASSWORD" "$STRONGROOM_STATE_DIR"
    exit 0
fi

heading 'And out'
show 'fusermount3 -u mount'
show 'ls mount | wc -l'
note "Done in $((SECONDS - started)) seconds. KEEP=1 leaves the mount open."
