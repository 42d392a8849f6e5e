//! Line ends as mailboxes have them: LF, CRLF, CR alone (Mac OS before X, Eudora), and CR CR LF, which copies in text
//! mode leave. One file may have several of them.

/// Returns the end of the content of the line that starts at `at`, and the start of the next line.
pub(super) fn line_end(bytes: &[u8], at: usize) -> (usize, usize) {
    let Some(found) = memchr::memchr2(b'\n', b'\r', &bytes[at..]) else { return (bytes.len(), bytes.len()) };
    let end = at + found;
    (end, end + eol_len(&bytes[end..]))
}

/// Returns the length of the line end at the start of `bytes`; 0 if there is none.
pub(super) fn eol_len(bytes: &[u8]) -> usize {
    match bytes {
        [b'\r', b'\r', b'\n', ..] => 3,
        [b'\r', b'\n', ..] => 2,
        [b'\n' | b'\r', ..] => 1,
        _ => 0,
    }
}

/// Returns the length of the line end at the end of `bytes`; 0 if there is none.
pub(super) fn eol_len_before(bytes: &[u8]) -> usize {
    match bytes {
        [.., b'\r', b'\r', b'\n'] => 3,
        [.., b'\r', b'\n'] => 2,
        [.., b'\n' | b'\r'] => 1,
        _ => 0,
    }
}

/// Returns the length of the blank line at the end of `bytes`: the length of its line end, if another line end or
/// nothing stands before it.
pub(super) fn blank_line_len_before(bytes: &[u8]) -> usize {
    let len = eol_len_before(bytes);
    let before = &bytes[..bytes.len() - len];
    if before.is_empty() || eol_len_before(before) > 0 { len } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_many_ways() {
        let bytes = b"a\nb\r\nc\rd\r\r\n\re";
        let mut lines = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let (end, next) = line_end(bytes, at);
            lines.push(&bytes[at..end]);
            assert_eq!(eol_len_before(&bytes[..next]), if next == bytes.len() { 0 } else { next - end });
            at = next;
        }
        assert_eq!(lines, [&b"a"[..], b"b", b"c", b"d", b"", b"e"]);
    }

    #[test]
    fn a_blank_line_stands_behind_a_line_end() {
        for (bytes, len) in
            [("a\n\n", 1), ("a\r\n\r\n", 2), ("a\r\r", 1), ("\n", 1), ("a\n", 0), ("a\r\n", 0), ("a\r\r\n", 0), ("", 0)]
        {
            assert_eq!(blank_line_len_before(bytes.as_bytes()), len, "{bytes:?}");
        }
    }
}
