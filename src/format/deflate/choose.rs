//! Chooses the parameters that predict a stream best, by trial.

use super::codes::LENGTH_MAX;
use super::corrections::Flush;
use super::parameters::{BLOCK_TOKENS_MIN, Method, Parameters};
use super::parse::{Kind, Parsed};
use super::predictor::Predictor;
use super::steps_max;

/// After this number of tokens the candidates are compared for the first time, then after four times as many.
const FIRST_ROUND: usize = 2048;
/// After this number of tokens the best one wins, unless it predicted all of them. Which one is best of those that fail
/// here and there makes little difference, and trying them to the end takes longer than all the rest.
const LAST_ROUND: usize = 4 * FIRST_ROUND;

/// Returns the best parameters for the stream.
pub(super) fn choose(parsed: &Parsed, flushes: &[Flush]) -> Parameters {
    let (memory_level, block_tokens) = memory_level(parsed);
    let level = memory_level.unwrap_or(8);
    let mut candidates = vec![Parameters::zlib(6, level)];
    candidates.extend(others(level));
    candidates.extend([1, 9, 2, 3, 4, 5, 7, 8].map(|zlib| Parameters::zlib(zlib, level)));
    let (mut best, misses) = tournament(parsed, flushes, &candidates);
    if misses > 0 && memory_level.is_none() {
        let variants: Vec<_> = [15, 16, 14].map(|hash_bits| Parameters { hash_bits, ..best }).into();
        best = tournament(parsed, flushes, &variants).0;
    }
    Parameters { block_tokens, ..best }
}

/// Settings that are none of zlib's levels.
fn others(memory_level: u32) -> Vec<Parameters> {
    let six = Parameters::zlib(6, memory_level);
    let nine = Parameters::zlib(9, memory_level);
    let thorough = Parameters { nice: LENGTH_MAX, lazy: 4, good: 4, ..nine };
    vec![
        // Excel since 2016.
        Parameters { nice: LENGTH_MAX, chain: 16, ..Parameters::zlib(1, memory_level) },
        // Word and PowerPoint since 2013.
        thorough,
        // libdeflate, 7-Zip and others: no match is too far.
        Parameters { too_far: 1 << 15, ..six },
        Parameters { too_far: 1 << 15, ..nine },
        // Z_FILTERED, Z_RLE and Z_HUFFMAN_ONLY.
        Parameters { length_min: 6, ..six },
        Parameters { method: Method::Runs, ..six },
        Parameters { method: Method::Literals, ..six },
    ]
}

/// zlib's memory level as the blocks betray it, and the number of tokens after which blocks end.
fn memory_level(parsed: &Parsed) -> (Option<u32>, usize) {
    let most = parsed.blocks.iter().map(|block| block.tokens).max().unwrap_or(0);
    let inner = parsed.blocks.iter().rev().skip(1).map(|block| block.tokens);
    let level = (1..10).find(|level| most == (1 << (level + 6)) - 1 && inner.clone().any(|tokens| tokens == most));
    let block_tokens = if level.is_some() { most } else { most + 1 };
    (level, block_tokens.max(if level.is_some() { BLOCK_TOKENS_MIN } else { (1 << 14) - 1 }))
}

/// Lets candidates predict more and more of the stream, leaves out those that are clearly worse, and returns the best
/// with its number of misses. One that predicts all of a short stream wins at once.
fn tournament(parsed: &Parsed, flushes: &[Flush], candidates: &[Parameters]) -> (Parameters, usize) {
    let (mut trials, mut least) = (Vec::new(), usize::MAX);
    for &parameters in candidates {
        let mut trial = Trial::new(parsed, flushes, parameters);
        trial.advance(FIRST_ROUND, bound(least));
        if trial.misses == 0 && trial.done == parsed.tokens.len() {
            return (parameters, 0);
        }
        least = least.min(trial.misses);
        if trial.misses <= bound(least) {
            trials.push(trial);
        }
    }
    let mut round = FIRST_ROUND;
    loop {
        trials.retain(|trial| trial.misses <= bound(least));
        let is_decided = least > 0 && (round >= LAST_ROUND || trials.iter().all(|trial| trial.misses == least));
        if trials.len() == 1 || is_decided || round >= parsed.tokens.len() {
            break;
        }
        round *= 4;
        least = usize::MAX;
        for trial in &mut trials {
            trial.advance(round, bound(least));
            least = least.min(trial.misses);
        }
    }
    let best = trials.iter().min_by_key(|trial| trial.misses).expect("the best one is left");
    (best.parameters, best.misses)
}

/// How many misses leave a candidate in the race.
fn bound(least: usize) -> usize {
    least.saturating_add(least / 8 + 2)
}

struct Trial<'a> {
    parsed: &'a Parsed,
    flushes: &'a [Flush],
    parameters: Parameters,
    predictor: Predictor<'a>,
    /// The block that goes on, the tokens of it and of all that are done.
    block: usize,
    done_in_block: usize,
    done: usize,
    flushes_done: usize,
    misses: usize,
}

impl<'a> Trial<'a> {
    fn new(parsed: &'a Parsed, flushes: &'a [Flush], parameters: Parameters) -> Self {
        let predictor = Predictor::new(&parsed.plain, parameters);
        let mut trial = Self {
            parsed,
            flushes,
            parameters,
            predictor,
            block: 0,
            done_in_block: 0,
            done: 0,
            flushes_done: 0,
            misses: 0,
        };
        trial.see();
        trial
    }

    /// Predicts up to the given token, or until there are more misses than `misses_max`.
    fn advance(&mut self, token: usize, misses_max: usize) {
        while let Some(block) = self.parsed.blocks.get(self.block) {
            let end = token.min(self.done + block.tokens - self.done_in_block);
            for &token in &self.parsed.tokens[self.done..end] {
                if self.predictor.predict() != token {
                    self.misses += 1;
                }
                self.predictor.accept(token);
                if self.misses > misses_max {
                    return;
                }
            }
            self.done_in_block += end - self.done;
            self.done = end;
            if self.predictor.steps() > steps_max(self.parsed.plain.len()) {
                self.misses = usize::MAX;
            }
            if self.done_in_block < block.tokens || self.misses > misses_max {
                return;
            }
            self.close();
        }
    }

    fn close(&mut self) {
        let block = &self.parsed.blocks[self.block];
        if block.is_flush {
            if self.flushes[self.flushes_done].full {
                self.predictor.forget();
            }
            self.flushes_done += 1;
        } else if let Kind::Stored { .. } = block.kind {
            self.predictor.skip(block.plain_len);
        }
        self.block += 1;
        self.done_in_block = 0;
        self.see();
    }

    fn see(&mut self) {
        let end = self.flushes.get(self.flushes_done).map_or(self.parsed.plain.len(), |flush| flush.position);
        self.predictor.set_end(end);
    }
}
