//! Huffman codes as zlib builds them from frequencies (its `trees.c`), and the header that tells them.

use super::bits::BitWriter;
use super::codes::{DISTANCE_CODES, END_OF_BLOCK, Frequencies, LENGTH_CODE_ORDER, LITERAL_CODES};
use super::codes::{DISTANCES, LENGTHS};

/// Code lengths for a block, and what the block takes with them.
pub(super) struct Trees {
    pub(super) literals: [u8; LITERAL_CODES],
    pub(super) distances: [u8; DISTANCE_CODES],
    runs: Vec<Run>,
    own: [u8; 19],
    literal_count: usize,
    distance_count: usize,
    order_count: usize,
    /// Bits of a dynamic block without the 3 bits of its type.
    pub(super) bits: u64,
}

/// One symbol of the run-length coded code lengths (RFC 1951, 3.2.7).
#[derive(Clone, Copy)]
struct Run {
    symbol: u8,
    extra: u8,
}

impl Run {
    fn extra_bits(self) -> u32 {
        match self.symbol {
            16 => 2,
            17 => 3,
            18 => 7,
            _ => 0,
        }
    }
}

impl Trees {
    pub(super) fn new(frequencies: &Frequencies) -> Self {
        let (mut literals, mut distances, mut own) = ([0; LITERAL_CODES], [0; DISTANCE_CODES], [0; 19]);
        let literal_last = build(&frequencies.literals, 15, &mut literals);
        let distance_last = build(&frequencies.distances, 15, &mut distances);
        let mut runs = Vec::with_capacity(128);
        runs_of(&literals[..=literal_last], &mut runs);
        runs_of(&distances[..=distance_last], &mut runs);
        let mut counts = [0; 19];
        let mut bits = 14;
        for run in &runs {
            counts[usize::from(run.symbol)] += 1;
            bits += u64::from(run.extra_bits());
        }
        build(&counts, 7, &mut own);
        let used = |&at: &usize| own[usize::from(LENGTH_CODE_ORDER[at])] != 0;
        let order_count = (3..19).rev().find(used).unwrap_or(3) + 1;
        bits += 3 * order_count as u64;
        bits += weigh(&counts, &own, |_| 0);
        bits += content_bits(frequencies, &literals, &distances);
        let (literal_count, distance_count) = (literal_last + 1, distance_last + 1);
        Self { literals, distances, runs, own, literal_count, distance_count, order_count, bits }
    }

    /// Writes what a dynamic block has before its tokens, without the 3 bits of its type.
    pub(super) fn write_header(&self, writer: &mut BitWriter) {
        writer.put(self.literal_count as u64 - 257, 5);
        writer.put(self.distance_count as u64 - 1, 5);
        writer.put(self.order_count as u64 - 4, 4);
        for &symbol in &LENGTH_CODE_ORDER[..self.order_count] {
            writer.put(u64::from(self.own[usize::from(symbol)]), 3);
        }
        let mut codes = [0; 19];
        super::codes::canonical_codes(&self.own, &mut codes).expect("built lengths fit");
        for run in &self.runs {
            let symbol = usize::from(run.symbol);
            writer.put(u64::from(codes[symbol]), u32::from(self.own[symbol]));
            writer.put(u64::from(run.extra), run.extra_bits());
        }
    }
}

/// The bits of a block's tokens and of its end with these code lengths.
pub(super) fn content_bits(frequencies: &Frequencies, literals: &[u8], distances: &[u8]) -> u64 {
    let length_extra = |symbol: usize| if symbol > END_OF_BLOCK { LENGTHS[symbol - 257].extra } else { 0 };
    weigh(&frequencies.literals, literals, length_extra)
        + weigh(&frequencies.distances, distances, |symbol| DISTANCES[symbol].extra)
}

fn weigh(frequencies: &[u32], lengths: &[u8], extra: impl Fn(usize) -> u8) -> u64 {
    let each = frequencies.iter().zip(lengths).enumerate();
    each.map(|(symbol, (&count, &length))| u64::from(count) * u64::from(length + extra(symbol))).sum()
}

/// Groups code lengths into runs as zlib's `scan_tree` does. Literals and distances are grouped apart.
fn runs_of(lengths: &[u8], runs: &mut Vec<Run>) {
    let mut previous = None;
    let mut at = 0;
    while at < lengths.len() {
        let length = lengths[at];
        let most = if length == 0 {
            138
        } else if previous == Some(length) {
            6
        } else {
            7
        };
        let count = lengths[at..].iter().take(most).take_while(|&&next| next == length).count();
        at += count;
        let times = |symbol, count| Run { symbol, extra: count as u8 };
        if length == 0 {
            match count {
                1 | 2 => runs.extend((0..count).map(|_| times(0, 0))),
                3..=10 => runs.push(times(17, count - 3)),
                _ => runs.push(times(18, count - 11)),
            }
        } else {
            let mut rest = count;
            if previous != Some(length) {
                runs.push(times(length, 0));
                rest -= 1;
            }
            match rest {
                0..=2 => runs.extend((0..rest).map(|_| times(length, 0))),
                _ => runs.push(times(16, rest - 3)),
            }
        }
        previous = Some(length);
    }
}

/// Moves the node at `at` down until both nodes below it are larger. `heap[0]` is the root.
fn sift(heap: &mut [u16], mut at: usize, weights: &[u32], depths: &[u8]) {
    let key = |node: u16| (weights[usize::from(node)], depths[usize::from(node)]);
    let moving = heap[at];
    let moving_key = key(moving);
    loop {
        let mut below = 2 * at + 1;
        if below >= heap.len() {
            break;
        }
        if below + 1 < heap.len() && key(heap[below + 1]) <= key(heap[below]) {
            below += 1;
        }
        if moving_key <= key(heap[below]) {
            break;
        }
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = moving;
}

/// Finds code lengths for symbols of the given frequencies as zlib's `build_tree` does, and returns the largest symbol
/// that has one. At least two symbols get one.
fn build(frequencies: &[u32], length_max: usize, lengths: &mut [u8]) -> usize {
    const NODES: usize = 2 * LITERAL_CODES + 1;
    let symbols = frequencies.len();
    let (mut weights, mut depths, mut parents) = ([0u32; NODES], [0u8; NODES], [0u16; NODES]);
    weights[..symbols].copy_from_slice(frequencies);
    let mut heap: Vec<u16> = (0..symbols as u16).filter(|&symbol| frequencies[usize::from(symbol)] != 0).collect();
    let mut last = heap.last().copied();
    while heap.len() < 2 {
        // zlib's rule: the next symbol if that is at most 2, else symbol 0.
        let symbol = last.map_or(0, |last| if last < 2 { last + 1 } else { 0 });
        last = last.max(Some(symbol));
        weights[usize::from(symbol)] = 1;
        heap.push(symbol);
    }
    for at in (0..heap.len() / 2).rev() {
        sift(&mut heap, at, &weights, &depths);
    }
    // Nodes in the order in which they leave the heap: the least frequent first.
    let mut order = Vec::with_capacity(NODES);
    let mut node = symbols;
    loop {
        let least = heap[0];
        heap[0] = heap.pop().expect("two nodes are left");
        sift(&mut heap, 0, &weights, &depths);
        let second = heap[0];
        order.extend([least, second]);
        let (a, b) = (usize::from(least), usize::from(second));
        weights[node] = weights[a] + weights[b];
        depths[node] = depths[a].max(depths[b]) + 1;
        parents[a] = node as u16;
        parents[b] = node as u16;
        heap[0] = node as u16;
        node += 1;
        if heap.len() < 2 {
            break;
        }
        sift(&mut heap, 0, &weights, &depths);
    }
    order.push(heap[0]);
    assign(&order, &parents, symbols, length_max, lengths);
    last.map_or(0, usize::from)
}

/// Turns the tree into code lengths of at most `length_max` as zlib's `gen_bitlen` does.
fn assign(order: &[u16], parents: &[u16], symbols: usize, length_max: usize, lengths: &mut [u8]) {
    let mut depths = [0u8; 2 * LITERAL_CODES + 1];
    let mut counts = [0i32; 16];
    let mut overflow = 0i32;
    for &node in order.iter().rev().skip(1) {
        let node = usize::from(node);
        let mut depth = usize::from(depths[usize::from(parents[node])]) + 1;
        if depth > length_max {
            depth = length_max;
            overflow += 1;
        }
        depths[node] = depth as u8;
        if node < symbols {
            lengths[node] = depth as u8;
            counts[depth] += 1;
        }
    }
    if overflow == 0 {
        return;
    }
    while overflow > 0 {
        let bits = (1..length_max).rev().find(|&bits| counts[bits] != 0).expect("codes overflow, so some are shorter");
        counts[bits] -= 1;
        counts[bits + 1] += 2;
        counts[length_max] -= 1;
        overflow -= 2;
    }
    let mut leaves = order.iter().map(|&node| usize::from(node)).filter(|&node| node < symbols);
    for length in (1..=length_max).rev() {
        for _ in 0..counts[length] {
            lengths[leaves.next().expect("as many leaves as lengths")] = length as u8;
        }
    }
}
