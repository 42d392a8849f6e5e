//! AES-256-SIV with CMAC (RFC 5297), made of the CMAC and the counter mode of aws-lc. Blocks are opened about 1.5 times
//! as fast as by the crate `aes-siv`, which computes the same (docs/performance.md, "The cipher").

use super::TAG_LEN;
use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::cmac;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroize;

/// Length in bytes of a block of AES.
const BLOCK_LEN: usize = 16;

type Tag = [u8; TAG_LEN];

/// A key, expanded. Both halves are overwritten when it is dropped.
pub(super) struct Siv {
    mac: cmac::Key,
    /// In counter mode, decrypting and encrypting are the same.
    counter: DecryptingKey,
}

impl Siv {
    /// Expands a key: its first half is for the MAC, the second half for the encryption.
    pub fn new(key: &[u8; 64]) -> Self {
        let (mac, counter) = key.split_at(32);
        Self { mac: cmac::Key::new(cmac::AES_256, mac).expect("AES-256 takes 32 bytes"), counter: counter_key(counter) }
    }

    /// Encrypts `text` in place and returns its tag. `associated` is authenticated with it.
    pub fn encrypt(&self, associated: &[&[u8]], text: &mut [u8]) -> Tag {
        let tag = self.tag(associated, text);
        count(&self.counter, tag, text);
        tag
    }

    /// Decrypts `text` in place. Returns false, and overwrites `text` with zeros, if it is not authentic.
    #[must_use]
    pub fn decrypt(&self, associated: &[&[u8]], tag: Tag, text: &mut [u8]) -> bool {
        count(&self.counter, tag, text);
        let is_authentic = verify_slices_are_equal(&self.tag(associated, text), &tag).is_ok();
        if !is_authentic {
            text.zeroize();
        }
        is_authentic
    }

    /// Returns S2V of the associated strings and the text (RFC 5297, 2.4).
    fn tag(&self, associated: &[&[u8]], text: &[u8]) -> Tag {
        let start = self.cmac(&[&[0; BLOCK_LEN]]);
        let sum = associated.iter().fold(start, |sum, string| double(sum) ^ self.cmac(&[string]));
        let tag = match text.split_last_chunk() {
            Some((body, end)) => self.cmac(&[body, &(u128::from_be_bytes(*end) ^ sum).to_be_bytes()]),
            None => self.cmac(&[&(double(sum) ^ padded(text)).to_be_bytes()]),
        };
        tag.to_be_bytes()
    }

    /// Returns the CMAC of the pieces, joined (NIST SP 800-38B).
    fn cmac(&self, pieces: &[&[u8]]) -> u128 {
        const MEMORY: &str = "aws-lc fails here only without memory";
        let mut context = cmac::Context::with_key(&self.mac);
        for piece in pieces {
            context.update(piece).expect(MEMORY);
        }
        let tag = context.sign().expect(MEMORY);
        u128::from_be_bytes(tag.as_ref().try_into().expect("the CMAC of AES has 16 bytes"))
    }
}

/// Expands the second half of a key.
pub(super) fn counter_key(key: &[u8]) -> DecryptingKey {
    UnboundCipherKey::new(&AES_256, key).and_then(DecryptingKey::ctr).expect("AES-256 takes 32 bytes")
}

/// Encrypts or decrypts `text` in counter mode. The counter starts with the tag, two bits of which are cleared (RFC
/// 5297, 2.5).
pub(super) fn count(key: &DecryptingKey, mut tag: Tag, text: &mut [u8]) {
    tag[8] &= 0x7f;
    tag[12] &= 0x7f;
    key.decrypt(text, DecryptionContext::Iv128(tag.into())).expect("counter mode takes texts of any length");
}

/// Multiplies by x in GF(2^128), in constant time (RFC 5297, 2.3).
fn double(block: u128) -> u128 {
    (block << 1) ^ ((block >> 127) * 0x87)
}

/// Fills a block that is not whole: one bit, then zeros (RFC 5297, 2.1).
fn padded(text: &[u8]) -> u128 {
    let mut block = [0; BLOCK_LEN];
    block[..text.len()].copy_from_slice(text);
    block[text.len()] = 0x80;
    u128::from_be_bytes(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_siv::KeyInit;
    use aes_siv::siv::Aes256Siv;
    use proptest::prelude::*;
    use std::time::Instant;

    fn agrees(key: &[u8; 64], associated: &[Vec<u8>], text: &[u8]) {
        let associated: Vec<&[u8]> = associated.iter().map(Vec::as_slice).collect();
        let mut sealed = text.to_vec();
        let tag = Siv::new(key).encrypt(&associated, &mut sealed);
        let reference = Aes256Siv::new(&(*key).into()).encrypt(&associated, text).expect("few strings");
        assert_eq!([&tag[..], &sealed].concat(), reference, "{} bytes", text.len());
        let mut damaged = sealed.clone();
        assert!(Siv::new(key).decrypt(&associated, tag, &mut sealed), "{} bytes", text.len());
        assert_eq!(sealed, text);
        let mut wrong = tag;
        wrong[text.len() % TAG_LEN] ^= 1;
        assert!(!Siv::new(key).decrypt(&associated, wrong, &mut damaged));
        assert!(damaged.iter().all(|&byte| byte == 0), "what is not authentic is not revealed");
    }

    #[test]
    fn texts_of_all_lengths_around_blocks_are_sealed_as_the_reference_seals_them() {
        let text: Vec<u8> = (0..70_001_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        for len in (0..=80).chain([4_095, 4_096, 4_097, 65_536, 70_001]) {
            agrees(&std::array::from_fn(|at| at as u8), &[b"a purpose".to_vec(), Vec::new()], &text[..len]);
        }
    }

    /// Prints how fast texts are opened, beside the crate, in turns. `cargo test --release --lib -- --ignored
    /// --nocapture how_fast`
    #[test]
    #[ignore = "a measurement"]
    fn how_fast_texts_are_opened_beside_the_reference() {
        let key = [7; 64];
        let associated = [&b"strongroom format 1: data block"[..], b""];
        for len in [64, 1 << 10, 4 << 10, 128 << 10, 1 << 20] {
            let mut sealed = vec![5; len];
            let tag = Siv::new(&key).encrypt(&associated, &mut sealed);
            let mut best = [f64::MAX; 2];
            for _ in 0..20 {
                let mut taken = [0.0; 2];
                for _ in 0..(4 << 20) / len {
                    let mut texts = [sealed.clone(), sealed.clone()];
                    let start = Instant::now();
                    assert!(Siv::new(&key).decrypt(&associated, tag, &mut texts[0]));
                    taken[0] += start.elapsed().as_secs_f64();
                    let start = Instant::now();
                    let reference = &mut Aes256Siv::new(&key.into());
                    reference
                        .decrypt_inout_detached(associated, (&mut texts[1][..]).into(), &tag.into())
                        .expect("authentic");
                    taken[1] += start.elapsed().as_secs_f64();
                    assert!(texts[0] == texts[1]);
                }
                best = [best[0].min(taken[0]), best[1].min(taken[1])];
            }
            let speed = |time: f64| ((4 << 20) / len * len) as f64 / time / 1e6;
            let [own, reference] = best;
            println!(
                "{len:>8} bytes: {:>5.0} MB/s, reference {:>5.0}, {:.2} times",
                speed(own),
                speed(reference),
                reference / own
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_sealed_as_the_reference_seals_it(
            key: [[u8; 32]; 2],
            associated in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
            text in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let key = [key[0], key[1]].concat().try_into().expect("64 bytes");
            agrees(&key, &associated, &text);
        }
    }
}
