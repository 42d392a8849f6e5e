"""Reads the iCalendar files of a folder, and prints as JSON when the instances of each begin in UTC.

    instances.py DIR FROM TO      FROM and TO are years
"""

import json
import pathlib
import sys
from datetime import datetime, time, timezone

import icalendar
import recurring_ical_events


def as_utc(moment):
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time(0), timezone.utc)
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


FROM, TO = int(sys.argv[2]), int(sys.argv[3])
found = {}
for path in pathlib.Path(sys.argv[1]).glob("*.ics"):
    calendar = icalendar.Calendar.from_ical(path.read_bytes())
    events = calendar.walk("VEVENT")
    assert events and not any(event.errors for event in events), (path, [event.errors for event in events])
    assert len({str(event["UID"]) for event in events}) == 1, path
    # The package takes these times for those of the event's own zone, so some more days are asked for.
    between = recurring_ical_events.of(calendar).between(datetime(FROM - 1, 12, 30), datetime(TO, 1, 3))
    attached = sum(len(event.get("ATTACH", [])) if isinstance(event.get("ATTACH"), list) else "ATTACH" in event for event in events)
    starts = sorted(as_utc(event["DTSTART"].dt) for event in between)
    found[path.stem] = {"starts": [start for start in starts if f"{FROM}" <= start < f"{TO}"], "attached": attached}
print(json.dumps(found))
