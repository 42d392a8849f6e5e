#!/usr/bin/env python3
"""Reads a Strongroom repository, from docs/repository-format.md alone: the names in quotes are its sections.

It shares no code with the program, so that one misreading of the format cannot hide in both. Needs Python 3.11 with the
packages blake3, cbor2, cryptography and zstandard. It lacks the cipher aes-256-pmac-siv, which no package has.
"""

from __future__ import annotations

import argparse, base64, mmap, os, stat, struct, sys  # noqa: E401
from collections import namedtuple
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import cbor2, zstandard  # noqa: E401
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from deflated_stream import Stream

FORMAT = "strongroom format 1: "
PLAINTEXT_LEN_MAX, LIST_DEPTH_MAX = 256 << 20, 9
FILE, DIRECTORY, SYMLINK = RAW, BASE64, LIST = 0, 1, 2
DEFLATED, BASE64_OF = 3, 4
FEATURES = {"deflated"}
# The special files of "What a file system knows".
SPECIAL = {1: stat.S_IFIFO, 2: stat.S_IFSOCK, 3: stat.S_IFCHR, 4: stat.S_IFBLK}
# Where a blob lies: in which block of a pack, the first three, and where in the block's plaintext ("Packs").
Place = namedtuple("Place", "pack block_offset block_length offset length")


def require(condition: object, what: str) -> None:
    """Raises `ValueError` unless `condition` holds: something is not as the page says."""
    if not condition:
        raise ValueError(what)


class Ref:
    """A reference to a chunk, or to a node (whose length it does not know), with the place that its hint names."""

    def __init__(self, id: bytes, length: int | None = None) -> None:
        self.id, self.length = id, length
        self.place: Place | None = None


class Segment:
    """A piece of content ("Content"): chunks or segments, as they are or as base64 text, a node that lists segments, or
    an archive that was taken apart."""

    def __init__(self, item: list[Any], within: tuple[int, ...] = (RAW, BASE64, LIST, DEFLATED, BASE64_OF)) -> None:
        self.kind: int = item[0]
        known = (self.kind, len(item)) in ((RAW, 2), (BASE64, 4), (LIST, 3), (DEFLATED, 4), (BASE64_OF, 4))
        require(known and self.kind in within, "unknown segment")
        self.segments: list[Segment] = []
        if self.kind == LIST:
            self.length, self.refs = item[1], [Ref(item[2])]
            return
        if self.kind in (DEFLATED, BASE64_OF):
            below = (RAW, LIST) if self.kind == DEFLATED else (RAW, LIST, DEFLATED)
            self.segments = [Segment(one, below) for one in item[3]]
            self.refs = [ref for segment in self.segments for ref in segment.refs]
            self.length = sum(segment.length for segment in self.segments)
            if self.kind == DEFLATED:
                self.material_length, self.length, self.recipe_length = self.length, item[1], item[2]
        else:
            require(len(item[-1]) % 36 == 0, "chunk references of odd length")
            self.refs = [Ref(id, length) for id, length in struct.iter_unpack("<32sI", item[-1])]
            self.length = sum(ref.length or 0 for ref in self.refs)
        if self.kind in (BASE64, BASE64_OF):
            require(item[2] < 4, "unknown flags of base64")
            chars = -(-self.length // 3) * 4
            self.line_len = item[1] or max(chars, 1)
            self.eol, final_eol = b"\r\n" if item[2] & 1 else b"\n", item[2] >> 1
            self.final_eol = self.eol if final_eol and chars else b""
            self.length = chars + max(-(-chars // self.line_len) - 1, 0) * len(self.eol) + len(self.final_eol)


class Entry:
    """One name in a directory ("Entries")."""

    def __init__(self, fields: dict[int, Any]) -> None:
        self.name, self.kind, self.mode = fields[1], fields[2], fields.get(5)
        self.mtime_ns: int = fields[3] * 10**9 + fields.get(4, 0)
        legal = 0 < len(self.name) <= 255 and self.name not in (b".", b"..") and not set(self.name) & {0, 47}
        require(legal and self.kind in (FILE, DIRECTORY, SYMLINK), f"illegal entry {self.name!r}")
        self.content = [Segment(item) for item in fields.get(8, [])]
        self.length = sum(segment.length for segment in self.content)
        self.target: bytes = fields.get(10, b"")
        self.special, self.link = fields.get(33), tuple(fields.get(34, ()))
        require(not self.special or (self.kind == FILE and not self.length and self.special[0] in SPECIAL), "unknown special file")
        self.sameness = cbor2.dumps({key: value for key, value in fields.items() if key != 1}) if self.link else b""
        root, self.tree_sums = fields.get(9, (b"", [0] * 5))
        further = {key: [Segment(item) for item in fields.get(key, [])] for key in (12, *range(16, 32))}
        self.attributes, self.long_attributes = fields.get(32, []), further[18]
        self.root, parts = Ref(root), self.content + [segment for segments in further.values() for segment in segments]
        self.refs = [self.root] * (self.kind == DIRECTORY) + [ref for part in parts for ref in part.refs]
        below = [1, 1, self.tree_sums[2] + 1, *self.tree_sums[3:]]
        self.sums = below if self.kind == DIRECTORY else [1, 0, 1, 1, self.length]


class Node:
    """A decoded node ("Nodes"): entries of a leaf, (last name, ref, sums) of an inner node, segments of a list."""

    def __init__(self, canonical: bytes) -> None:
        kind, *levels, items = cbor2.loads(canonical)
        require((kind, len(levels)) in ((0, 0), (1, 1), (2, 0)), "unknown kind of node")
        self.level: int = {0: 0, 1: sum(levels), 2: -1}[kind]
        self.entries = [Entry(item) for item in items] if kind == 0 else []
        self.children = [(last, Ref(id), sums) for last, id, sums in items] if kind == 1 else []
        self.segments = [Segment(item) for item in items] if kind == 2 else []
        self.refs = [ref for _, ref, _ in self.children]
        self.refs += [ref for record in [*self.entries, *self.segments] for ref in record.refs]


def varint(stream: Iterator[int]) -> int:
    """Reads a LEB128 number ("Hints")."""
    byte = next(stream, 0)
    return byte if byte < 0x80 else byte & 0x7F | varint(stream) << 7


def fill_hints(hints: bytes, at: Place, refs: list[Ref]) -> None:
    """Gives `refs` the places that the hints of a node, which itself lies at `at`, name ("Hints")."""
    stream = iter(hints)
    packs = [bytes(islice(stream, 32)) for _ in range(varint(stream))]
    last: Place | None = None
    for ref in refs:
        tag = varint(stream)
        if tag == 0:
            continue
        require(last or tag > 2, "a hint without a predecessor")
        if tag == 3:
            block = at[:3]
        elif tag > 3:
            block = (at.pack if tag == 4 else packs[tag - 5], varint(stream), varint(stream))
        offset = last.offset + last.length if tag == 1 else varint(stream)
        ref.place = last = Place(*block, offset, varint(stream) if ref.length is None else ref.length)


class Repository:
    """An open repository; `find_by` says where places come from: "hints", "index" or "footers" ("Reading")."""

    def __init__(self, root: Path, secret: bytes, find_by: str) -> None:
        self.root, self.find_by = root, find_by
        data = (root / "config").read_bytes()
        config = cbor2.loads(data[:-32])
        require(config[1] == 1, f"format version {config[1]} is unknown")
        require(set(config.get(10, [])) <= FEATURES, f"a feature of {config.get(10)} is unknown")
        require(config[3] == "aes-256-siv", f"cipher {config[3]} is not supported")
        self.master = self._unlock(config[2], secret)
        require(blake3(data[:-32], key=self.key("config")).digest() == data[-32:], "config is not authentic")
        self.block = lru_cache(maxsize=32)(self._block)
        self.pack = lru_cache(maxsize=None)(self._pack)

    def _unlock(self, repository: bytes, secret: bytes) -> bytes:
        """Returns the master key ("Key slots")."""
        for path in sorted((self.root / "keys").iterdir()):
            head = cbor2.loads(cbor2.loads(path.read_bytes())[0])
            with suppress(InvalidTag, ValueError):
                if head[2] == 1:
                    memory, passes, lanes, salt = head[3]
                    argon2 = Argon2id(salt=salt, length=64, iterations=passes, lanes=lanes, memory_cost=memory)
                    material = argon2.derive(secret)
                else:
                    material = base64.b64decode(secret.strip(), validate=True)
                wrapping = AESSIV(blake3(material, derive_key_context=FORMAT + "key slot").digest(length=64))
                return wrapping.decrypt(head[4], [f"{FORMAT}key slot".encode(), repository + bytes.fromhex(path.name)])
        raise ValueError("no key slot opens with this password")

    def key(self, purpose: str, length: int = 32) -> bytes:
        """Derives a key from the master key ("Keys")."""
        return blake3(self.master, derive_key_context=FORMAT + purpose).digest(length=length)

    def unseal(self, purpose: str, sealed: bytes, what: str) -> bytes:
        """Opens an envelope ("Envelope")."""
        try:
            plain = AESSIV(self.key(purpose, 64)).decrypt(sealed, [(FORMAT + purpose).encode(), b""])
        except (InvalidTag, ValueError):
            raise ValueError(f"{what} failed authentication") from None
        compression, length = struct.unpack_from("<BI", plain)
        require(compression in (0, 1) and length <= PLAINTEXT_LEN_MAX, f"{what} has an unknown form")
        zstd = zstandard.ZstdDecompressor()
        body = zstd.decompress(plain[5:], max_output_size=length) if compression else plain[5:]
        require(len(body) == length, f"{what} has another length than it says")
        return body

    def named(self, folder: str, purpose: str) -> Iterator[tuple[str, bytes]]:
        """Yields name and plaintext of the sealed objects of a kind ("Objects"); temporary files are none."""
        path = self.root / folder
        for name in sorted(name for name in os.listdir(path) if len(name) == 64) if path.is_dir() else []:
            data = (path / name).read_bytes()
            require(blake3(data).hexdigest() == name, f"{folder}/{name} is not what its name says")
            yield name, self.unseal(purpose, data, f"{folder}/{name}")

    def snapshots(self) -> list[tuple[str, dict[int, Any]]]:
        """Returns all snapshots, the oldest first ("Snapshots")."""
        found = [(name, cbor2.loads(plain)) for name, plain in self.named("snapshots", "snapshot")]
        return sorted(found, key=lambda pair: (pair[1][2], pair[0]))

    def snapshot(self, asked: str) -> Entry:
        """Returns the root entry of the snapshot whose id begins with `asked`, or of the "latest"."""
        found = [fields for name, fields in self.snapshots() if asked == "latest" or name.startswith(asked)]
        require(found and (asked == "latest" or len(found) == 1), f"{asked!r} names {len(found)} snapshots")
        root = Entry(found[-1][6])
        require(found[-1][1] == 1 and root.kind == DIRECTORY, "a snapshot of an unknown version or form")
        root.root.place = Place(*found[-1][7]) if 7 in found[-1] else None
        return root

    def _pack(self, id: bytes) -> mmap.mmap:
        """Returns the bytes of a pack, held against its name."""
        with open(self.root / "packs" / id.hex()[:2] / id.hex(), "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        require(blake3(data).digest() == id, f"pack {id.hex()} is not what its name says")
        return data

    def _block(self, purpose: str, pack: bytes, offset: int, length: int) -> bytes:
        sealed = self.pack(pack)[offset : offset + length]
        return self.unseal(purpose, sealed, f"block at {offset} of pack {pack.hex()}")

    def _read_footers(self) -> Iterator[tuple[bytes, Place]]:
        """Reads the footer of every pack ("Packs")."""
        for id in sorted(bytes.fromhex(path.name) for path in (self.root / "packs").glob("??/" + "?" * 64)):
            data = self.pack(id)
            length, magic = struct.unpack("<I4s", data[-8:])
            require(magic == b"SRP1" and length + 8 <= len(data), f"pack {id.hex()} does not end like a pack")
            footer = self.unseal("pack footer", data[-8 - length : -8], f"footer of pack {id.hex()}")
            version, _, blocks, blobs = struct.unpack_from("<BB2xII", footer)
            require(version == 1 and len(footer) == 12 + 12 * blocks + 36 * blobs, "malformed footer")
            records = struct.iter_unpack("<32sI", footer[12 + 12 * blocks :])
            at = 0
            for sealed, plaintext, count in struct.iter_unpack("<III", footer[12 : 12 + 12 * blocks]):
                offset = 0
                for _ in range(count):
                    blob, blob_length = next(records)
                    yield blob, Place(id, at, sealed, offset, blob_length)
                    offset += blob_length
                require(offset == plaintext, "a footer contradicts itself")
                at += sealed
            require(at + length + 8 == len(data), "a footer does not fit its pack")

    def _read_indexes(self) -> Iterator[tuple[bytes, Place]]:
        """Reads every index object ("Index")."""
        for _, index in self.named("index", "index"):
            version, packs, blocks, blobs = struct.unpack_from("<B3xIII", index)
            blocks_at, blobs_at = 16 + 40 * packs, 16 + 40 * packs + 12 * blocks
            require(version == 1 and len(index) == blobs_at + 44 * blobs, "malformed index")
            owners = [p for p, _, count in struct.iter_unpack("<32sB3xI", index[16:blocks_at]) for _ in range(count)]
            sizes = struct.iter_unpack("<II4x", index[blocks_at:blobs_at])
            listed = [(pack, *size) for pack, size in zip(owners, sizes, strict=True)]
            for blob, block, offset, length in struct.iter_unpack("<32sIII", index[blobs_at:]):
                yield blob, Place(*listed[block], offset, length)

    @cached_property
    def places(self) -> dict[bytes, Place]:
        """Where every blob lies, as footers or index objects say."""
        return dict(self._read_footers() if self.find_by == "footers" else self._read_indexes())

    def blob(self, ref: Ref) -> tuple[Place, bytes]:
        """Finds a blob where its hint says, or else where it is listed ("Reading")."""
        if ref.place and self.find_by == "hints":
            with suppress(OSError, ValueError):  # A hint is advice.
                return self.proven(ref, ref.place)
        require(ref.id in self.places, f"{ref.id.hex()} is in no pack")
        return self.proven(ref, self.places[ref.id])

    def proven(self, ref: Ref, place: Place) -> tuple[Place, bytes]:
        """Reads a blob and proves it ("Chunks", "Nodes")."""
        key, purpose = ("node id", "metadata block") if ref.length is None else ("chunk id", "data block")
        data = self.block(purpose, *place[:3])[place.offset : place.offset + place.length]
        named = data[4 : 4 + int.from_bytes(data[:4], "little")] if ref.length is None else data
        good = ref.length in (None, len(data)) and blake3(named, key=self.key(key)).digest() == ref.id
        require(good, f"the bytes stored for {ref.id.hex()} are not its own")
        return place, data

    def node(self, ref: Ref) -> Node:
        """Reads a node and its hints ("Nodes")."""
        place, stored = self.blob(ref)
        end = 4 + int.from_bytes(stored[:4], "little")
        node = Node(stored[4:end])
        fill_hints(stored[end:], place, node.refs)
        return node

    def entries(self, ref: Ref, sums: list[int], level: int | None = None) -> list[Entry]:
        """Returns the entries under a node, which must lie at `level` and have these sums ("Trees")."""
        node = self.node(ref)
        require(node.level >= 0 and level in (None, node.level), "a node stands at the wrong level")
        entries = node.entries
        for last, child, child_sums in node.children:
            entries += self.entries(child, child_sums, node.level - 1)
            require(entries and entries[-1].name == last, "a child ends with another name")
        require([sum(column) for column in zip([0] * 5, *(e.sums for e in entries))] == sums, "sums are wrong")
        require(all(a.name < b.name for a, b in pairwise(entries)), "names do not ascend")
        return entries

    def read(self, content: list[Segment], depth: int = 0) -> Iterator[bytes]:
        """Yields the bytes of a content ("Content")."""
        for segment in content:
            chunks = (self.blob(ref)[1] for ref in segment.refs)
            if segment.kind == RAW:
                yield from chunks
            elif segment.kind == DEFLATED:
                yield from self.archive(segment, depth)
            elif segment.kind in (BASE64, BASE64_OF):
                chunks = self.read(segment.segments, depth + 1) if segment.kind == BASE64_OF else chunks
                text, width = base64.b64encode(b"".join(chunks)), segment.line_len
                lines = (text[at : at + width] for at in range(0, len(text), width))
                yield segment.eol.join(lines) + segment.final_eol
            else:
                node = self.node(segment.refs[0])
                good = node.level < 0 and sum(part.length for part in node.segments) == segment.length
                require(good and depth < LIST_DEPTH_MAX, "a list is not as it was announced")
                yield from self.read(node.segments, depth + 1)

    def archive(self, segment: Segment, depth: int) -> Iterator[bytes]:
        """Makes an archive again that was taken apart ("Archives")."""
        material = b"".join(self.read(segment.segments, depth + 1))
        require(len(material) == segment.material_length, "the material of an archive is not as it was announced")
        pieces = cbor2.loads(material[: segment.recipe_length])
        lengths = [sum(piece[3] for piece in pieces if piece[0] == 2), sum(piece[1] for piece in pieces if piece[0] == 0)]
        corrections_at = segment.recipe_length
        loose_at = corrections_at + lengths[0]
        body_at = loose_at + lengths[1]
        written = 0
        for kind, length, *stream in pieces:
            if kind == 0:
                piece, loose_at = material[loose_at : loose_at + length], loose_at + length
            elif kind == 1:
                piece, body_at = material[body_at : body_at + length], body_at + length
            else:
                require(kind == 2 and len(stream) == 3, "unknown piece of an archive")
                plain, body_at = material[body_at : body_at + stream[0]], body_at + stream[0]
                corrections = material[corrections_at : corrections_at + stream[1]]
                corrections_at += stream[1]
                piece = Stream(plain, corrections).make()
                require(blake3(piece).digest()[:8] == stream[2], "a deflate stream was not made again as it was")
            require(len(piece) == length, "a piece of an archive has another length than its recipe says")
            written += length
            yield piece
        require(written == segment.length and body_at == len(material), "a recipe does not fit its archive")


def extract(repository: Repository, entry: Entry, path: bytes, first: dict[Any, bytes]) -> None:
    """Writes `entry` as `path`, where nothing may be: contents, links, attributes, times and permissions.

    `first` holds where the first names of hard-linked files were written ("What a file system knows").
    """
    name = (entry.link, entry.sameness)
    if entry.link and name in first:
        return os.link(first[name], path)
    if entry.kind == DIRECTORY:
        os.mkdir(path, 0o700)
        for below in repository.entries(entry.root, entry.tree_sums):
            extract(repository, below, os.path.join(path, below.name), first)
    elif entry.special:
        with suppress(PermissionError):  # Devices are for root.
            os.mknod(path, SPECIAL[entry.special[0]] | 0o600, os.makedev(*entry.special[1:] or (0, 0)))
        if not os.path.lexists(path):
            return print(f"left out: {path!r}", file=sys.stderr)
    elif entry.kind == SYMLINK:
        os.symlink(entry.target, path)
    else:
        with open(path, "xb") as file:
            written = sum(file.write(piece) for piece in repository.read(entry.content))
        require(written == entry.length, f"{path!r} has another length than its entry says")
    attributes = cbor2.loads(b"".join(repository.read(entry.long_attributes)) or b"\x80") or entry.attributes
    for attribute, value in attributes:
        try:
            os.setxattr(path, attribute, value, follow_symlinks=False)
        except OSError as error:
            print(f"not set: {attribute!r} of {path!r}: {error}", file=sys.stderr)
    if entry.mode is not None and entry.kind != SYMLINK:
        os.chmod(path, entry.mode)
    if entry.link:
        first[name] = path
    os.utime(path, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def show(repository: Repository, directory: Entry, path: bytes = b"") -> None:
    """Prints everything under `directory`."""
    types = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}
    for entry in repository.entries(directory.root, directory.tree_sums):
        kind = SPECIAL[entry.special[0]] if entry.special else types[entry.kind]
        mode = stat.filemode(kind | (entry.mode or 0))
        line = f"{mode} {entry.length:>12} {datetime.fromtimestamp(entry.mtime_ns // 10**9, UTC)} ".encode()
        sys.stdout.buffer.write(line + (path + entry.name).replace(b"\n", b"\\n") + b"\n")
        if entry.kind == DIRECTORY:
            show(repository, entry, path + entry.name + b"/")


def main() -> int:
    """The password, or the recovery key, stands in the environment as STRONGROOM_PASSWORD."""
    parser = argparse.ArgumentParser(description="Reads a Strongroom repository.", epilog=main.__doc__)
    parser.add_argument("command", choices=["list", "ls", "extract"])
    parser.add_argument("repo", type=Path)
    parser.add_argument("snapshot", nargs="?", default="latest", help="its id, the beginning of it, or latest")
    parser.add_argument("outdir", nargs="?", type=os.fsencode, help="a folder that does not exist yet")
    for option in ("--index", "--footers"):
        parser.add_argument(option, dest="by", action="store_const", const=option[2:], help="ignore hints")
    args = parser.parse_args()
    try:
        repository = Repository(args.repo, os.environb.get(b"STRONGROOM_PASSWORD", b""), args.by or "hints")
        if args.command == "list":
            for name, fields in repository.snapshots():
                print(name, datetime.fromtimestamp(fields[2][0], UTC), fields[4], fields[5], sep="  ")
        elif args.command == "ls":
            show(repository, repository.snapshot(args.snapshot))
        else:
            extract(repository, repository.snapshot(args.snapshot), args.outdir or parser.error("extract needs OUTDIR"), {})
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
