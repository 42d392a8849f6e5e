#!/usr/bin/env python3
"""Holds what Strongroom reads in mails against what Python's `email` reads in the same bytes.

    compare-mail.py --proofs target/debug/strongroom-proofs [--mails FOLDER] [--show CLASS]

Subjects, senders, recipients, dates, numbers of parts, names of attachments and decoded lengths of all parts are
compared, of the mails of a folder and of mails that this program writes: in more than forty charsets, each with its
label and without, in subject, sender, body and file name. What those hold is known, so both readers are held to it.

A difference is of a class that was judged once: RULES below says for each why Strongroom reads it as it does, with
its document. Any other difference fails.
"""

import argparse
import base64
import collections
import email
import email.errors
import email.header
import email.utils
import json
import pathlib
import quopri
import re
import subprocess
import sys
import tempfile

RULES = {
    "raw bytes": "bytes beyond ASCII that nobody encoded (RFC 5322, 2.2, allows none; RFC 6532 only UTF-8). Python shows U+FFFD; "
    "Strongroom reads UTF-8, else the charset of the text, else the likeliest",
    "control characters": "control characters in a value (RFC 5322, 3.2.3, allows none): Strongroom shows blanks",
    "torn words": "a letter or a charset's state torn over two encoded words (RFC 2047, 5, forbids it, programs do it): Python decodes "
    "each word alone and shows U+FFFD, or leaves it",
    "label": "a charset's label that Python does not know, or that is narrower than what mail programs take it for (WHATWG Encoding)",
    "encoded word": "an encoded word with blanks, junk or without its end (RFC 2047, 2, forbids it; mail programs decode it)",
    "year": "a year before 1900, or one that no date has: Python takes `0102` for 102 or 2002, Strongroom takes the last server's date",
    "zone": "a zone of more than 16 hours, or one that Python does not know and takes for UTC or local time",
    "date form": "a date in a form that one of the two does not read: RFC 5322, 4.3 (obsolete) and older",
    "quoted-printable blanks": "blanks at the ends of quoted-printable lines: RFC 2045, 6.7, rule 3, says to delete them. Python keeps them",
    "quoted-printable escapes": "`=` without two hexadecimal digits behind it: RFC 2045, 6.7, note at rule 5, keeps it as it is",
    "base64 footer": "clear text behind base64 (a mailing list's footer): Strongroom keeps it apart, Python decodes its letters as base64",
    "base64 broken": "base64 without its padding, or with one character left: Python decodes nothing, Strongroom what is whole "
    "(RFC 2045, 6.8, says to ignore other characters)",
    "not base64": "a part that says base64 and is clear text: Python decodes its letters, Strongroom shows it",
    "delivery status": "`message/delivery-status` (RFC 3464): Python makes a part of each group of fields, Strongroom shows it as text",
    "boundary": "a boundary that Python does not find: no semicolon before it, none declared, or another than the one used",
    "closing boundary": "a last part without a closing boundary: Strongroom keeps its last line end, Python takes it for the boundary's",
    "two types": "two fields `Content-Type` (RFC 5322, 3.6, allows one): Strongroom takes the one that has parts, Python the first",
    "header end": "a header without an empty line behind it, or with lines in it that are no fields: the readers see its end elsewhere",
    "multipart without parts": "a multipart in which no boundary stands: Strongroom takes it for text, as a leaf",
    "file name": "a name that only one of the two finds: `name` in Content-Disposition, unquoted blanks, or an encoded word in quotes "
    "(RFC 2047, 5, forbids it; Outlook writes it)",
    "address": "an address that is none by RFC 5322, 3.4: words and brackets in it are told apart otherwise",
    "no charset": "a text without a label in a charset that nothing in its bytes tells from another",
}

# Charsets by what mail programs take them for, where Python is narrower (WHATWG Encoding Standard).
LARGER = {
    "gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932", "iso-8859-1": "cp1252", "us-ascii": "utf-8",
    "latin1": "cp1252", "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "iso-8859-9": "cp1254", "tis-620": "cp874",
}  # fmt: skip

TEXTS = {
    "de": ("Grüße aus Köln, schöne Straße und Äpfel für Jürgen Müller", "iso-8859-1 iso-8859-15 cp1252 utf-8 utf-7 cp437 cp850 mac_roman utf-16 utf-32 cp858 iso-8859-14"),
    "cs": ("Dvořák příliš žluťoučký kůň úpěl ďábelské ódy", "iso-8859-2 cp1250 cp852 mac_latin2"),
    "pl": ("Zażółć gęślą jaźń", "iso-8859-2 cp1250 cp852 iso-8859-16"),
    "ru": ("Привет, это письмо написано по-русски", "koi8-r koi8-u cp1251 iso-8859-5 cp866 mac_cyrillic cp855"),
    "el": ("Καλημέρα σας, αυτό είναι ένα μήνυμα", "iso-8859-7 cp1253 cp737 mac_greek"),
    "he": ("שלום זה מכתב בעברית", "iso-8859-8 cp1255 cp862"),
    "ar": ("مرحبا هذه رسالة بالعربية", "iso-8859-6 cp1256"),
    "tr": ("Merhaba dünya şğıİ çok güzel", "iso-8859-9 cp1254 cp857 mac_turkish"),
    "th": ("สวัสดีครับนี่คือจดหมาย", "tis-620 cp874"),
    "ja": ("会議の予定について確認します", "iso-2022-jp iso-2022-jp-1 iso-2022-jp-2 shift_jis euc-jp cp932"),
    "zh": ("会议通知与日程安排", "gb2312 gbk gb18030 hz"),
    "tw": ("會議通知與日程安排", "big5 cp950 big5hkscs"),
    "ko": ("회의 일정 안내입니다", "euc-kr cp949 iso-2022-kr"),
    "lt": ("Ąžuolas žalias šūksnis", "iso-8859-13 iso-8859-4 cp1257 cp775"),
    "fi": ("Hyvää päivää, terveisiä Jyväskylästä", "iso-8859-10 mac_iceland"),
    "vi": ("Xin chào, đây là thư, cám ơn", "cp1258"),
}  # fmt: skip
# Nothing in the bytes of a text in one of these tells it from another charset.
UNTOLD = set(
    "cp437 cp850 cp852 cp855 cp857 cp858 cp862 cp737 cp775 mac_roman mac_latin2 mac_cyrillic mac_greek mac_turkish mac_iceland"
    " iso-8859-16 iso-8859-14 iso-8859-10 iso-8859-13 iso-8859-4 iso-8859-15 hz utf-7 cp1258 iso-2022-kr utf-16 utf-32 koi8-u".split()
)


def generate(folder):
    """Writes the mails. Returns what each holds: its text."""
    held = {}
    for language, (text, charsets) in TEXTS.items():
        for charset in charsets.split():
            encoded = text.encode(charset)
            word = b"=?" + charset.encode() + b"?B?" + base64.b64encode(encoded) + b"?="
            percent = "".join(f"%{byte:02X}" for byte in (text + ".txt").encode(charset))
            for labelled in (True, False):
                # Without a label subject and sender are as bare as the text, where that is possible in a line.
                is_line = b"\0" not in encoded and b"\n" not in encoded
                head = word if labelled or not is_line else encoded
                label = f"; charset={charset}" if labelled else ""
                name = f"filename*={charset}''{percent}" if labelled else "filename=a.txt"
                mail = (
                    b"From: " + (head if head == word else b'"' + head + b'"') + b" <ann@example.org>\nTo: bob@example.org\nSubject: " + head
                    + b"\nDate: Mon, 2 Mar 2026 10:00:00 +0000\nMIME-Version: 1.0\n"
                    + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"
                    + f"Content-Type: text/plain{label}\nContent-Transfer-Encoding: base64\n\n".encode()
                    + base64.encodebytes(encoded) + b"\n--b\n"
                    + f"Content-Type: application/octet-stream\nContent-Disposition: attachment; {name}\n".encode()
                    + b"Content-Transfer-Encoding: quoted-printable\n\n" + quopri.encodestring(encoded) + b"\n--b--\n"
                )  # fmt: skip
                path = f"{language} {charset} {'labelled' if labelled else 'bare'}.eml"
                (folder / path).write_bytes(mail)
                held[path] = (text, charset, labelled)
    return held


def plain(text):
    """Control characters and runs of blanks do not count."""
    return " ".join(re.sub("[\x00-\x20\x7f-\xa0\u2028\u2029]+", " ", text or "").split())


def decoded(value):
    """Decodes a header field as Python does, in the charsets that mail programs mean."""
    if value is None:
        return None
    out = []
    for piece, charset in email.header.decode_header(value):
        if isinstance(piece, bytes):
            charset = (charset or "ascii").split("*")[0].lower()
            try:
                piece = piece.decode(LARGER.get(charset, charset), "replace")
            except LookupError:
                piece = piece.decode("ascii", "replace")
        out.append(piece)
    return plain("".join(out))


class Read:
    """What Python reads in a mail."""

    def __init__(self, raw):
        self.raw = raw
        self.message = email.message_from_bytes(raw)

    def field(self, name):
        # Of several the first that says something, as readers of mail do.
        values = [str(value) for value in self.message.get_all(name, []) if str(value).strip()]
        return values[0] if values else None

    def people(self, name):
        values = [str(value) for value in self.message.get_all(name, [])]
        return [(decoded(name), address) for name, address in email.utils.getaddresses(values) if name or address]

    def date(self):
        for value in self.message.get_all("date", []):
            try:
                found = email.utils.parsedate_tz(str(value))
                if found:
                    return email.utils.mktime_tz(found)
            except (ValueError, OverflowError, TypeError):
                pass
        return None

    def parts(self):
        return list(self.message.walk())

    def length(self, part):
        if part.is_multipart():
            return 0
        return len(part.get_payload(decode=True) or b"")


def raw_field(raw, name):
    """Returns the bytes of the first field of a name that says something."""
    head = re.split(rb"\r?\n\r?\n", raw, maxsplit=1)[0]
    found = re.findall(rb"(?im)^" + name.encode() + rb"[ \t]*:((?:.*)(?:\r?\n[ \t].*)*)", head)
    return next((value for value in found if value.strip()), b"")


class Comparison:
    def __init__(self, show):
        self.compared = collections.Counter()
        self.judged = collections.Counter()
        self.unjudged = []
        self.show = show

    def equal(self, what, path, ours, theirs, judge):
        self.compared[what] += 1
        if ours == theirs:
            return
        rule = judge()
        if self.show is not None and self.show == (rule or "unjudged"):
            print(f"[{rule}] {path}: {what}: {ours!r} | Python: {theirs!r}")
        if rule is None:
            self.unjudged.append(f"{path}: {what}: {ours!r} | Python: {theirs!r}")
        else:
            assert rule in RULES, rule
            self.judged[what, rule] += 1

    def mail(self, path, ours, raw):
        theirs = Read(raw)
        if [defect for defect in theirs.message.defects if isinstance(defect, email.errors.MissingHeaderBodySeparatorDefect)]:
            self.compared["header end"] += 1
            self.judged["mail", "header end"] += 1
            return
        self.equal("subject", path, plain(ours["subject"]), decoded(theirs.field("subject")) or "",
                   lambda: judge_text(raw_field(raw, "Subject"), decoded(theirs.field("subject")) or ""))
        for name in ("from", "to", "cc"):
            own = [(plain(one[0]), one[1].lower()) for one in ours[name]]
            other = [(one[0] or "", plain(one[1]).lower()) for one in theirs.people(name)]
            self.equal(name, path, own, other, lambda name=name, own=own, other=other: judge_people(raw, name, own, other))
        self.equal("date", path, ours["date"], theirs.date(), lambda: judge_date(raw_field(raw, "Date"), ours["date"], theirs.date()))
        self.parts(path, ours["parts"], theirs, raw)

    def parts(self, path, ours, theirs, raw):
        parts = theirs.parts()
        self.equal("number of parts", path, len(ours), len(parts), lambda: judge_number(ours, parts))
        if len(ours) != len(parts):
            return
        for number, (own, part) in enumerate(zip(ours, parts)):
            at = f"{path} part {number}"
            name = part.get_filename()
            if isinstance(name, tuple):
                name = email.utils.collapse_rfc2231_value(name)
            name = decoded(name)
            self.equal("file name", at, plain(own["name"]), name or "", lambda: judge_name(part, own["name"], name))
            if own["kind"] == "leaf" and not part.is_multipart():
                self.equal("decoded length", at, own["len"], theirs.length(part), lambda: judge_length(part, own, theirs))

    def truth(self, path, ours, text, charset, labelled):
        """Holds a generated mail against what is in it."""
        untold = not labelled and charset in UNTOLD
        judge = lambda: "no charset" if untold else None
        self.equal("known subject", path, ours["subject"], text, judge)
        self.equal("known sender", path, ours["from"][0], [text, "ann@example.org"], judge)
        self.equal("known text", path, ours["parts"][1]["text"].strip(), text, judge)
        self.equal("known file name", path, ours["parts"][2]["name"], f"{text}.txt" if labelled else "a.txt", lambda: None)
        self.equal("known length", path, ours["parts"][2]["len"], len(text.encode(charset)), lambda: None)

    def report(self):
        print(f"{'compared':>10}  what")
        for what, count in sorted(self.compared.items()):
            print(f"{count:>10}  {what}")
        print(f"\n{'differ':>10}  what: the reason that was judged")
        for (what, rule), count in sorted(self.judged.items()):
            print(f"{count:>10}  {what}: {rule}")
        print("\nThe reasons:")
        for rule in sorted({rule for _, rule in self.judged}):
            print(f"  {rule}: {RULES[rule]}")
        print(f"\n{len(self.unjudged)} differences are of no class that was judged")
        for line in self.unjudged[:200]:
            print(f"  {line[:400]}")
        return 1 if self.unjudged else 0


def judge_text(raw, theirs):
    if any(byte >= 0x80 for byte in raw):
        return "raw bytes"
    if re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", raw):
        return "control characters"
    if "\ufffd" in theirs:
        return "torn words" if raw.count(b"=?") > 1 else "label"
    if "=?" in theirs:
        return "encoded word"
    return None


def judge_people(raw, name, ours, theirs):
    field = raw_field(raw, name)
    rule = judge_text(field, " ".join(" ".join(one) for one in theirs))
    if rule:
        return rule
    addresses = [address for _, address in ours]
    # Comments, groups and blanks in brackets, two `@` in one address, an address as a name, domain literals.
    odd = re.search(rb"\(.*\).*<|\(\(|<[^>]*[:; ].*>|@[^,;<>]*@|@[^,;<>]*<|[\[\]]|>[^,;\s]", field, re.DOTALL)
    return "address" if odd or not all("@" in address for address in addresses) else None


def judge_date(raw, ours, theirs):
    text = raw.decode("ascii", "replace")
    if re.search(r"\b0\d{3} ", text) and ours is None:
        return "year"
    zone = re.search(r"([+-]?)(\d{4,5})\s*(\(.*)?$", text.strip())
    if zone and (int(zone[2]) > 1600 or not zone[1]) or re.search(r"(GMT|UTC?)[+-]", text):
        return "zone"
    if re.search(r"\b[AP]M\b|\d{4}/\d\d/\d\d", text):
        return "date form"
    return None


def judge_number(ours, parts):
    if any(part.get_content_type() == "message/delivery-status" for part in parts):
        return "delivery status"
    if any(len(part.get_all("content-type", [])) > 1 for part in parts):
        return "two types"
    for part in parts:
        value = str(part["content-type"] or "")
        if "boundary" in value.lower() and part.get_boundary() is None:
            return "boundary"
        if part.get_content_maintype() == "multipart" and not part.is_multipart():
            return "boundary"
        if not value and re.search(r"(?im)^--.+\nContent-", part.get_payload() if isinstance(part.get_payload(), str) else ""):
            return "boundary"
    return None


def judge_name(part, ours, theirs):
    raw = " ".join(str(part[name] or "") for name in ("content-type", "content-disposition"))
    if any(ord(char) >= 0x80 for char in raw):
        return "raw bytes"
    return "file name" if "=?" in raw else None


def judge_length(part, ours, theirs):
    raw = part._payload.encode("ascii", "surrogateescape")
    encoding = str(part["content-transfer-encoding"] or "").strip().lower()
    if encoding == "quoted-printable":
        decoded, blanks = quoted_printable(raw)
        if len(decoded) == ours["len"]:
            return "quoted-printable blanks" if blanks else "quoted-printable escapes"
    if encoding == "base64":
        if ours["footer"]:
            return "base64 footer"
        if any("Base64" in type(defect).__name__ for defect in part.defects):
            return "base64 broken"
        if ours["len"] == len(raw):
            return "not base64"
    if encoding in ("", "7bit", "8bit", "binary") and ours["len"] == theirs.length(part) + 1:
        defects = [defect for one in theirs.parts() for defect in one.defects]
        if any(isinstance(defect, email.errors.CloseBoundaryNotFoundDefect) for defect in defects):
            return "closing boundary"
    return None


def quoted_printable(text):
    """Decodes by the letter of RFC 2045, 6.7. Returns the bytes, and whether a line ended in blanks."""
    out, blanks = b"", False
    for line in re.findall(b"[^\n]*\n|[^\n]+$", text):
        content = re.sub(b"\r*\n$", b"", line)
        ending = line[len(content):]
        stripped = content.rstrip(b" \t")
        blanks |= stripped != content
        if stripped.endswith(b"="):
            stripped, ending = stripped[:-1], b""
        out += re.sub(rb"=([0-9A-Fa-f]{2})", lambda found: bytes([int(found[1], 16)]), stripped) + ending
    return out, blanks


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--proofs", required=True, help="the program strongroom-proofs")
    parser.add_argument("--mails", type=pathlib.Path, help="a folder of mails, such as the Spam Assassin corpus")
    parser.add_argument("--show", help="prints each difference of a class; `unjudged` for those of none")
    args = parser.parse_args()
    comparison = Comparison(args.show)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        held = generate(folder)
        for ours in show(args.proofs, folder):
            comparison.truth(ours["path"], ours, *held.pop(ours["path"]))
            if "labelled" in ours["path"]:
                comparison.mail(ours["path"], ours, (folder / ours["path"]).read_bytes())
        assert not held, f"nothing was read of {held}"
    if args.mails:
        for ours in show(args.proofs, args.mails):
            comparison.mail(ours["path"], ours, (args.mails / ours["path"]).read_bytes())
    return comparison.report()


def show(proofs, folder):
    process = subprocess.run([proofs, "show", folder], check=True, capture_output=True)
    return [json.loads(line) for line in process.stdout.splitlines()]


if __name__ == "__main__":
    sys.exit(main())
