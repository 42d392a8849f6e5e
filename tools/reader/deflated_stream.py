#!/usr/bin/env python3
"""Makes a deflate stream again, from docs/repository-format.md, "Deflated streams", alone.

Usage: deflated_stream.py PLAIN CORRECTIONS > STREAM. Shares no code with the program. Needs Python 3.11 alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

LITERALS, RUNS, GREEDY, LAZY = range(4)
LITERAL = (1, 0)
# RFC 1951, 3.2.5: the least value of each symbol and its extra bits.
LENGTH_EXTRA = [0] * 8 + [extra for extra in range(1, 6) for _ in range(4)] + [0]
LENGTH_BASE = [3 + sum(1 << extra for extra in LENGTH_EXTRA[:symbol]) for symbol in range(28)] + [258]
DISTANCE_EXTRA = [0, 0] + [extra for extra in range(14) for _ in range(2)]
DISTANCE_BASE = [1 + sum(1 << extra for extra in DISTANCE_EXTRA[:symbol]) for symbol in range(30)]
ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]
FIXED = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8, [5] * 30


def require(condition: object, what: str) -> None:
    """Raises `ValueError` unless `condition` holds."""
    if not condition:
        raise ValueError(what)


class Input:
    """Bytes that are read from the front."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        self.at += count
        require(self.at <= len(self.data), "the corrections end too early")
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        number = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("a number is too long")

    def part(self) -> Input:
        return Input(self.take(self.number()))

    def left(self) -> bool:
        return self.at < len(self.data)

    def gap(self) -> int:
        """The number of what is as predicted before the next correction: -1 if there is none."""
        return self.number() if self.left() else -1


class Output:
    """Bits that are written, the first in the lowest place of a byte."""

    def __init__(self) -> None:
        self.done, self.bits, self.count = bytearray(), 0, 0

    def put(self, value: int, count: int) -> None:
        self.bits |= value << self.count
        self.count += count
        while self.count >= 8:
            self.done.append(self.bits & 255)
            self.bits >>= 8
            self.count -= 8

    def pad(self, padding: int) -> None:
        room = -self.count % 8
        require(padding >> room == 0, "the padding is too long")
        self.put(padding, room)


class Predictor:
    """ "The predictor": says what zlib would do next."""

    def __init__(self, plain: bytes, parameters: list[int]) -> None:
        self.plain, self.n = plain, len(plain)
        self.method, self.good, self.lazy, self.nice, self.chain, self.too_far, self.least, hash_bits = parameters
        self.shift, self.mask = -(-hash_bits // 3), (1 << hash_bits) - 1
        self.head: dict[int, int] = {}
        self.before: dict[int, int | None] = {}
        self.p, self.entered, self.floor, self.end = 0, 0, 1, self.n
        self.carried: tuple[int, int] | None = None
        self.following: tuple[int, int] | None = None

    def enter(self, last: int) -> None:
        """Enters all positions up to `last` that were neither entered nor left out."""
        while self.entered <= last and self.entered + 3 <= self.n:
            q, s = self.entered, self.shift
            b = self.plain[q : q + 3]
            hash = (b[0] << 2 * s ^ b[1] << s ^ b[2]) & self.mask
            self.before[q] = self.head.get(hash)
            self.head[hash] = q
            self.entered += 1

    def candidates(self, q: int, others: int) -> Iterator[int]:
        """Positions that may match `q`, all but the first at most `others` bytes before it."""
        limit, candidate = 32506, self.before.get(q)
        while candidate is not None and candidate >= self.floor and q - candidate <= limit:
            yield candidate
            limit, candidate = others, self.before[candidate]

    def common(self, a: int, b: int, most: int) -> int:
        length = 0
        while length < most and self.plain[a + length] == self.plain[b + length]:
            length += 1
        return length

    def search(self, q: int, best: int) -> tuple[int, int] | None:
        if q + 3 > self.end:
            return None
        self.enter(q)
        found, left = None, max(1, self.chain // 4) if best >= self.good else self.chain
        for candidate in self.candidates(q, 32505):
            length = self.common(candidate, q, min(258, self.end - q))
            if length > best:
                found, best = (length, q - candidate), length
                if length >= min(self.nice, self.end - q):
                    break
            left -= 1
            if left == 0:
                break
        if found and self.method == LAZY and (found[0] < self.least or (found[0] == 3 and found[1] > self.too_far)):
            return None
        return found

    def predict(self) -> tuple[int, int]:
        self.following = None
        if self.method == RUNS and self.p > 0:
            length = self.common(self.p - 1, self.p, max(0, min(258, self.end - self.p)))
            return (length, 1) if length >= 3 else LITERAL
        if self.method == GREEDY:
            return self.search(self.p, 2) or LITERAL
        if self.method == LAZY:
            match, self.carried = self.carried or self.search(self.p, 2), None
            if match and match[0] < self.lazy:
                self.following = self.search(self.p + 1, match[0])
            return LITERAL if self.following or not match else match
        return LITERAL

    def accept(self, token: tuple[int, int]) -> None:
        length, _ = token
        if self.method == GREEDY and length > max(1, self.lazy):
            self.enter(self.p)
            self.entered = self.p + length
        self.carried = self.following if token == LITERAL else None
        self.p += length

    def distance(self, length: int, hops: int) -> int:
        """The distance of the candidate that `hops` others with `length` bytes in common come before."""
        require(self.p + length <= self.n, "a copy goes beyond the end")
        if self.method in (GREEDY, LAZY):
            self.enter(self.p)
        for tried, candidate in enumerate(self.candidates(self.p, 32506)):
            if tried < 4096 and self.common(candidate, self.p, length) == length:
                if hops == 0:
                    return self.p - candidate
                hops -= 1
        raise ValueError("a copy has no such candidate")


def code_lengths(counts: list[int], most: int) -> list[int]:
    """Code lengths of up to `most` bits ("Codes", 1 to 4), up to the largest symbol that has one."""
    weight = list(counts)
    depth, above = [0] * len(counts), {}
    heap = [symbol for symbol, count in enumerate(counts) if count]
    while len(heap) < 2:
        largest = max(heap, default=-1)
        symbol = largest + 1 if largest < 2 else 0
        weight[symbol] = 1
        heap.append(symbol)
    symbols = set(heap)

    def smaller_or_equal(a: int, b: int) -> bool:
        return (weight[a], depth[a]) <= (weight[b], depth[b])

    def sift(i: int) -> None:
        v = heap[i - 1]
        while 2 * i <= len(heap):
            j = 2 * i
            if j < len(heap) and smaller_or_equal(heap[j], heap[j - 1]):
                j += 1
            if smaller_or_equal(v, heap[j - 1]):
                break
            heap[i - 1] = heap[j - 1]
            i = j
        heap[i - 1] = v

    for i in range(len(heap) // 2, 0, -1):
        sift(i)
    noted: list[int] = []
    while len(heap) >= 2:
        a, last = heap[0], heap.pop()
        heap[0] = last
        sift(1)
        b = heap[0]
        above[a] = above[b] = len(weight)
        heap[0] = len(weight)
        weight.append(weight[a] + weight[b])
        depth.append(max(depth[a], depth[b]) + 1)
        sift(1)
        noted += [a, b]
    length, overflow, count = {heap[0]: 0}, 0, [0] * 17
    for node in reversed(noted):
        overflow += length[above[node]] == most
        length[node] = min(most, length[above[node]] + 1)
        count[length[node]] += node in symbols
    if overflow:
        while overflow > 0:
            short = max(bits for bits in range(1, most) if count[bits])
            count[short] -= 1
            count[short + 1] += 2
            count[most] -= 1
            overflow -= 2
        bits_in_order = [bits for bits in range(most, 0, -1) for _ in range(count[bits])]
        for node, bits in zip([node for node in noted if node in symbols], bits_in_order, strict=True):
            length[node] = bits
    return [length[symbol] if symbol in symbols else 0 for symbol in range(max(symbols) + 1)]


def codes(lengths: list[int]) -> list[tuple[int, int]]:
    """RFC 1951, 3.2.2: each symbol's code, as it is written, and its length."""
    found, code = [(0, 0)] * len(lengths), 0
    for bits in range(1, 16):
        for symbol, length in enumerate(lengths):
            if length == bits:
                require(code < 1 << bits, "too many codes")
                found[symbol] = (int(f"{code:0{bits}b}"[::-1], 2), bits)
                code += 1
        code <<= 1
    return found


def runs(lengths: list[int]) -> Iterator[tuple[int, int, int]]:
    """Run-length codes of code lengths: symbol, extra bits, and their number."""
    at, previous = 0, None
    while at < len(lengths):
        value, count = lengths[at], 1
        most = 138 if value == 0 else 6 if value == previous else 7
        while count < most and at + count < len(lengths) and lengths[at + count] == value:
            count += 1
        at += count
        if value and value != previous:
            yield value, 0, 0
            count -= 1
        if count < 3:
            yield from [(value, 0, 0)] * count
        elif value:
            yield 16, count - 3, 2
        elif count <= 10:
            yield 17, count - 3, 3
        else:
            yield 18, count - 11, 7
        previous = value


Put = Callable[[int, int], None]


def header(literals: list[int], distances: list[int], put: Put) -> None:
    """Writes the code lengths of a dynamic block (RFC 1951, 3.2.7)."""
    coded = [*runs(literals), *runs(distances)]
    counts = [sum(symbol == run[0] for run in coded) for symbol in range(19)]
    own = code_lengths(counts, 7)
    own += [0] * (19 - len(own))
    order = max([at for at in range(19) if own[ORDER[at]]] + [3]) + 1
    put(len(literals) - 257, 5)
    put(len(distances) - 1, 5)
    put(order - 4, 4)
    for symbol in ORDER[:order]:
        put(own[symbol], 3)
    written = codes(own)
    for symbol, extra, bits in coded:
        put(*written[symbol])
        put(extra, bits)


def read_header(bits: bytes, count: int) -> tuple[list[int], list[int]]:
    """Reads kept code lengths."""
    value, at = int.from_bytes(bits, "little"), 0

    def take(width: int) -> int:
        nonlocal at
        at += width
        return value >> at - width & (1 << width) - 1

    literals, distances, order = take(5) + 257, take(5) + 1, take(4) + 4
    own = [0] * 19
    for symbol in ORDER[:order]:
        own[symbol] = take(3)
    known = {code: symbol for symbol, code in enumerate(codes(own)) if code[1]}
    lengths: list[int] = []
    while len(lengths) < literals + distances:
        bits_of = next(n for n in range(1, 8) if (value >> at & (1 << n) - 1, n) in known)
        symbol = known[(take(bits_of), bits_of)]
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            lengths += [lengths[-1]] * (take(2) + 3)
        else:
            lengths += [0] * (take(3) + 3 if symbol == 17 else take(7) + 11)
    require(len(lengths) == literals + distances and at == count, "code lengths that do not fit")
    return lengths[:literals], lengths[literals:]


class Stream:
    """ "Making the stream"."""

    def __init__(self, plain: bytes, corrections: bytes) -> None:
        data = Input(corrections)
        require(data.number() == 1, "unknown version")
        self.plain, self.out = plain, Output()
        parameters = [data.number() for _ in range(8)]
        self.block_tokens, self.padding = data.number(), data.take(1)[0]
        self.flushes, position = [], 0
        for _ in range(data.number()):
            number = data.number()
            position += number // 2
            self.flushes.append((position, number % 2))
        self.blocks, self.gaps, self.tokens = data.part(), data.part(), data.part()
        self.distances = data
        self.predictor = Predictor(plain, parameters)
        self.block_gap, self.token_gap = self.blocks.gap(), self.gaps.gap()

    def make(self) -> bytes:
        while not self.block():
            pass
        require(self.predictor.p == len(self.plain) and not self.flushes, "plain bytes are left")
        require(not any(part.left() for part in (self.blocks, self.gaps, self.tokens, self.distances)), "more is left")
        self.out.pad(self.padding)
        return bytes(self.out.done)

    def block(self) -> bool:
        """Makes a block and returns whether it is the last."""
        predictor = self.predictor
        if self.flushes and self.flushes[0][0] <= predictor.p:
            if self.flushes.pop(0)[1]:
                predictor.floor, predictor.carried = max(1, predictor.p), None
            self.stored(False, 0, 0)
            return False
        predictor.end = self.flushes[0][0] if self.flushes else len(self.plain)
        if self.block_gap != 0:
            self.block_gap -= 1
            tokens = self.collect(None)
            last = predictor.p == len(self.plain) and not self.flushes and len(tokens) < self.block_tokens
            self.write(last, tokens, None, None)
            return last
        flags = self.blocks.take(1)[0]
        kind, last = flags & 3, bool(flags & 4)
        require(kind < 3 and (kind == 0 or flags < (16 if kind == 1 else 32)), "unknown block")
        if kind == 0:
            self.stored(last, flags >> 3, self.blocks.number())
            predictor.carried = None
        else:
            count = self.blocks.number() if flags & 8 else None
            bits = self.blocks.number() if flags & 16 else None
            kept = None if bits is None else (self.blocks.take(-(-bits // 8)), bits)
            self.write(last, self.collect(count), kind, kept)
        self.block_gap = self.blocks.gap()
        return last

    def stored(self, last: bool, padding: int, length: int) -> None:
        start = self.predictor.p
        require(length <= 65535 and start + length <= len(self.plain), "a stored block is too long")
        self.out.put(int(last), 3)
        self.out.pad(padding)
        self.out.put(length | (length ^ 0xFFFF) << 16, 32)
        self.out.done += self.plain[start : start + length]
        self.predictor.p += length

    def collect(self, count: int | None) -> list[tuple[int, int, int]]:
        """The tokens of a block, each with its position."""
        predictor, tokens = self.predictor, []
        while len(tokens) < count if count is not None else len(tokens) < self.block_tokens and predictor.p < predictor.end:
            require(predictor.p < len(self.plain), "the plain bytes end too early")
            token = predictor.predict()
            if self.token_gap == 0:
                token = self.corrected(token)
                self.token_gap = self.gaps.gap()
            else:
                self.token_gap -= 1
            tokens.append((predictor.p, *token))
            predictor.accept(token)
        return tokens

    def corrected(self, predicted: tuple[int, int]) -> tuple[int, int]:
        number = self.tokens.number()
        if number == 0:
            return LITERAL
        code, explicit = divmod(number - 1, 2)
        if predicted == LITERAL:
            length = code + 3
        else:
            length = predicted[0] + (-(code + 1) // 2 if code % 2 else code // 2)
        require(3 <= length <= 258, "an impossible length")
        number, p = self.distances.number(), self.predictor.p
        distance = number + 1 if explicit else self.predictor.distance(length, number)
        require(distance <= min(p, 32768) and p + length <= len(self.plain), "an impossible copy")
        require(self.predictor.common(p - distance, p, length) == length, "a copy of other bytes")
        return length, distance

    def write(self, last: bool, tokens: list[tuple[int, int, int]], kind: int | None, kept: tuple | None) -> None:
        parts = [self.symbols(*token) for token in tokens]
        counts = [0] * 286, [0] * 30
        counts[0][256] = 1
        for literal, distance in parts:
            counts[0][literal[0]] += 1
            if distance:
                counts[1][distance[0]] += 1
        built = tuple(code_lengths(count, 15) for count in counts)
        if kind is None:
            size = [0]
            header(*built, lambda _, bits: size.__setitem__(0, size[0] + bits))
            sizes = [sum(c * bits for count, bits_of in zip(counts, lengths) for c, bits in zip(count, bits_of)) for lengths in (FIXED, built)]
            extra = sum(part[2] for both in parts for part in both if part)
            fixed, dynamic = sizes[0] + extra, sizes[1] + extra + size[0]
            kind = 1 if -(-(3 + fixed) // 8) <= -(-(3 + dynamic) // 8) else 2
        self.out.put(int(last) | kind << 1, 3)
        lengths = FIXED if kind == 1 else built
        if kept:
            lengths = read_header(*kept)
            for at in range(kept[1]):
                self.out.put(kept[0][at // 8] >> at % 8 & 1, 1)
        elif kind == 2:
            header(*built, self.out.put)
        tables = tuple(codes(list(table)) for table in lengths)
        for both in parts:
            for part, table in zip(both, tables, strict=True):
                if part:
                    require(part[0] < len(table) and table[part[0]][1], "a symbol has no code")
                    self.out.put(*table[part[0]])
                    self.out.put(part[1], part[2])
        require(tables[0][256][1], "the end has no code")
        self.out.put(*tables[0][256])

    def symbols(self, at: int, length: int, distance: int) -> tuple:
        """The symbols of a token: each with its extra bits and their number."""
        if distance == 0:
            return (self.plain[at], 0, 0), None
        one = max(symbol for symbol in range(29) if LENGTH_BASE[symbol] <= length)
        two = max(symbol for symbol in range(30) if DISTANCE_BASE[symbol] <= distance)
        return (
            (257 + one, length - LENGTH_BASE[one], LENGTH_EXTRA[one]),
            (two, distance - DISTANCE_BASE[two], DISTANCE_EXTRA[two]),
        )


def main() -> None:
    plain, corrections = (Path(name).read_bytes() for name in sys.argv[1:3])
    sys.stdout.buffer.write(Stream(plain, corrections).make())


if __name__ == "__main__":
    main()
