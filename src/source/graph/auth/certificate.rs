//! Signs in with a certificate instead of a secret (Entra: certificate credentials).

use crate::format::crypto::random;
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

/// How long a signed assertion is valid, in seconds. Entra recommends five to ten minutes.
const ASSERTION_LIFETIME_S: i64 = 600;

/// A certificate and its key.
pub(super) struct Certificate {
    key: RsaKeyPair,
    /// The SHA-256 hash of the certificate, as base64url.
    thumbprint: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("thumbprint", &self.thumbprint).finish_non_exhaustive()
    }
}

impl Certificate {
    /// Reads a PEM text with a certificate and its RSA key, in any order. If the text holds a chain, the first
    /// certificate counts.
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

    /// Returns a signed assertion that `client_id` requests a token at `url`. It is valid for ten minutes from `now`,
    /// in seconds since 1970.
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

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{KeyPair, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey};
    use base64::engine::general_purpose::STANDARD;
    use serde_json::Value;

    fn section(label: &str, der: &[u8]) -> String {
        let lines: Vec<_> =
            STANDARD.encode(der).as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
    }

    #[test]
    fn an_assertion_is_what_the_service_asks_for() {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        // Only the certificate's thumbprint matters here, so any bytes will do.
        let (key_pem, first, second) =
            (section("PRIVATE KEY", der.as_ref()), section("CERTIFICATE", b"leaf"), section("CERTIFICATE", b"issuer"));
        for pem in [format!("{first}{second}{key_pem}"), format!("Bag Attributes\n{key_pem}\n{first}")] {
            let assertion = Certificate::read(&pem).unwrap().assertion("app", "https://login/token", 1_000_000);
            let parts: Vec<_> = assertion.split('.').collect();
            let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
            let read = |part: &str| serde_json::from_slice::<Value>(&decode(part)).unwrap();
            let thumbprint = URL_SAFE_NO_PAD.encode(digest(&SHA256, b"leaf"));
            assert_eq!(read(parts[0]), json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint }));
            let mut claims = read(parts[1]);
            assert_eq!(claims["jti"].take().as_str().unwrap().len(), 36);
            let expected = json!({
                "aud": "https://login/token", "iss": "app", "sub": "app", "jti": null,
                "nbf": 1_000_000, "iat": 1_000_000, "exp": 1_000_600,
            });
            assert_eq!(claims, expected);
            let signed = format!("{}.{}", parts[0], parts[1]);
            let public_key = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.public_key());
            public_key.verify(signed.as_bytes(), &decode(parts[2])).expect("a signature of the key");
        }
    }

    #[test]
    fn a_certificate_error_says_what_is_missing_and_shows_nothing() {
        let certificate = section("CERTIFICATE", b"leaf");
        let ec = section("EC PRIVATE KEY", b"hush");
        let rsa = section("PRIVATE KEY", b"hush");
        for (pem, what) in [
            (String::new(), "no certificate"),
            (rsa.clone(), "no certificate"),
            (certificate.clone(), "no key"),
            (format!("{certificate}{ec}"), "not an RSA key"),
            (format!("{certificate}{rsa}"), "not a usable RSA key"),
        ] {
            let error = Certificate::read(&pem).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::SignIn);
            assert!(error.to_string().contains(what), "{error}");
            assert!(!format!("{error:?}").contains("hush"));
        }
    }
}
