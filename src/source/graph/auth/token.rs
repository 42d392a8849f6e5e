//! An access token, and how long it is valid.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::header::HeaderValue;
use serde::Deserialize;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;
use zeroize::Zeroizing;

/// A token is renewed this long before it expires, or when a quarter of its lifetime is left, whichever is later
/// (Entra: access tokens live for 60 to 90 minutes).
const RENEW_BEFORE_END: Duration = Duration::from_secs(300);

/// An access token. Its text is wiped from memory when it is dropped, and is never printed.
pub(crate) struct Token {
    text: Zeroizing<String>,
    renew_at: Instant,
    ends_at: Instant,
}

impl Token {
    pub(super) fn new(text: Zeroizing<String>, lifetime: Duration, now: Instant) -> Self {
        let ends_at = now + lifetime;
        Self { text, renew_at: ends_at - RENEW_BEFORE_END.min(lifetime / 4), ends_at }
    }

    /// Returns the value of the `Authorization` header, marked as sensitive so that no library logs it.
    pub(crate) fn header(&self) -> Option<HeaderValue> {
        let text = Zeroizing::new(format!("Bearer {}", &*self.text));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    pub(super) fn is_fresh(&self, now: Instant) -> bool {
        now < self.renew_at
    }

    pub(super) fn is_valid(&self, now: Instant) -> bool {
        now < self.ends_at
    }

    /// Returns the text of the token.
    pub(crate) fn expose(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token([redacted])")
    }
}

/// The claims inside a token.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// The permissions of an application that signed in as itself. A permission that was granted in Exchange may be
    /// missing here.
    pub roles: Vec<String>,
    /// The permissions of a person's sign-in, separated by blanks.
    pub scp: String,
    /// The id of the tenant.
    pub tid: String,
    /// The id of the application.
    pub appid: String,
}

/// Returns the claims in `token`, or `None` if the token has another form. They serve to explain what is missing, never
/// to decide: the form of a token is the service's own affair (Entra: access tokens).
pub fn claims_of(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_ends() {
        let now = Instant::now();
        let token = |seconds| Token::new(Zeroizing::new("t".to_owned()), Duration::from_secs(seconds), now);
        let hour = token(3_600);
        assert!(hour.is_fresh(now + Duration::from_secs(3_299)));
        assert!(!hour.is_fresh(now + Duration::from_secs(3_300)));
        assert!(hour.is_valid(now + Duration::from_secs(3_599)));
        assert!(!hour.is_valid(now + Duration::from_secs(3_600)));
        // A token whose lifetime is shorter than the margin would otherwise never be used.
        assert!(token(100).is_fresh(now + Duration::from_secs(74)));
        assert!(!token(0).is_fresh(now));
    }

    #[test]
    fn a_token_shows_itself_to_nobody() {
        let token = Token::new(Zeroizing::new("hush".to_owned()), Duration::from_secs(1), Instant::now());
        assert!(!format!("{token:?} {:?}", token.header()).contains("hush"));
        assert_eq!(token.header().unwrap().to_str().unwrap(), "Bearer hush");
        assert!(
            Token::new(Zeroizing::new("a\nb".to_owned()), Duration::from_secs(1), Instant::now()).header().is_none()
        );
    }

    #[test]
    fn claims_are_read_where_there_are_any() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"roles":["Mail.Read"],"tid":"t","appid":"a","exp":1}"#);
        let claims = claims_of(&format!("e30.{payload}.sig")).unwrap();
        assert_eq!(claims.roles, ["Mail.Read"]);
        assert_eq!((&*claims.tid, &*claims.appid, &*claims.scp), ("t", "a", ""));
        assert_eq!(claims_of("opaque"), None);
        assert_eq!(claims_of("a.!.c"), None);
    }
}
