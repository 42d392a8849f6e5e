//! zstd (RFC 8878) for blocks: one context a thread, kept between calls.

use std::cell::RefCell;
use std::io;

/// zstd's level for content, where each step costs time on every backup.
/// Measured on an office tenant: docs/performance.md, "Compression".
pub const DATA_LEVEL: i32 = 3;
/// zstd's level for metadata, which is small and read by every walk through a snapshot.
pub const META_LEVEL: i32 = 6;

/// A compression context; making one allocates megabytes, so a thread keeps its own.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    /// Creates a context for `level`.
    ///
    /// # Panics
    /// When `level` is none of zstd's, or memory is out.
    pub fn new(level: i32) -> Self {
        let mut zstd = zstd::bulk::Compressor::new(level).expect("a level that zstd knows");
        // The envelope holds the length and the cipher authenticates: the frame needs neither.
        zstd.include_contentsize(false).expect("a parameter that zstd knows");
        Self { zstd }
    }

    /// Appends the compressed form of `plaintext` to `out`, or leaves `out` as it was and returns `false` when
    /// compressing does not make it smaller.
    pub fn append(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        // Room for exactly one byte less than the plaintext: zstd then gives up where nothing is saved.
        out.resize(start + plaintext.len().saturating_sub(1), 0);
        match self.zstd.compress_to_buffer(plaintext, &mut out[start..]) {
            Ok(len) => {
                out.truncate(start + len);
                true
            }
            Err(_) => {
                out.truncate(start);
                false
            }
        }
    }
}

thread_local! {
    static DECOMPRESSOR: RefCell<zstd::bulk::Decompressor<'static>> =
        RefCell::new(zstd::bulk::Decompressor::new().expect("memory for a zstd context"));
}

/// Returns what `body` holds, which must not be longer than `plaintext_len`.
///
/// # Errors
/// When `body` is no zstd frame or holds more.
pub fn decompress(body: &[u8], plaintext_len: usize) -> io::Result<Vec<u8>> {
    let mut plaintext = Vec::with_capacity(plaintext_len);
    DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress_to_buffer(body, &mut plaintext))?;
    Ok(plaintext)
}
