#!/usr/bin/env bash
# Drops mails from a snapshot into the mount's restore folder in two file managers that have no screen, and takes pictures of it:
#
#   tools/screenshot-restore.sh [FOLDER]     docs/images unless given: restore-thunar.png, restore-pcmanfm.png
#
# Thunar copies one mail, PCManFM a folder of them, into the mailbox of a user of a simulated organisation. The script ends well only if each
# of them stands there once. Nothing but the simulator and the file managers' screen runs as root. Needs the release binaries (STRONGROOM and
# SIMULATOR name others), root, /dev/fuse, and thunar, pcmanfm, xvfb, xdotool, imagemagick and dbus (`make screenshot` installs them).
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$tools")
strongroom=$(realpath "${STRONGROOM:-$project/target/release/strongroom}")
simulator=$(realpath "${SIMULATOR:-$project/target/release/strongroom-simulator}")
pictures=$(realpath -m "${1:-$project/docs/images}")
at=/mnt/backup

# shellcheck source=tools/screen.sh
. "$tools/screen.sh"
screen='' manager='' simulating=''
leave() {
    for pid in $manager $screen $simulating; do kill "$pid" 2>/dev/null || true; done
    fusermount3 -u "$at" 2>/dev/null || umount -l "$at" 2>/dev/null || true
    rmdir "$at" || true
    rm -rf --one-file-system "$demo"
}
# A path that fits into a picture.
mkdir "$at" || fail "$at is there already"
trap leave EXIT
chown nobody "$at"

mkdir "$demo/work"
"$tools/corpus-spamassassin.sh" "$demo/corpus" >/dev/null
"$simulator" --port 0 --users 2 --corpus "$demo/corpus" > "$demo/strongroom.toml" &
simulating=$!
await 'the simulator' grep -q endpoints "$demo/strongroom.toml"
printf '\n[sets.everyone]\ntenant = "simulated"\n' >> "$demo/strongroom.toml"
control=$(sed -n 's/.*login = "\([^"]*\)".*/\1/p' "$demo/strongroom.toml")/control
ours=("${as_nobody[@]}" STRONGROOM_REPO="$demo/work/repository" STRONGROOM_PASSWORD='demo only' STRONGROOM_STATE_DIR="$demo/work/state"
    STRONGROOM_CONFIG="$demo/strongroom.toml" SIMULATED_SECRET="$(sed -n 's/.*export SIMULATED_SECRET=//p' "$demo/strongroom.toml")" "$strongroom")
start_screen
chown -R nobody "$demo/work"
cd "$demo/work"
"${ours[@]}" init --quiet >/dev/null
"${ours[@]}" backup --set everyone --quiet >/dev/null
"${ours[@]}" mount "$at" --restore --quiet

# Two users; a folder of the first one with few mails, and what the second one is to get.
users=$("${as_nobody[@]}" ls "$at/latest/Users")
from=$(head -n 1 <<< "$users") to=$(tail -n 1 <<< "$users")
folder=$("${as_nobody[@]}" find "$at/latest/Users/$from/Outlook" -mindepth 1 -type d -printf '%P\n' | while read -r name; do
    count=$("${as_nobody[@]}" find "$at/latest/Users/$from/Outlook/$name" -maxdepth 1 -name '*.eml' | wc -l)
    [ "$count" -lt 3 ] || [ "$count" -gt 400 ] || printf '%s %s\n' "$count" "$name"
done | sort -n | head -n 1)
count=${folder%% *} folder=${folder#* }
target="$at/restore/simulated/Users/$to/Outlook"
settled() { # HOW_MANY
    "${ours[@]}" restore jobs --json | python3 -c 'import json, sys
states = [file["state"] for job in json.load(sys.stdin) for file in job["files"]]
done = states.count("done")
sys.exit(not (done == len(states) == int(sys.argv[1])))' "$1"
}

# PROGRAM FROM WHAT_TO_SELECT TO PICTURE HOW_MANY_IN_ALL
drop() {
    start_manager "$1"
    type_path "$2" && xdotool key --window "$window" Return
    sleep 2 # for the listing, of which a screen says nothing
    xdotool key --window "$window" $3
    xdotool key --window "$window" ctrl+c
    type_path "$4" && xdotool key --window "$window" Return
    sleep 2
    xdotool key --window "$window" ctrl+v
    sleep 6; look /tmp/pics/$1.ppm; convert /tmp/pics/$1.ppm /tmp/pics/$1.png; "${ours[@]}" restore jobs --json | head -c 600; "${as_nobody[@]}" ls -la "$4" | head -5
    sleep 1
    look "$demo/shown.ppm"
    keep_picture "$demo/shown.ppm" "$pictures/$5"
    kill "$manager" && wait "$manager" 2>/dev/null || true
    manager=''
}

"${as_nobody[@]}" mkdir "$target/From $from"
drop thunar "$at/latest/Users/$from/Outlook/$folder" 'Home' "$target/Inbox" restore-thunar.png 1
drop pcmanfm "$at/latest/Users/$from/Outlook/$folder" 'ctrl+a' "$target/From $from" restore-pcmanfm.png $((1 + count))

# What the mailbox holds now, counted by those who keep it.
curl -sf "$control/users/$to/truth" | python3 -c '
import collections, json, sys
lines = [json.loads(line) for line in sys.stdin]
folder = next(l["folder"]["id"] for l in lines if l.get("folder", {}).get("name", "").startswith("From "))
got = collections.Counter(l["message"]["subject"] for l in lines if l.get("message", {}).get("folder") == folder)
assert sum(got.values()) == int(sys.argv[1]), got' "$count"
printf 'each of %s mails was restored once\n' $((1 + count))
