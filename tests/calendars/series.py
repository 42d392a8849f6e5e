"""Makes events as Microsoft 365 describes them, and reads the files that Strongroom makes of them.

    series.py make DIR    writes events as NAME.json
    series.py check DIR   reads NAME.ics beside each, and compares: the facts, and every instance within ten years

How a series repeats is worked out here from the words of Microsoft Graph (recurrencePattern, recurrenceRange) with the
zones of Python, and read back with the packages `icalendar` and `recurring-ical-events`. Nothing is shared with Strongroom.
"""

import calendar
import json
import pathlib
import sys
from datetime import date, datetime, time, timedelta, timezone
from zoneinfo import ZoneInfo

ZONES = {
    "Pacific Standard Time": "America/Los_Angeles",
    "W. Europe Standard Time": "Europe/Berlin",
    "AUS Eastern Standard Time": "Australia/Sydney",
    "India Standard Time": "Asia/Kolkata",
    "Tokyo Standard Time": "Asia/Tokyo",
    "E. South America Standard Time": "America/Sao_Paulo",
    "Europe/London": "Europe/London",
    "UTC": "UTC",
}
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
INDEX = {"first": 0, "second": 1, "third": 2, "fourth": 3, "last": -1}
YEARS = 10
HOSTILE = 'Eve "; \\ , \r\nEND:VEVENT\r\nX-EVIL:1'


def month_days(year, month):
    return [date(year, month, day) for day in range(1, calendar.monthrange(year, month)[1] + 1)]


def days(recurrence):
    """Yields the days of a series, without an end."""
    pattern = recurrence["pattern"]
    first = date.fromisoformat(recurrence["range"]["startDate"])
    kind, interval = pattern["type"], pattern["interval"]
    wanted = {DAYS.index(name) for name in pattern.get("daysOfWeek", [])}
    if kind == "daily":
        day = first
        while True:
            yield day
            day += timedelta(days=interval)
    if kind == "weekly":
        week_start = DAYS.index(pattern["firstDayOfWeek"])
        week = first - timedelta(days=(first.weekday() - week_start) % 7)
        while True:
            for number in range(7):
                day = week + timedelta(days=number)
                if day >= first and day.weekday() in wanted:
                    yield day
            week += timedelta(days=7 * interval)
    monthly = kind.endswith("Monthly")
    year, month = first.year, first.month if monthly else pattern["month"]
    while True:
        if kind.startswith("absolute"):
            # Outlook takes the last day of a shorter month.
            found = [month_days(year, month)[:pattern["dayOfMonth"]][-1]]
        else:
            fitting = [day for day in month_days(year, month) if day.weekday() in wanted]
            found = [fitting[INDEX[pattern["index"]]]]
        yield from (day for day in found if day >= first)
        if monthly:
            months = year * 12 + month - 1 + interval
            year, month = months // 12, months % 12 + 1
        else:
            year += interval


def bounded(recurrence):
    """Returns the days of a series; of one without an end those within ten years."""
    extent = recurrence["range"]
    last, count = date.max, 1 << 30
    if extent["type"] == "noEnd":
        last = date.fromisoformat(extent["startDate"]).replace(day=1) + timedelta(days=365 * YEARS)
    if extent["type"] == "endDate":
        last = date.fromisoformat(extent["endDate"])
    if extent["type"] == "numbered":
        count = extent["numberOfOccurrences"]
    found = []
    for day in days(recurrence):
        if day > last or len(found) == count:
            return found
        found.append(day)


def utc_of(day, at, zone):
    return datetime.combine(day, at, ZoneInfo(zone)).astimezone(timezone.utc)


def text_of(moment):
    return {"dateTime": moment.strftime("%Y-%m-%dT%H:%M:%S.0000000"), "timeZone": "UTC"}


def patterns():
    yield {"type": "daily", "interval": 1}
    yield {"type": "daily", "interval": 3}
    yield {"type": "weekly", "interval": 1, "daysOfWeek": ["monday", "thursday"], "firstDayOfWeek": "sunday"}
    yield {"type": "weekly", "interval": 2, "daysOfWeek": ["sunday", "tuesday"], "firstDayOfWeek": "monday"}
    yield {"type": "weekly", "interval": 2, "daysOfWeek": ["sunday", "tuesday"], "firstDayOfWeek": "sunday"}
    yield {"type": "absoluteMonthly", "interval": 1, "dayOfMonth": 15}
    for day in (29, 30, 31):
        yield {"type": "absoluteMonthly", "interval": 1, "dayOfMonth": day}
    yield {"type": "absoluteMonthly", "interval": 5, "dayOfMonth": 31}
    yield {"type": "relativeMonthly", "interval": 1, "daysOfWeek": ["tuesday"], "index": "second"}
    yield {"type": "relativeMonthly", "interval": 2, "daysOfWeek": DAYS[:5], "index": "last"}
    yield {"type": "relativeMonthly", "interval": 1, "daysOfWeek": DAYS, "index": "last"}
    yield {"type": "absoluteYearly", "interval": 1, "month": 2, "dayOfMonth": 29}
    yield {"type": "absoluteYearly", "interval": 2, "month": 7, "dayOfMonth": 4}
    yield {"type": "relativeYearly", "interval": 1, "month": 11, "daysOfWeek": ["thursday"], "index": "fourth"}


def make(folder):
    number = 0
    for pattern in patterns():
        for zone in ZONES:
            for kind in ("noEnd", "endDate", "numbered"):
                number += 1
                if pattern["type"] == "daily" and kind == "noEnd" and number % 4:
                    continue
                is_all_day = number % 7 == 0
                # Some begin in the hours that clocks skip or show twice.
                at = time(0) if is_all_day else [time(9, 30), time(0, 15), time(2, 30), time(23, 45)][number % 4]
                event(folder, number, pattern, zone, kind, at, is_all_day)
    singles(folder)


def event(folder, number, pattern, zone, kind, at, is_all_day):
    extent = {"type": kind, "startDate": "2024-01-01", "endDate": "0001-01-01", "recurrenceTimeZone": zone, "numberOfOccurrences": 0}
    recurrence = {"pattern": {"month": 0, "dayOfMonth": 0, "daysOfWeek": [], "firstDayOfWeek": "sunday", "index": "first", **pattern}, "range": extent}
    # The service begins to apply a pattern on a day that need not fit it.
    first = date(2024, 1, 1 + number % 28) if number % 3 == 0 else next(days(recurrence))
    extent["startDate"] = str(first)
    if kind == "endDate":
        extent["endDate"] = str(first + timedelta(days=500 if pattern["type"] in ("daily", "weekly") else 3000))
    if kind == "numbered":
        extent["numberOfOccurrences"] = 25 if pattern["type"] in ("daily", "weekly") else 7
    iana = "UTC" if is_all_day else ZONES[zone]
    length = timedelta(days=1) if is_all_day else timedelta(minutes=50)
    found = bounded(recurrence)
    changed, cancelled = found[3 % len(found)], found[5 % len(found)]
    expected = {str(day): utc_of(day, at, iana) for day in found if day not in (changed, cancelled)}
    moved = utc_of(changed, at, iana) + timedelta(days=1 if is_all_day else 0, hours=0 if is_all_day else 3)
    exceptions = [{
        "id": f"E{number}", "subject": f"Moved {number}", "originalStart": utc_of(changed, at, iana).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "start": text_of(moved), "end": text_of(moved + length), "isAllDay": is_all_day, "showAs": "tentative", "attendees": [],
    }] if changed != cancelled else []
    if exceptions:
        expected[str(changed)] = moved
    start = utc_of(first, at, iana)
    described = {
        "id": f"M{number}", "iCalUId": f"UID-{number}", "subject": f"Series {number} {HOSTILE if number % 9 == 0 else 'ü'}",
        "createdDateTime": "2024-01-01T00:00:00Z", "lastModifiedDateTime": "2024-01-02T00:00:00Z",
        "start": text_of(start), "end": text_of(start + length), "isAllDay": is_all_day,
        "originalStartTimeZone": zone, "originalEndTimeZone": zone, "showAs": "free", "sensitivity": "private",
        "body": {"contentType": "html", "content": "<p>One</p><p>Two; three</p>" + "long " * 50},
        "isOrganizer": False, "organizer": {"emailAddress": {"name": HOSTILE, "address": "eve,x@contoso.com"}},
        "attendees": [{"type": "optional", "status": {"response": "declined"}, "emailAddress": {"name": "Ann; B", "address": "ann@contoso.com"}}],
        "isReminderOn": True, "reminderMinutesBeforeStart": 20, "categories": ["a,b", "c"],
        "recurrence": recurrence, "exceptionOccurrences": exceptions,
        "cancelledOccurrences": [f"OID.M{number}.{cancelled}"],
    }
    write(folder, f"series-{number}", described, sorted(expected.values()))


def singles(folder):
    for number, (zone, iana) in enumerate(ZONES.items()):
        moment = utc_of(date(2026, 3 + number, 28), time(2, 30), iana)
        write(folder, f"single-{number}", {
            "id": f"S{number}", "iCalUId": f"S-{number}", "subject": "Single", "start": text_of(moment),
            "end": text_of(moment + timedelta(hours=1)), "isAllDay": False, "originalStartTimeZone": zone,
            "originalEndTimeZone": zone, "body": {"contentType": "text", "content": HOSTILE}, "attendees": [],
        }, [moment])


def write(folder, name, described, expected):
    expected = [moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in expected]
    (folder / f"{name}.json").write_text(json.dumps(described))
    (folder / f"{name}.expected").write_text(json.dumps(expected))


def as_utc(moment):
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time(0), timezone.utc)
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def check(folder):
    import icalendar
    import recurring_ical_events

    checked = 0
    for path in sorted(folder.glob("*.json")):
        described, expected = json.loads(path.read_text()), json.loads(path.with_suffix(".expected").read_text())
        text = path.with_suffix(".ics").read_bytes()
        read = icalendar.Calendar.from_ical(text)
        events = read.walk("VEVENT")
        assert not any(event.errors for event in events), (path, [event.errors for event in events])
        assert b"\nX-EVIL" not in text and b"METHOD" not in text, path
        master = events[0]
        assert str(master["UID"]) == described["iCalUId"] and len(events) == 1 + len(described.get("exceptionOccurrences", [])), path
        assert str(master["SUMMARY"]) == described["subject"].replace("\r\n", "\n"), (path, str(master["SUMMARY"]))
        zones = {str(zone["TZID"]) for zone in read.walk("VTIMEZONE")}
        named = {value.params["TZID"] for name, value in master.property_items() if hasattr(value, "params") and "TZID" in value.params}
        assert named <= zones, (path, named, zones)
        if path.name.startswith("series"):
            assert str(master["ATTENDEE"]) == "mailto:ann@contoso.com" and master["ATTENDEE"].params["CN"] == "Ann; B", path
            assert master["ATTENDEE"].params["PARTSTAT"] == "DECLINED" and master["ATTENDEE"].params["ROLE"] == "OPT-PARTICIPANT", path
            assert str(master["ORGANIZER"]) == "mailto:eve%2Cx@contoso.com", path
            assert str(master["CLASS"]) == "PRIVATE" and str(master["TRANSP"]) == "TRANSPARENT", path
            assert [str(one) for one in master["CATEGORIES"].cats] == ["a,b", "c"], path
            assert str(master["DESCRIPTION"]).startswith("One\n"), (path, str(master["DESCRIPTION"]))
            # The package leaves the value of a property that it does not know as it is written.
            assert str(master["X-ALT-DESC"]).replace("\\;", ";") == described["body"]["content"], path
            (alarm,) = master.walk("VALARM")
            assert alarm.decoded("TRIGGER") == timedelta(minutes=-20), path
        found = recurring_ical_events.of(read).between(datetime(2023, 1, 1), datetime(2024 + YEARS + 5, 1, 1))
        found = sorted(as_utc(event["DTSTART"].dt) for event in found)
        # A series without an end goes on after the ten years.
        limit = max(expected) if "recurrence" in described and described["recurrence"]["range"]["type"] == "noEnd" else "9"
        found = [moment for moment in found if moment <= limit]
        assert found == expected, (path, sorted(set(found) ^ set(expected))[:10], described["recurrence"])
        checked += 1
    print(checked)


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](pathlib.Path(sys.argv[2]))
