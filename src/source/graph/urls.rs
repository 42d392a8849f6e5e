//! What a URL's path and query are made of.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters that are not encoded in a path segment: unreserved characters (RFC 3986, 2.3), and `$` for `$value`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'$');
/// Characters that are not encoded in a query value: those of `SEGMENT`, and those that OData expressions consist of.
pub(super) const QUERY: &AsciiSet =
    &SEGMENT.remove(b',').remove(b'(').remove(b')').remove(b'\'').remove(b'/').remove(b':');

/// Returns the path that consists of `segments`. Each segment is percent-encoded, whatever it holds:
/// `/users/a%23b/messages`.
///
/// Ids are opaque and may hold `/`, `+`, `=` or `#`. User principal names may hold `@`, `'` and `#`.
pub fn path(segments: &[&str]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    path
}
