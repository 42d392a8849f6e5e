//! Who asks: signing in, and tokens.

pub mod cache;

pub use cache::TokenCache;
use std::fmt;
use zeroize::Zeroizing;

/// What an application signs in with.
#[derive(Clone)]
pub enum Credential {
    /// As itself, with a secret.
    Secret {
        /// The application's id.
        client_id: String,
        /// Its secret.
        secret: Zeroizing<String>,
    },
    /// As itself, with a certificate.
    Certificate {
        /// The application's id.
        client_id: String,
        /// The certificate and its RSA key, in one PEM text.
        pem: Zeroizing<String>,
    },
    /// On behalf of somebody who signed in before; the token cache has the proof.
    Login {
        /// The application's id.
        client_id: String,
    },
}

impl Credential {
    /// Returns the application's id.
    pub fn client_id(&self) -> &str {
        match self {
            Self::Secret { client_id, .. } | Self::Certificate { client_id, .. } | Self::Login { client_id } => {
                client_id
            }
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Secret { .. } => "Secret([redacted])",
            Self::Certificate { .. } => "Certificate([redacted])",
            Self::Login { .. } => "Login([redacted])",
        })
    }
}
