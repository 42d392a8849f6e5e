//! A small random number generator whose numbers never change: xoshiro256** seeded by splitmix64.
//!
//! Published crates may change their algorithms between versions, which would change every corpus; this one never
//! changes. Do not use it for secrets.

/// A generator whose numbers depend only on its seed.
#[derive(Clone, Debug)]
pub struct Rng([u64; 4]);

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
const ALPHANUMERIC: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl Rng {
    /// Returns the generator for `seed`.
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }))
    }

    /// Returns a generator for one purpose. It does not depend on how many numbers other generators have produced.
    pub fn for_purpose(seed: u64, purpose: &str) -> Self {
        let hash = purpose.bytes().fold(FNV_OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
        Self::new(seed.rotate_left(32) ^ hash)
    }

    /// Returns the next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Returns a number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "there is no number below zero");
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Returns a number from `low` to `high`, inclusive.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Returns an index below `len`, which must not be zero.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// Returns true with a probability of `percent` percent.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Returns one of `choices`, which must not be empty.
    pub fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// Returns the number of heads before the first tails in coin tosses, at most `max`: usually small, sometimes
    /// large.
    pub fn geometric(&mut self, max: u32) -> u32 {
        self.next_u64().trailing_ones().min(max)
    }

    /// Returns `len` random bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Returns `len` random letters and digits.
    pub fn token(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(*self.pick(ALPHANUMERIC))).collect()
    }

    /// Returns `len` random upper-case hexadecimal digits.
    pub fn hex(&mut self, len: usize) -> String {
        (0..len).map(|_| char::from(*self.pick(b"0123456789ABCDEF"))).collect()
    }

    /// Returns a random UUID in lower case.
    pub fn uuid(&mut self) -> String {
        let hex = self.hex(32).to_ascii_lowercase();
        format!("{}-{}-4{}-9{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_pinned() {
        // Changing these numbers changes every corpus, and with it the meaning of earlier measurements.
        let mut rng = Rng::new(1);
        assert_eq!(rng.next_u64(), 0xb3f2_af6d_0fc7_10c5);
        assert_ne!(Rng::for_purpose(1, "a").next_u64(), Rng::for_purpose(1, "b").next_u64());
    }

    #[test]
    fn ranges_hold_their_bounds() {
        let mut rng = Rng::new(7);
        for _ in 0..10_000 {
            assert!(rng.below(3) < 3);
            assert!((5..=9).contains(&rng.between(5, 9)));
            assert!(rng.geometric(4) <= 4);
        }
        assert_eq!(rng.bytes(13).len(), 13);
        assert_eq!(rng.uuid().len(), 36);
    }
}
