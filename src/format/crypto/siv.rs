//! AES-SIV with CMAC (RFC 5297), of one text or of many texts at once. [`super::cmac`] computes the MAC, aws-lc the
//! counter mode. docs/performance.md, "The cipher", says how fast this is beside the crate `aes-siv`, which computes
//! the same.

use super::cmac::{BLOCK_LEN, Chain, Cmac, double};
use super::{Message, NotAuthentic, TAG_LEN};
use aes::Aes256Enc;
use aes::cipher::consts::U16;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::{Zeroize, ZeroizeOnDrop};

type Tag = [u8; TAG_LEN];

/// A key, expanded. Both halves are overwritten when it is dropped.
#[derive(ZeroizeOnDrop)]
pub(super) struct Siv<C: ZeroizeOnDrop = Aes256Enc> {
    mac: Cmac<C>,
    /// In counter mode, decrypting and encrypting are the same. aws-lc overwrites this key itself.
    #[zeroize(skip)]
    counter: DecryptingKey,
    /// The sum of S2V (RFC 5297, 2.4) after the context.
    start: u128,
    /// The CMAC of the empty string. Most texts are bound to nothing else.
    empty: u128,
}

impl Siv {
    /// Expands a key: its first half is for the MAC, the second half for the encryption. `context` is authenticated
    /// with every text, before everything else.
    pub fn new(key: &[u8; 64], context: &[u8]) -> Self {
        const LEN: &str = "AES-256 takes 32 bytes";
        let (mac, counter) = key.split_at(32);
        let counter = UnboundCipherKey::new(&AES_256, counter).and_then(DecryptingKey::ctr);
        Self::with(Aes256Enc::new_from_slice(mac).expect(LEN), counter.expect(LEN), context)
    }
}

impl<C: BlockCipherEncrypt<BlockSize = U16> + ZeroizeOnDrop> Siv<C> {
    fn with(mac: C, counter: DecryptingKey, context: &[u8]) -> Self {
        let mac = Cmac::new(mac);
        let [zero, empty, context] = [&[0; BLOCK_LEN][..], &[], context].map(|string| mac.mac(&mac.chain(string, 0)));
        Self { mac, counter, start: double(zero) ^ context, empty }
    }

    /// Encrypts a text in place and writes its tag in front of it. `bound` is authenticated with it.
    ///
    /// # Panics
    /// If `buffer` is shorter than a tag.
    pub fn encrypt(&self, bound: &[&[u8]], buffer: &mut [u8]) {
        let (place, text) = buffer.split_first_chunk_mut().expect("the caller leaves room for the tag");
        *place = self.tag(bound, text);
        self.count(*place, text);
    }

    /// Decrypts a text in place. If it is not authentic, overwrites it with zeros.
    pub fn decrypt(&self, bound: &[&[u8]], buffer: &mut [u8]) -> Result<(), NotAuthentic> {
        let (tag, text) = buffer.split_first_chunk_mut().ok_or(NotAuthentic)?;
        self.count(*tag, text);
        compare(self.tag(bound, text), *tag, text)
    }

    /// Encrypts texts in place and writes their tags.
    ///
    /// # Panics
    /// If a buffer is shorter than a tag.
    pub fn encrypt_many(&self, messages: &mut [Message<'_>]) {
        let tags = self.tags(messages);
        for (message, tag) in messages.iter_mut().zip(tags) {
            let (place, text) = message.buffer.split_first_chunk_mut().expect("the caller leaves room for the tag");
            *place = tag;
            self.count(tag, text);
        }
    }

    /// Decrypts texts in place. Overwrites those that are not authentic with zeros.
    pub fn decrypt_many(&self, messages: &mut [Message<'_>]) -> Vec<Result<(), NotAuthentic>> {
        for message in &mut *messages {
            if let Some((tag, text)) = message.buffer.split_first_chunk_mut() {
                self.count(*tag, text);
            }
        }
        let tags = self.tags(messages);
        let compared = messages.iter_mut().zip(tags).map(|(message, found)| {
            let (tag, text) = message.buffer.split_first_chunk_mut().ok_or(NotAuthentic)?;
            compare(found, *tag, text)
        });
        compared.collect()
    }

    /// Encrypts or decrypts a text in counter mode. The counter starts with the tag, two bits of which are cleared (RFC
    /// 5297, 2.5).
    pub fn count(&self, mut tag: Tag, text: &mut [u8]) {
        tag[8] &= 0x7f;
        tag[12] &= 0x7f;
        let counted = self.counter.decrypt(text, DecryptionContext::Iv128(tag.into()));
        counted.expect("counter mode takes texts of any length");
    }

    /// Returns S2V of the context, the strings `bound` and the text (RFC 5297, 2.4).
    fn tag(&self, bound: &[&[u8]], text: &[u8]) -> Tag {
        let sum = bound.iter().fold(self.start, |sum, string| {
            let mac = if string.is_empty() { self.empty } else { self.mac.mac(&self.mac.chain(string, 0)) };
            double(sum) ^ mac
        });
        self.mac.mac(&self.last_chain(text, sum)).to_be_bytes()
    }

    /// Returns S2V of each message.
    fn tags(&self, messages: &[Message<'_>]) -> Vec<Tag> {
        let text = |message: &'_ Message<'_>| message.buffer.len().min(TAG_LEN);
        if let [message] = messages {
            return vec![self.tag(&[message.bound], &message.buffer[text(message)..])];
        }
        let bound = if messages.iter().all(|message| message.bound.is_empty()) {
            vec![self.empty; messages.len()]
        } else {
            let chains: Vec<_> = messages.iter().map(|message| self.mac.chain(message.bound, 0)).collect();
            self.mac.macs(&chains)
        };
        let sums = bound.into_iter().map(|bound| double(self.start) ^ bound);
        let texts = messages.iter().map(|message| &message.buffer[text(message)..]);
        let chains: Vec<_> = texts.zip(sums).map(|(text, sum)| self.last_chain(text, sum)).collect();
        self.mac.macs(&chains).into_iter().map(u128::to_be_bytes).collect()
    }

    /// Prepares the text, which is the last string of S2V. `sum` is that of the strings before.
    fn last_chain<'t>(&self, text: &'t [u8], sum: u128) -> Chain<'t> {
        match text.len() {
            0..BLOCK_LEN => self.mac.chain_of_block(double(sum) ^ padded(text)),
            _ => self.mac.chain(text, sum),
        }
    }
}

/// Compares two tags in constant time. If they differ, overwrites `text` with zeros.
fn compare(found: Tag, wanted: Tag, text: &mut [u8]) -> Result<(), NotAuthentic> {
    verify_slices_are_equal(&found, &wanted).map_err(|_| {
        text.zeroize();
        NotAuthentic
    })
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
    use aes::Aes128Enc;
    use aes_siv::siv::Aes256Siv;
    use aws_lc_rs::cipher::AES_128;
    use proptest::prelude::*;
    use rustix::time::{ClockId, clock_gettime};

    const KEY: [u8; 64] = {
        let mut key = [0; 64];
        let mut at = 0;
        while at < key.len() {
            key[at] = at as u8;
            at += 1;
        }
        key
    };

    fn noise(len: usize) -> Vec<u8> {
        (0..len as u32).map(|n| (n.wrapping_mul(n).wrapping_add(len as u32) >> 7) as u8).collect()
    }

    /// Seals with the crate `aes-siv`.
    fn reference(key: &[u8; 64], associated: &[&[u8]], text: &[u8]) -> Vec<u8> {
        Aes256Siv::new(&(*key).into()).encrypt(associated, text).expect("few strings")
    }

    /// Returns a text with room for its tag.
    fn unsealed(text: &[u8]) -> Vec<u8> {
        [&[0; TAG_LEN], text].concat()
    }

    /// Seals and opens a text, and holds each step against the crate.
    fn agrees(key: &[u8; 64], associated: &[Vec<u8>], text: &[u8]) {
        let associated: Vec<&[u8]> = associated.iter().map(Vec::as_slice).collect();
        let (siv, bound) = (Siv::new(key, associated[0]), &associated[1..]);
        let mut sealed = unsealed(text);
        siv.encrypt(bound, &mut sealed);
        assert_eq!(sealed, reference(key, &associated, text), "{} bytes", text.len());
        let mut damaged = sealed.clone();
        assert_eq!(siv.decrypt(bound, &mut sealed), Ok(()), "{} bytes", text.len());
        assert_eq!(&sealed[TAG_LEN..], text);
        damaged[text.len() % TAG_LEN] ^= 1;
        assert_eq!(siv.decrypt(bound, &mut damaged), Err(NotAuthentic));
        assert!(damaged[TAG_LEN..].iter().all(|&byte| byte == 0), "what is not authentic is not revealed");
    }

    fn messages<'a>(bound: &'a [Vec<u8>], buffers: &'a mut [Vec<u8>]) -> Vec<Message<'a>> {
        bound.iter().zip(buffers).map(|(bound, buffer)| Message { bound, buffer }).collect()
    }

    /// Seals and opens texts together, and holds each against the crate. Then does so again with the one at `damaged`
    /// changed, which must fail alone.
    fn agree(texts: &[(Vec<u8>, Vec<u8>)], damaged: usize) {
        let siv = Siv::new(&KEY, b"a purpose");
        let bound: Vec<_> = texts.iter().map(|(bound, _)| bound.clone()).collect();
        let mut buffers: Vec<_> = texts.iter().map(|(_, text)| unsealed(text)).collect();
        siv.encrypt_many(&mut messages(&bound, &mut buffers));
        for (number, ((bound, text), sealed)) in texts.iter().zip(&buffers).enumerate() {
            let same = *sealed == reference(&KEY, &[b"a purpose", bound], text);
            assert!(same, "{number} of {}: {} bytes", texts.len(), text.len());
        }
        let mut changed = buffers.clone();
        let opened = siv.decrypt_many(&mut messages(&bound, &mut buffers));
        assert_eq!(opened, vec![Ok(()); texts.len()]);
        assert!(texts.iter().zip(&buffers).all(|((_, text), buffer)| buffer[TAG_LEN..] == *text));

        let Some(buffer) = changed.get_mut(damaged) else { return };
        let at = damaged * 7 % buffer.len();
        buffer[at] ^= 4;
        let opened = siv.decrypt_many(&mut messages(&bound, &mut changed));
        for (number, ((result, (_, text)), buffer)) in opened.into_iter().zip(texts).zip(&changed).enumerate() {
            assert_eq!(result.is_err(), number == damaged, "{number} of {}", texts.len());
            let whole = if number == damaged { vec![0; text.len()] } else { text.clone() };
            assert!(buffer[TAG_LEN..] == whole, "{number} of {}", texts.len());
        }
    }

    #[test]
    fn texts_of_all_lengths_around_blocks_are_sealed_as_the_reference_seals_them() {
        let text = noise(70_001);
        for len in (0..=80).chain([4_095, 4_096, 4_097, 65_536, 70_001]) {
            agrees(&KEY, &[b"a purpose".to_vec(), Vec::new()], &text[..len]);
        }
    }

    #[test]
    fn any_number_of_texts_is_sealed_side_by_side_as_the_reference_seals_them() {
        let text = noise(200);
        let texts: Vec<_> = (0..=200).map(|len| (Vec::new(), text[..len].to_vec())).collect();
        agree(&texts, 100);
        for count in 0..=40 {
            // Neighbours differ in length, so lanes end at different times.
            let texts: Vec<_> = (0..count).map(|number| (Vec::new(), text[..number * 37 % 201].to_vec())).collect();
            agree(&texts, count / 2);
            agree(&texts, 0);
        }
    }

    #[test]
    fn long_and_short_texts_are_sealed_side_by_side_as_the_reference_seals_them() {
        let text = noise(1 << 20);
        let lens = [16, 1 << 20, 0, 65_537, 131_072, 15, 4_096, 17, 1, 262_143, 32, 4_095, 31];
        let texts: Vec<_> = lens.iter().map(|len| (vec![7; len % 50], text[..*len].to_vec())).collect();
        for damaged in [1, 2, 12] {
            agree(&texts, damaged);
        }
    }

    #[test]
    fn a_message_shorter_than_a_tag_fails_alone() {
        let siv = Siv::new(&KEY, b"a purpose");
        let mut sealed = unsealed(b"text");
        siv.encrypt(&[b""], &mut sealed);
        let mut buffers = [sealed.clone(), vec![1; TAG_LEN - 1], Vec::new(), sealed];
        let bound = vec![Vec::new(); buffers.len()];
        let opened = siv.decrypt_many(&mut messages(&bound, &mut buffers));
        assert_eq!(opened, [Ok(()), Err(NotAuthentic), Err(NotAuthentic), Ok(())]);
        assert_eq!(siv.decrypt(&[], &mut buffers[1]), Err(NotAuthentic));
    }

    /// RFC 5297, appendices A.1 and A.2. Their keys have 32 bytes, so AES has 16.
    #[test]
    fn the_examples_of_the_rfc_come_out_one_by_one_and_side_by_side() {
        let unhex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
        };
        let examples: [(&str, &[&str], &str, &str); 2] = [
            (
                "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
                &["101112131415161718191a1b1c1d1e1f2021222324252627"],
                "112233445566778899aabbccddee",
                "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c",
            ),
            (
                "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
                &[
                    "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
                    "102030405060708090a0",
                    "09f911029d74e35bd84156c5635688c0",
                ],
                "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
                "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17\
                 dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
            ),
        ];
        for (key, associated, text, sealed) in examples {
            let (key, text, sealed) = (unhex(key), unhex(text), unhex(sealed));
            let associated: Vec<_> = associated.iter().map(|string| unhex(string)).collect();
            let associated: Vec<_> = associated.iter().map(Vec::as_slice).collect();
            let counter = UnboundCipherKey::new(&AES_128, &key[16..]).and_then(DecryptingKey::ctr).expect("16 bytes");
            let mac = Aes128Enc::new_from_slice(&key[..16]).expect("16 bytes");
            let mut siv = Siv::with(mac, counter, associated[0]);
            let mut buffer = unsealed(&text);
            siv.encrypt(&associated[1..], &mut buffer);
            assert_eq!(buffer, sealed);
            assert_eq!(siv.decrypt(&associated[1..], &mut buffer), Ok(()));
            assert_eq!(buffer[TAG_LEN..], text);

            // A message has a context and one string. So here the context stands for all strings but the last.
            if let [_, between @ .., last] = &associated[..] {
                let mac = |string: &&[u8]| siv.mac.mac(&siv.mac.chain(string, 0));
                siv.start = between.iter().fold(siv.start, |sum, string| double(sum) ^ mac(string));
                let mut buffers = vec![unsealed(&text); 9];
                let bound = vec![last.to_vec(); 9];
                siv.encrypt_many(&mut messages(&bound, &mut buffers));
                assert_eq!(buffers, vec![sealed.clone(); 9]);
                assert_eq!(siv.decrypt_many(&mut messages(&bound, &mut buffers)), vec![Ok(()); 9]);
                assert!(buffers.iter().all(|buffer| buffer[TAG_LEN..] == text));
            }
        }
    }

    fn cpu_seconds() -> f64 {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    /// Prints how fast texts are opened, together and one by one, beside the crate, in turns, in CPU time. `cargo test
    /// --release --lib -- --ignored --nocapture how_fast`
    #[test]
    #[ignore = "a measurement"]
    fn how_fast_texts_are_opened_beside_the_reference() {
        const BYTES: usize = 2 << 20;
        let associated = [&b"strongroom format 1: data block"[..], b""];
        let siv = Siv::new(&KEY, associated[0]);
        println!(
            "   number x bytes: together, MB/s | one by one | aes-siv | together / aes-siv | one by one / aes-siv"
        );
        let one = [64, 300, 1 << 10, 4 << 10, 128 << 10, 1 << 20].map(|len| (1, len));
        let some = [2, 3, 4, 8, 16].map(|count| (count, 128 << 10));
        for (count, len) in one.into_iter().chain(some).chain([(8, 1 << 20), (64, 300), (200, 100), (200, 8_000)]) {
            let mut sealed = vec![vec![5; TAG_LEN + len]; count];
            siv.encrypt_many(&mut messages(&vec![Vec::new(); count], &mut sealed));
            let repeats = (BYTES / len / count).max(1);
            let mut best = [f64::MAX; 3];
            for _ in 0..10 {
                let mut sets = [(); 3].map(|()| vec![sealed.clone(); repeats]);
                let start = cpu_seconds();
                for set in &mut sets[0] {
                    let mut many: Vec<_> = set.iter_mut().map(|buffer| Message::unbound(buffer)).collect();
                    assert!(siv.decrypt_many(&mut many).iter().all(Result::is_ok));
                }
                let together = cpu_seconds();
                for buffer in sets[1].iter_mut().flatten() {
                    siv.decrypt(&[b""], buffer).expect("authentic");
                }
                let one_by_one = cpu_seconds();
                for buffer in sets[2].iter_mut().flatten() {
                    let (tag, text) = buffer.split_first_chunk_mut::<TAG_LEN>().expect("a tag");
                    let reference = &mut Aes256Siv::new(&KEY.into());
                    let opened = reference.decrypt_inout_detached(associated, text.into(), &(*tag).into());
                    opened.expect("authentic");
                }
                let end = cpu_seconds();
                let times = [together - start, one_by_one - together, end - one_by_one];
                best = std::array::from_fn(|way| best[way].min(times[way]));
                assert!(sets[0] == sets[1] && sets[0] == sets[2]);
            }
            let speed = best.map(|time| (repeats * count * len) as f64 / time / 1e6);
            let [together, one_by_one, reference] = speed;
            println!(
                "{count:>9} x {len:>7}: {together:>5.0} | {one_by_one:>5.0} | {reference:>5.0} | {:>5.2} | {:>5.2}",
                together / reference,
                one_by_one / reference
            );
        }
    }

    /// Lengths, of which many are about whole blocks.
    fn len() -> impl Strategy<Value = usize> {
        prop_oneof![0..=200_usize, (1..=40_usize, 0..=2_usize).prop_map(|(blocks, more)| blocks * BLOCK_LEN - 1 + more)]
    }

    proptest! {
        #[test]
        fn any_text_is_sealed_as_the_reference_seals_it(
            key: [[u8; 32]; 2],
            associated in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..4),
            text in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let key = [key[0], key[1]].concat().try_into().expect("64 bytes");
            agrees(&key, &associated, &text);
        }

        #[test]
        fn any_texts_are_sealed_side_by_side_as_the_reference_seals_them(
            lens in prop::collection::vec((prop_oneof![Just(0), len()], len()), 0..=40),
            damaged in 0..40_usize,
        ) {
            let texts: Vec<_> = lens.into_iter().map(|(bound, text)| (noise(bound), noise(text))).collect();
            agree(&texts, damaged);
        }
    }
}
