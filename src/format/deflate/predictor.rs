//! Predicts the next token as zlib would choose it, and follows the tokens that were chosen in truth.

use super::codes::{LENGTH_MAX, LENGTH_MIN, Token};
use super::matcher::{Bounds, Chains, Match, common};
use super::parameters::{Method, Parameters};

pub(super) struct Predictor<'a> {
    plain: &'a [u8],
    parameters: Parameters,
    chains: Chains,
    /// Where the next token begins.
    position: usize,
    /// Positions below it were entered into the chains, or left out for good.
    entered: usize,
    /// The match at `position`, if it was found when the token before was predicted.
    carried: Option<Match>,
    /// The match behind `position`, if it made the prediction a literal.
    following: Option<Match>,
    /// The maker saw no bytes from here on: the end of the plain bytes, or a flush.
    end: usize,
}

const NO_MATCH: Match = Match { length: LENGTH_MIN - 1, distance: 0 };

impl<'a> Predictor<'a> {
    pub(super) fn new(plain: &'a [u8], parameters: Parameters) -> Self {
        let chains = Chains::new(parameters.hash_bits);
        let end = plain.len();
        Self { plain, parameters, chains, position: 0, entered: 0, carried: None, following: None, end }
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    /// Candidates that were looked at so far.
    pub(super) fn steps(&self) -> u64 {
        self.chains.steps
    }

    /// Says how far the maker saw when it chose the tokens that follow.
    pub(super) fn set_end(&mut self, end: usize) {
        self.end = end;
    }

    /// Forgets all bytes before the position.
    pub(super) fn forget(&mut self) {
        self.chains.forget(self.position);
        self.carried = None;
        self.entered = self.entered.max(self.position);
    }

    /// Predicts the token at the position, which is before the end.
    #[inline]
    pub(super) fn predict(&mut self) -> Token {
        match self.parameters.method {
            Method::Lazy => self.predict_lazy(),
            Method::Greedy => token(self.search(self.position, LENGTH_MIN - 1)),
            Method::Runs => self.predict_run(),
            Method::Literals => Token::LITERAL,
        }
    }

    #[inline]
    fn predict_lazy(&mut self) -> Token {
        self.following = None;
        let here = match self.carried.take() {
            Some(found) => found,
            None => self.search(self.position, LENGTH_MIN - 1),
        };
        if here.length >= LENGTH_MIN && here.length < self.parameters.lazy {
            let next = self.search(self.position + 1, here.length);
            if next.length > here.length {
                self.following = Some(next);
                return Token::LITERAL;
            }
        }
        token(here)
    }

    fn predict_run(&self) -> Token {
        let at = self.position;
        let Some(&byte) = at.checked_sub(1).and_then(|before| self.plain.get(before)) else { return Token::LITERAL };
        let length = self.plain[at..self.end.max(at)].iter().take(LENGTH_MAX).take_while(|&&next| next == byte).count();
        token(Match { length, distance: 1 })
    }

    /// Searches a match longer than `best` at `at`.
    #[inline]
    fn search(&mut self, at: usize, best: usize) -> Match {
        if at + LENGTH_MIN > self.end {
            return NO_MATCH;
        }
        self.enter_to(at + 1);
        let Parameters { method, good, nice, chain, too_far, length_min, .. } = self.parameters;
        let chain = if best >= good { (chain / 4).max(1) } else { chain };
        let found = self.chains.longest(self.plain, at, self.end, best, Bounds { nice, chain });
        let far = found.length == LENGTH_MIN && found.distance > too_far;
        if method == Method::Lazy && (far || found.length < length_min) { NO_MATCH } else { found }
    }

    /// Enters all positions below `to` that were not entered yet.
    #[inline]
    fn enter_to(&mut self, to: usize) {
        let to = to.min((self.plain.len() + 1).saturating_sub(LENGTH_MIN));
        if self.entered < to {
            self.chains.enter(self.plain, self.entered..to);
            self.entered = to;
        }
    }

    /// Goes on behind `token`, the one that was chosen at the position.
    #[inline]
    pub(super) fn accept(&mut self, token: Token) {
        let begin = self.position;
        self.position += token.length();
        match self.parameters.method {
            Method::Lazy => self.carried = if token.is_literal() { self.following.take() } else { None },
            Method::Greedy if token.length() > self.parameters.lazy.max(1) => {
                self.enter_to(begin + 1);
                self.entered = self.position;
            }
            _ => {}
        }
    }

    /// Goes on behind `length` bytes of a stored block.
    pub(super) fn skip(&mut self, length: usize) {
        self.carried = None;
        self.position += length;
    }

    /// Finds the distance of a match of `length` bytes at the position: `hops` candidates match as well and are nearer.
    pub(super) fn distance_by_hops(&mut self, length: usize, hops: usize) -> Option<usize> {
        self.matching(length).nth(hops)
    }

    /// The reverse of [`Predictor::distance_by_hops`].
    pub(super) fn hops_by_distance(&mut self, length: usize, distance: usize) -> Option<usize> {
        let mut nearer = self.matching(length).take_while(|&found| found <= distance);
        let mut hops = 0;
        nearer.by_ref().find(|&found| {
            hops += 1;
            found == distance
        })?;
        Some(hops - 1)
    }

    /// Distances of the candidates that match in `length` bytes at the position, the nearest first.
    fn matching(&mut self, length: usize) -> impl Iterator<Item = usize> {
        let at = self.position;
        let searches =
            matches!(self.parameters.method, Method::Greedy | Method::Lazy) && at + LENGTH_MIN <= self.plain.len();
        if searches {
            self.enter_to(at + 1);
        }
        let plain = self.plain;
        let here = plain.get(at..at + length).unwrap_or_default();
        let chains = searches.then_some(&mut self.chains);
        let candidates = chains.into_iter().flat_map(move |chains| chains.candidates(at));
        candidates
            .filter(move |&candidate| common(&plain[candidate..candidate + here.len()], here) == here.len())
            .map(move |candidate| at - candidate)
    }
}

#[inline]
fn token(found: Match) -> Token {
    if found.length < LENGTH_MIN { Token::LITERAL } else { Token::copy(found.length, found.distance) }
}
