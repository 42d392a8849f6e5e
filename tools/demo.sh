#!/usr/bin/env bash
# Shows Strongroom at work on a simulated organisation with real mail: back up, change, back up again, compare, mount,
# search, read what was deleted, drop it back, unmount.
#
#   tools/demo.sh               everything, then cleans up
#   KEEP=1 tools/demo.sh        leaves the mount open to look around in, and says how to leave it
#
# Needs the release binaries (`make demo` builds them): STRONGROOM and SIMULATOR name others. Works in a folder of its own
# under ${TMPDIR:-/tmp}; touches nothing else but the cache of the corpus. Needs /dev/fuse, so mostly root.
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$tools")
strongroom=${STRONGROOM:-$project/target/release/strongroom}
simulator=$(realpath "${SIMULATOR:-$project/target/release/strongroom-simulator}")

fail() {
    printf 'Error: %s\nHint: %s\n' "$1" "$2" >&2
    exit 1
}

[ -x "$strongroom" ] || fail "$strongroom is not there" 'build it with `cargo build --release`, or set STRONGROOM'
[ -x "$simulator" ] || fail "$simulator is not there" 'build it with `cargo build --release -p strongroom-simulator`'
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
simulating=
leave() {
    [ -z "$simulating" ] || kill "$simulating" 2>/dev/null || true
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
cd "$demo"
search='grep -ril'
! command -v rg >/dev/null || search='rg -il --sort path'

heading 'An organisation to try things on'
note "A simulated Microsoft 365 tenant on this machine; its mail is the Spam Assassin public corpus (2002)."
"$tools/corpus-spamassassin.sh" "$demo/corpus" | sed "s|$demo/||"
"$simulator" --port 0 --users 3 --corpus "$demo/corpus" > strongroom.toml &
simulating=$!
# It prints its configuration once it takes requests.
for _ in $(seq 300); do grep -q endpoints strongroom.toml && break; kill -0 $simulating || fail 'the simulator ended' 'see above'; sleep 0.1; done
SIMULATED_SECRET=$(sed -n 's/.*export SIMULATED_SECRET=//p' strongroom.toml)
export SIMULATED_SECRET STRONGROOM_CONFIG="$demo/strongroom.toml"
cat >> strongroom.toml <<'SETS'

[sets.everyone]
tenant = "simulated"
exclude = ["Users/*/Outlook/Junk Email"]
SETS
show 'cat strongroom.toml'
note 'With the ids of a real tenant in their place, everything below works the same (docs/microsoft365.md).'
show 'strongroom tenant users simulated'

heading 'A repository, and the first snapshot'
note "STRONGROOM_REPO names it, STRONGROOM_PASSWORD opens it."
show 'strongroom init'
show 'strongroom backup --set everyone'

heading 'A day goes by: a message comes, one is read, one moves, one is deleted, somebody makes a folder'
control=$(sed -n 's/.*login = "\([^"]*\)".*/\1/p' strongroom.toml)/control
user=$(curl -sf "$control/users" | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["principalName"])')
tell() { # METHOD PATH JSON
    curl -sf -X "$1" "$control/users/$user/$2" -H 'Content-Type: application/json' ${3:+-d "$3"}
}
inbox=$(curl -sf "$control/users/$user/truth" | python3 -c '
import json, sys
lines = [json.loads(line) for line in sys.stdin]
inbox = next(l["folder"]["id"] for l in lines if l.get("folder", {}).get("wellKnown") == "inbox")
print(*[l["message"]["id"] for l in lines if l.get("message", {}).get("folder") == inbox][:3])')
read -r -a ids <<< "$inbox"
mime=$(printf 'From: Bob Jones <bob@contoso.com>\r\nSubject: The heliograph\r\n\r\nIt needs a new mirror.\r\n' | base64 -w 0)
tell POST folders '{"parent": "inbox", "name": "Projects"}' > folder.json
tell POST messages "{\"folder\": \"inbox\", \"mime\": \"$mime\"}" > /dev/null
tell PATCH "messages/${ids[0]}" '{"read": true}'
tell PATCH "messages/${ids[1]}" "{\"folder\": \"$(python3 -c 'import json; print(json.load(open("folder.json"))["id"])')\"}"
tell DELETE "messages/${ids[2]}"
show 'strongroom backup --set everyone'
show 'strongroom snapshots'
note 'What is different between the two?'
show 'strongroom diff latest~1 latest'

heading 'The snapshot as a folder'
mkdir mount
show 'strongroom mount mount'
mounted || fail 'nothing is mounted' 'see the messages above'
show 'ls mount mount/latest/Users'
show "ls mount/latest/Users/$user/Outlook"
show "ls -l mount/latest/Users/$user/Outlook/Inbox | head -n 6"
show 'find mount/latest/ -type f | wc -l'
show "$search heliograph mount/latest/Users/$user"
show "$search antarctica mount/latest/Users | head -n 5"
note 'What was deleted is still in the snapshot before; it can be copied out like any file:'
gone=$(strongroom diff latest~1 latest --json | python3 -c '
import json, sys
rows = [json.loads(line) for line in sys.stdin]
print(next(row["path"] for row in rows if row.get("change") == "removed"))')
show "strongroom cat 'latest~1:$gone' | head -n 8"

heading 'Drop it back'
note 'With --restore there is a folder more. What is dropped in restore/original goes to where it came from.'
show 'fusermount3 -u mount'
show 'strongroom mount mount --restore'
mounted || fail 'nothing is mounted' 'see the messages above'
show 'ls mount/restore'
before=$(find mount/snapshots -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | head -n 1)
show "cp 'mount/snapshots/$before/$gone' mount/restore/original/"
for _ in $(seq 300); do grep -qs '1 restored' mount/restore/jobs/*.txt && break; sleep 0.1; done
show 'cat mount/restore/jobs/*.txt'

if [ "${KEEP:-0}" = 1 ]; then
    trap - EXIT INT TERM
    heading "Yours to look around: $demo/mount"
    [ -z "$simulating" ] || kill "$simulating" 2>/dev/null || true
    printf 'When you are done:\n    fusermount3 -u %s/mount && rm -rf %s\n' "$demo" "$demo"
    printf 'For more commands on the repository:\n    export STRONGROOM_REPO=%s STRONGROOM_PASSWORD=%q STRONGROOM_STATE_DIR=%s\n' \
        "$STRONGROOM_REPO" "$STRONGROOM_PASSWORD" "$STRONGROOM_STATE_DIR"
    exit 0
fi

heading 'And out'
show 'fusermount3 -u mount'
show 'ls mount | wc -l'
note "Done in $((SECONDS - started)) seconds. KEEP=1 leaves the mount open."
