//! Proof of a certificate's key, in place of a secret (Entra: certificate credentials).

use crate::crypto::random;
use crate::source::graph::error::{ErrorKind, GraphError};
use crate::source::graph::http::guid;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PSS_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::fmt;
use zeroize::Zeroizing;

/// Entra asks for five to ten minutes.
const ASSERTION_LIFETIME_S: i64 = 600;

/// A certificate with its key.
pub(super) struct Certificate {
    key: RsaKeyPair,
    /// base64url of the SHA-256 of the certificate.
    thumbprint: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a PEM text with a certificate (the first, if there is a chain) and its RSA key, in any order.
    pub(super) fn read(pem: &str) -> Result<Self, GraphError> {
        let unusable = |what: &str| {
            let help = "the file must hold the certificate and its unencrypted RSA key, in PEM";
            GraphError::new(ErrorKind::SignIn, "sign-in").explained(format!("{what}: {help}"))
        };
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| unusable("there is no certificate").with(error.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| unusable("there is no key").with(error.to_string()))?;
        let key = match &key {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err(unusable("the key is not an RSA key")),
        };
        let key = key.map_err(|error| unusable("the key is not a usable RSA key").with(error))?;
        Ok(Self { key, thumbprint: URL_SAFE_NO_PAD.encode(digest(&SHA256, &certificate)) })
    }

    /// Returns a signed statement that `client_id` asks for a token at `url`, good for ten minutes from `now` (seconds
    /// since 1970).
    pub(super) fn assertion(&self, client_id: &str, url: &str, now: i64) -> Zeroizing<String> {
        let header = json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": self.thumbprint });
        let claims = json!({
            "aud": url,
            "iss": client_id,
            "sub": client_id,
            "jti": guid(random()),
            "nbf": now,
            "iat": now,
            "exp": now + ASSERTION_LIFETIME_S,
        });
        let encode = |part: serde_json::Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let mut text = Zeroizing::new(format!("{}.{}", encode(header), encode(claims)));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature)
            .expect("the key is long enough for SHA-256, and the buffer as long as the key");
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut text);
        text
    }
}
