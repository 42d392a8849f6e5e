//! Multiparts that are encoded as a whole. RFC 2045 (6.4) forbids them, but programs write them.
//!
//! A mail with such a multipart is read as if the decoded body stood in its place. All that lies in it is then found
//! like any other part.

use super::{Kind, PARTS_MAX, Part, Structure};
use crate::content::mail::transfer::Encoding;

/// Maximum depth of encoded multiparts in encoded multiparts, because each level takes another pass over the message.
/// Deeper ones are text.
const OPENED_DEPTH_MAX: usize = 8;

/// Says which of the encoded multiparts are decoded.
type IsWanted = fn(&Structure<'_>, &Part<'_>) -> bool;

impl Structure<'_> {
    /// Returns the message of this structure with all encoded multiparts decoded, also those in nested messages. None
    /// if no multipart is encoded.
    ///
    /// Decoding makes each multipart shorter, so memory holds at most three times the message.
    pub fn opened(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.opened_where(message, |_, _| true)
    }

    /// Returns the message with its own encoded multiparts decoded. Nested messages stay as they are, because each of
    /// them is a file with bytes of its own.
    pub fn opened_outside_messages(&self, message: &[u8]) -> Option<Vec<u8>> {
        self.opened_where(message, |structure, part| !structure.is_in_message(part))
    }

    fn opened_where(&self, message: &[u8], is_wanted: IsWanted) -> Option<Vec<u8>> {
        let mut opened = self.opened_once(message, is_wanted)?;
        for _ in 1..OPENED_DEPTH_MAX {
            let Some(next) = Structure::of(&opened, PARTS_MAX).opened_once(&opened, is_wanted) else { break };
            opened = next;
        }
        Some(opened)
    }

    /// Returns whether a part lies in a nested message. Takes at most [`DEPTH_MAX`](super::DEPTH_MAX) steps.
    fn is_in_message(&self, part: &Part<'_>) -> bool {
        let above = |part: &Part<'_>| part.parent.map(|parent| &self.parts[parent]);
        std::iter::successors(above(part), |part| above(part)).any(|part| part.kind == Kind::Message)
    }

    fn opened_once(&self, message: &[u8], is_wanted: IsWanted) -> Option<Vec<u8>> {
        let mut opened = Vec::new();
        let mut done = 0;
        let multiparts = self.parts.iter().filter(|part| part.is_encoded_multipart());
        for part in multiparts.filter(|part| is_wanted(self, part)) {
            let encoded = part.encoded();
            let decoded = encoded.decoded(usize::MAX);
            if has_parts(part, &decoded) {
                opened.extend_from_slice(&message[done..part.body_start]);
                opened.extend_from_slice(&decoded);
                if !encoded.footer.is_empty() {
                    opened.extend_from_slice(b"\r\n");
                    opened.extend_from_slice(encoded.footer);
                }
                done = part.body_start + part.body.len();
            }
        }
        (done > 0).then(|| {
            opened.extend_from_slice(&message[done..]);
            opened
        })
    }
}

impl Part<'_> {
    fn is_encoded_multipart(&self) -> bool {
        self.kind == Kind::Leaf
            && self.content.value.starts_with("multipart")
            && self.encoding != Encoding::Identity
            && self.encoding.is_encoded(self.body)
    }
}

/// Returns whether a multipart with this body has parts. If it has none, its body is text.
fn has_parts(part: &Part<'_>, body: &[u8]) -> bool {
    let entity = [part.header.bytes(), b"\n", body].concat();
    Structure::of(&entity, 2).parts.len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    /// Returns a message that is a multipart with this body, encoded as a whole.
    fn encoded(body: &str) -> String {
        let lines: Vec<String> = STANDARD
            .encode(body)
            .as_bytes()
            .chunks(76)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        format!(
            "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n{}\n",
            lines.join("\n")
        )
    }

    fn contents(message: &str) -> Option<Vec<String>> {
        let opened = Structure::of(message.as_bytes(), PARTS_MAX).opened(message.as_bytes())?;
        let structure = Structure::of(&opened, PARTS_MAX);
        let leaves = structure.parts.iter().filter(|part| part.kind == Kind::Leaf);
        Some(leaves.map(|part| String::from_utf8_lossy(&part.encoded().decoded(usize::MAX)).into_owned()).collect())
    }

    #[test]
    fn encoded_multiparts_have_their_parts() {
        let inner = "--b\n\none\n--b\nContent-Transfer-Encoding: base64\n\ndHdv\n--b--\n";
        assert_eq!(contents(&encoded(inner)), Some(vec!["one".to_owned(), "two".to_owned()]));
        let outer =
            format!("Content-Type: multipart/mixed; boundary=o\n\n--o\n{}--o\n\nthree\n--o--\n", encoded(inner));
        assert_eq!(contents(&outer), Some(vec!["one".to_owned(), "two".to_owned(), "three".to_owned()]));
        let twice = encoded(&format!("--b\n{}\n--b--\n", encoded(inner).replace("=b", "=c")).replace("--c", "--b"));
        assert!(contents(&twice).is_some());
        let qp = "Content-Type: multipart/mixed; boundary=\"=b\"\nContent-Transfer-Encoding: quoted-printable\n\n\
            --=3Db\n\none=\n two\n--=3Db--\n";
        assert_eq!(contents(qp), Some(vec!["one two".to_owned()]));
    }

    #[test]
    fn what_has_no_parts_stays() {
        assert_eq!(contents(&encoded("a text without any parts, only words")), None);
        assert_eq!(contents("Content-Type: text/plain\nContent-Transfer-Encoding: base64\n\nLS1iCgphCi0tYi0t\n"), None);
        let wrong = "Content-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: base64\n\n--b\n\na\n--b--\n";
        assert_eq!(contents(wrong), None);
    }

    #[test]
    fn nested_messages_keep_their_bytes_where_that_is_asked_for() {
        let inner = encoded("--b\n\none\n--b--\n");
        let outer = |inner: &str| {
            format!(
                "Content-Type: multipart/mixed; boundary=o\n\n--o\nContent-Type: message/rfc822\n\n{inner}\n--o--\n"
            )
        };
        let message = outer(&inner);
        let structure = Structure::of(message.as_bytes(), PARTS_MAX);
        assert!(structure.opened(message.as_bytes()).is_some());
        assert_eq!(structure.opened_outside_messages(message.as_bytes()), None);
        let both = message.replace("\n--o--\n", &format!("\n--o\n{inner}\n--o--\n"));
        let opened =
            Structure::of(both.as_bytes(), PARTS_MAX).opened_outside_messages(both.as_bytes()).expect("one is opened");
        let opened = String::from_utf8(opened).expect("ASCII");
        assert!(opened.contains(&inner) && opened.contains("\none\n"), "{opened}");
    }

    #[test]
    fn depth_is_bounded() {
        let mut message = "--b\n\ninnermost\n--b--\n".to_owned();
        for _ in 0..OPENED_DEPTH_MAX + 3 {
            message = format!("--b\n{}--b--\n", encoded(&message));
        }
        let message = encoded(&message);
        assert!(contents(&message).expect("it is opened").iter().all(|text| !text.contains("innermost")));
    }
}
