#!/usr/bin/env bash
# Shows a folder of 5,000 mails, backed up and mounted, in a file manager that has no screen, and takes a picture of it:
#
#   tools/screenshot.sh [PICTURE.png]     docs/images/file-manager.png unless given
#
# Says how long the file manager took until its listing stood still, and what it asked of the mount. The mails are the Spam
# Assassin public corpus. Needs the release binary (STRONGROOM names another), root (the file manager runs as nobody), /dev/fuse,
# and thunar, xvfb, xdotool, imagemagick and dbus (`make screenshot` installs them).
set -euo pipefail

tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(dirname "$tools")
strongroom=$(realpath "${STRONGROOM:-$project/target/release/strongroom}")
picture=$(realpath -m "${1:-$project/docs/images/file-manager.png}")
mails=5000
at=/mnt/backup

# shellcheck source=tools/screen.sh
. "$tools/screen.sh"
screen='' manager='' mount=''
leave() {
    for pid in $manager $screen; do kill "$pid" 2>/dev/null || true; done
    if [ -n "$mount" ]; then kill "$mount" 2>/dev/null && wait "$mount" || true; fi
    rmdir "$at" || true
    rm -rf --one-file-system "$demo"
}

# A path that fits into a picture.
mkdir "$at" || fail "$at is there already"
trap leave EXIT
export STRONGROOM_REPO="$demo/repository" STRONGROOM_PASSWORD='demo only' STRONGROOM_STATE_DIR="$demo/state"
"$tools/corpus-spamassassin.sh" "$demo/corpus" >/dev/null
mkdir -p "$demo/mail/Inbox"
# Under names that people read, as mails of a mailbox have them.
python3 - "$demo/corpus" "$demo/mail/Inbox" "$mails" <<'PYTHON'
import email.header, email.utils, os, pathlib, sys
corpus, inbox, count = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
written = 0
# Spam has made-up dates; of what is not spam there are not enough.
def order(path):
    return ("spam" in path.parent.name, path)


for path in sorted(corpus.rglob("*.eml"), key=order):
    if written == count:
        break
    head = email.message_from_bytes(path.read_bytes()[:8192])
    try:
        time = email.utils.parsedate_to_datetime(head["Date"])
        subject = str(email.header.make_header(email.header.decode_header(head["Subject"] or "(no subject)")))
        sender = email.utils.parseaddr(str(head["From"]))
    except (TypeError, ValueError, LookupError):
        continue
    if time.year < 2002 or ("spam" in path.parent.name and (time.year, time.month) < (2002, 6)):
        continue
    name = f"{time:%Y-%m-%d %H.%M} {sender[0] or sender[1]} - {' '.join(subject.split())}"
    name = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in name)
    target = inbox / (name.encode()[:240].decode(errors="ignore") + ".eml")
    if target.exists():
        continue
    target.write_bytes(path.read_bytes())
    os.utime(target, (time.timestamp(), time.timestamp()))
    written += 1
if written < count:
    sys.exit(f"only {written} mails")
PYTHON
"$strongroom" init --quiet >/dev/null
"$strongroom" backup --quiet --files "$demo/mail" --as mail >/dev/null 2>&1
"$strongroom" mount "$at" --snapshot latest --allow-other --foreground -v 2>"$demo/log" &
mount=$!
await 'the mount is there' grep -qF " $at " /proc/self/mountinfo

start_screen
now() { date +%s%3N; }
# The file manager starts in an empty folder: what its start takes is not the mount's.
start_manager thunar
look "$demo/before.ppm"
type_path "$at/Inbox"
started=$(now)
xdotool key --window "$window" Return
# Shown is what was different from what came before for the last time, once it has stood still for three seconds.
shown=$started changed=no
cp "$demo/before.ppm" "$demo/last.ppm"
while [ $(($(now) - shown)) -lt 3000 ] || [ "$changed" = no ]; do
    moment=$(now)
    look "$demo/now.ppm"
    if ! cmp -s "$demo/now.ppm" "$demo/last.ppm"; then shown=$moment changed=yes; mv "$demo/now.ppm" "$demo/last.ppm"; fi
    [ $(($(now) - started)) -lt 30000 ] || fail 'the listing does not stand still'
done
printf 'listing of %s mails shown after %s ms\n' "$mails" $((shown - started))
keep_picture "$demo/last.ppm" "$picture"

kill "$manager" && wait "$manager" 2>/dev/null || true
manager=''
kill "$mount" && wait "$mount" || true
mount=''
sed -n 's/.*the mount has ended //p' "$demo/log"
