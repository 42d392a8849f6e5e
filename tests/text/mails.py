"""What Python's `email` reads in mails, for tests/all/text.rs: another reading of the same bytes.

    mails.py expect DIR      prints, for each file under DIR, what must be found in its text
    mails.py generate DIR    writes mails in many charsets and encodings, and prints what is in them

Both print a JSON object a line: {"path": ..., "phrases": [...]}.
"""

import base64
import email
import email.errors
import email.header
import html.parser
import json
import os
import quopri
import re
import sys

# Characters that no text holds: what stands around them must be found.
UNREADABLE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\ufffd\ufeff]+")
# Names that browsers and mail programs take for a larger charset than Python does.
LARGER = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "cp950", "shift_jis": "cp932"}
# White space that HTML collapses, and the spaces that people do not tell from it.
SPACE = re.compile("[ \t\r\f\u00a0]+")
META = re.compile(rb"charset=[\"' ]*([A-Za-z0-9_.:-]+)", re.IGNORECASE)


class Page(html.parser.HTMLParser):
    """The text that a page shows, a piece for each run between two tags."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.pieces = []
        self.hidden = None
        self.at_end = False

    def close(self):
        # What follows the last tag, unless that never ends: nobody sees it.
        self.at_end = self.rawdata.startswith("<")
        super().close()

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "style", "title", "iframe", "noembed", "noframes"):
            self.hidden = tag

    def handle_endtag(self, tag):
        if tag == self.hidden:
            self.hidden = None

    def handle_data(self, data):
        if self.hidden is None and not self.at_end:
            self.pieces += data.replace("\u00ad", "").replace("\u200b", "").split("\n")


def decoded(part):
    if str(part["content-transfer-encoding"]).strip().lower() == "base64":
        # A mailing list may have appended something in clear; Python would decode that, too.
        body, _, footer = part.get_payload().lstrip().partition("\n\n")
        if re.search("[^A-Za-z0-9+/=\\s]", footer):
            part.set_payload(body)
            return decoded(part) + "\n" + footer
    payload = part.get_payload(decode=True) or b""
    if any(isinstance(defect, email.errors.InvalidBase64LengthDefect) for defect in part.defects):
        # It gave up and has not decoded it.
        return ""
    charset = (part.get_content_charset() or "us-ascii").lower()
    if part.get_content_type() == "text/html" and part.get_content_charset() is None and META.search(payload):
        charset = META.search(payload).group(1).decode().lower()
    try:
        return payload.decode(LARGER.get(charset, charset), "replace")
    except LookupError:
        return payload.decode("ascii", "replace")


def bodies(message):
    """Gives out the parts whose text people read: of alternatives the plain one, if it says anything."""
    if message.is_multipart():
        parts = message.get_payload()
        if message.get_content_type() == "multipart/alternative":
            plain = [part for part in parts if part.get_content_type() == "text/plain" and decoded(part).strip()]
            parts = plain or parts
        for part in parts:
            yield from bodies(part)
    elif message.get_content_maintype() == "text" and message.get_content_disposition() != "attachment":
        # It has parts that nobody declared, or whose boundary Python did not find.
        declared = str(message["content-type"] or "").lower().startswith("text/")
        if declared or not re.search("^--.+\nContent-", message.get_payload(), re.IGNORECASE | re.MULTILINE):
            yield message


def phrases(message):
    found = []
    for part in bodies(message):
        lines = decoded(part)
        if part.get_content_type() == "text/html":
            page = Page()
            page.feed(lines)
            page.close()
            lines = (SPACE.sub(" ", piece) for piece in page.pieces)
        else:
            lines = lines.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            # Python takes a broken `==` for an escaped `=`, and leaves what follows as it is.
            if "=3D" not in line and not is_misread(line):
                found += UNREADABLE.split(line)
    if message["subject"] and not is_misread(subject(message)):
        found += UNREADABLE.split(subject(message))
    return sorted({phrase.strip() for phrase in found if phrase.strip()})


def is_misread(line):
    """Whether Python took the charset that is named, or none, for granted where the bytes say another.

    In charsets of two bytes a letter, what stands around undecodable bytes are halves of letters.
    """
    if "\ufffd" in line or "\x1b" in line:
        return True
    try:
        return not line.isascii() and not line.encode("cp1252").decode("utf-8").isascii()
    except UnicodeError:
        return False


def subject(message):
    value = str(message["subject"]).replace("\r", "").replace("\n", "")
    try:
        return " ".join(str(email.header.make_header(email.header.decode_header(value))).split())
    except (LookupError, UnicodeError, email.errors.HeaderParseError):
        return ""


def expect(folder):
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with open(path, "rb") as file:
                message = email.message_from_binary_file(file)
            yield os.path.relpath(path, folder), phrases(message)


# Each in a language that the charset was made for, with characters that ASCII lacks.
CHARSETS = {
    "utf-8": "Überweisung über 5 € – 東京",
    "iso-8859-1": "Überweisung für Frau Müller",
    "iso-8859-2": "Příliš žluťoučký kůň úpěl",
    "iso-8859-5": "Съешь же ещё этих мягких",
    "iso-8859-7": "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "iso-8859-15": "Œuvre à 5 € près",
    "windows-1250": "Zażółć gęślą jaźń",
    "windows-1251": "Оплата счёта № 7",
    "windows-1252": "“Smart quotes” – 5 €",
    "koi8-r": "Широкая электрификация южных губерний",
    "gb2312": "中国人民银行转账",
    "big5": "銀行轉帳通知",
    "shift_jis": "銀行振込のお知らせ",
    "iso-2022-jp": "請求書をお送りします",
    "euc-kr": "송금 안내 메일",
    "utf-16": "Überweisung 銀行",
}


def generate(folder):
    number = 0
    for charset, words in CHARSETS.items():
        for encoding in ("base64", "quoted-printable", "8bit"):
            # Its bytes are no lines.
            if (charset, encoding) == ("utf-16", "8bit"):
                continue
            for kind in ("plain", "html"):
                number += 1
                name = f"{charset} {encoding} {kind}.eml"
                phrase, in_subject = f"{words} {number}.", f"{words} S{number}."
                with open(os.path.join(folder, name), "wb") as file:
                    file.write(mail(charset, encoding, kind, phrase, in_subject))
                yield name, [phrase, in_subject]


def mail(charset, encoding, kind, phrase, in_subject):
    text = f"Hello,\r\n{phrase}\r\nGoodbye. " + "x" * 100 + "\r\n"
    if kind == "html":
        # The middle of it in bold, and broken over lines where that means a space.
        text = f"<html><body><p>Hello,<p>{phrase.replace(' ', chr(10), 1)}</p><b>Good</b>bye.</body></html>"
    body = text.encode(charset)
    if encoding == "base64":
        body = base64.encodebytes(body)
    elif encoding == "quoted-printable":
        body = quopri.encodestring(body)
    word = base64.b64encode(in_subject.encode(charset)).decode()
    head = [
        "From: alice@contoso.com",
        f"Subject: =?{charset}?B?{word}?=",
        "MIME-Version: 1.0",
        f"Content-Type: text/{kind}; charset={charset}",
        f"Content-Transfer-Encoding: {encoding}",
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


if __name__ == "__main__":
    for path, found in {"expect": expect, "generate": generate}[sys.argv[1]](sys.argv[2]):
        print(json.dumps({"path": path, "phrases": found}))
