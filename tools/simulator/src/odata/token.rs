//! Opaque tokens in links: state that clients send back without reading it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Serialize, de::DeserializeOwned};
use strongroom_corpora::rng::Rng;

/// Returns a token that contains `state`.
pub fn seal(state: &impl Serialize) -> String {
    let json = serde_json::to_vec(state).expect("tokens hold plain data");
    let mut bytes = check(&json).to_vec();
    bytes.extend(masked(&json));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the content of a token, or `None` for anything that was not sealed here.
pub fn open<T: DeserializeOwned>(token: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (sum, masked_json) = bytes.split_at_checked(8)?;
    let json = masked(masked_json);
    (check(&json) == sum).then(|| serde_json::from_slice(&json).ok())?
}

/// Masks the bytes. This keeps nothing secret, but discourages clients from looking into a token.
fn masked(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().zip(Rng::new(bytes.len() as u64).bytes(bytes.len())).map(|(byte, mask)| byte ^ mask).collect()
}

fn check(json: &[u8]) -> [u8; 8] {
    Rng::for_purpose(0, &String::from_utf8_lossy(json)).next_u64().to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_opaque_and_cannot_be_changed() {
        let token = seal(&("folder", 17));
        assert_eq!(open::<(String, u32)>(&token), Some(("folder".to_owned(), 17)));
        for at in 0..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("ASCII");
            assert_eq!(open::<(String, u32)>(&other), None, "{other}");
        }
        assert_eq!(open::<(String, u32)>("latest"), None);
    }
}
