//! Sizes as people write them.

use std::str::FromStr;

/// A number of bytes, written as `500M` or `20G`. K, M, G and T are powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// The text is not a size.
#[derive(Debug, thiserror::Error)]
#[error("{written:?} is not a size; write a number, followed by K, M, G or T if needed")]
pub struct NotASize {
    written: String,
}

impl FromStr for ByteSize {
    type Err = NotASize;

    fn from_str(written: &str) -> Result<Self, NotASize> {
        let number = written.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let power = match written[number.len()..].to_ascii_uppercase().as_str() {
            "" | "B" => Some(0),
            "K" | "KB" | "KIB" => Some(1),
            "M" | "MB" | "MIB" => Some(2),
            "G" | "GB" | "GIB" => Some(3),
            "T" | "TB" | "TIB" => Some(4),
            _ => None,
        };
        let is_number = !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit());
        let size =
            power.filter(|_| is_number).and_then(|power| number.parse::<u64>().ok()?.checked_mul(1 << (10 * power)));
        size.map(ByteSize).ok_or_else(|| NotASize { written: written.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_written() {
        let sizes = [("0", 0), ("4096", 4096), ("500M", 500 << 20), ("20g", 20 << 30), ("1KiB", 1024), ("2T", 2 << 40)];
        for (written, bytes) in sizes {
            assert_eq!(written.parse::<ByteSize>().expect(written), ByteSize(bytes));
        }
        for written in ["", "G", "-1", "+5", "1.5G", "5X", "5 G", "99999999999G", "5GG", "\u{664}M"] {
            assert!(written.parse::<ByteSize>().is_err(), "{written}");
        }
    }
}
