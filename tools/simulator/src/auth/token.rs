//! Access tokens: what the simulator writes into them, and how it reads them back.
//!
//! They are JWTs because Graph's are, and because a client may look at `roles` to explain what is missing. But clients
//! must treat tokens as opaque, so they are signed with a key that only this process knows.

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

/// Who sends a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The application itself, with these application permissions.
    Application {
        /// The `roles` claim.
        roles: Vec<String>,
    },
    /// The application on behalf of a user who signed in.
    User {
        /// The user's id in the directory.
        id: String,
        /// The delegated permissions (`scp`).
        scopes: Vec<String>,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Claims {
    pub aud: String,
    pub iss: String,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
    pub appid: String,
    pub tid: String,
    pub oid: String,
    pub idtyp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upn: Option<String>,
    pub uti: String,
    pub ver: String,
    /// Generation of the token. The administrator expired the tokens of earlier generations.
    pub generation: u64,
}

/// Why a token was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BadToken {
    /// The token was not issued here.
    Invalid,
    /// The token has expired.
    Expired,
}

/// Signs and reads tokens.
pub(super) struct TokenKey {
    encoding: EncodingKey,
    decoding: DecodingKey,
    validation: Validation,
}

impl TokenKey {
    pub fn new(secret: &[u8]) -> Self {
        // The caller compares the times, because a test may set its clock.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self { encoding: EncodingKey::from_secret(secret), decoding: DecodingKey::from_secret(secret), validation }
    }

    pub fn sign(&self, claims: &impl Serialize) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &self.encoding)
            .expect("claims are plain JSON and the key is symmetric")
    }

    pub fn read(&self, token: &str, generation: u64, now: Timestamp) -> Result<Claims, BadToken> {
        let claims = jsonwebtoken::decode::<Claims>(token, &self.decoding, &self.validation)
            .map_err(|_| BadToken::Invalid)?
            .claims;
        if claims.exp <= now.as_second() || claims.generation != generation {
            return Err(BadToken::Expired);
        }
        Ok(claims)
    }
}

impl From<Claims> for Caller {
    fn from(claims: Claims) -> Self {
        match claims.scp {
            Some(scopes) => Self::User { id: claims.oid, scopes: scopes.split(' ').map(str::to_owned).collect() },
            None => Self::Application { roles: claims.roles.unwrap_or_default() },
        }
    }
}
