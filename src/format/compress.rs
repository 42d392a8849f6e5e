//! zstd (RFC 8878) for blocks, with one context per thread that is reused between calls.

use std::cell::RefCell;
use std::io;

/// zstd level for content. A higher level would cost time on every backup. Measured on an office tenant:
/// docs/performance.md, "Compression".
pub const DATA_LEVEL: i32 = 3;
/// zstd level for metadata. Metadata is small, and every walk through a snapshot reads it, so a higher level pays.
pub const META_LEVEL: i32 = 6;
/// zstd level for the local state. A first backup writes a value for each file, and few of them are ever read.
pub const LOCAL_LEVEL: i32 = 1;

/// A compression context. Creating one allocates megabytes, so each thread keeps its own.
pub struct Compressor {
    zstd: zstd::bulk::Compressor<'static>,
}

impl Compressor {
    /// Creates a context for `level`.
    ///
    /// # Panics
    /// If zstd has no such `level`, or memory is exhausted.
    pub fn new(level: i32) -> Self {
        let mut zstd = zstd::bulk::Compressor::new(level).expect("a level that zstd knows");
        // The envelope holds the length, and the cipher authenticates the bytes, so the frame needs neither a length
        // nor a checksum.
        zstd.include_contentsize(false).expect("a parameter that zstd knows");
        Self { zstd }
    }

    /// Appends the compressed form of `plaintext` to `out`. If it would not be smaller, leaves `out` as it was and
    /// returns `false`.
    pub fn append(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        // Leave room for one byte less than the plaintext: zstd then gives up if compression saves nothing.
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

/// Returns the decompressed `body`, which must not be longer than `plaintext_len` bytes.
///
/// # Errors
/// If `body` is not a zstd frame, or its content is longer.
pub fn decompress(body: &[u8], plaintext_len: usize) -> io::Result<Vec<u8>> {
    let mut plaintext = Vec::with_capacity(plaintext_len);
    DECOMPRESSOR.with_borrow_mut(|zstd| zstd.decompress_to_buffer(body, &mut plaintext))?;
    Ok(plaintext)
}
