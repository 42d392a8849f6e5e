//! Client assertions: a JWT, signed with the key of a registered certificate, that a client sends in place of its
//! secret.
//!
//! The rules are those of "Microsoft identity platform application authentication certificate credentials". The header
//! names the certificate by its thumbprint (`x5t#S256`, or the older `x5t` with SHA-1), and is signed with PS256 (or
//! the older RS256). `aud` is exactly the URL that the client posts to, `iss` and `sub` are the client, and `exp` lies
//! in the future.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use super::OauthError;

/// Maximum difference in seconds between the clocks of client and service. The platform tolerates five minutes.
const CLOCK_SKEW_S: i64 = 300;

/// A certificate registered for the application.
#[derive(Debug, Clone)]
pub struct Certificate {
    thumbprint_sha1: String,
    thumbprint_sha256: String,
    rsa_public_key: Vec<u8>,
}

/// The bytes are not an X.509 certificate with an RSA key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate with an RSA key")]
pub struct NotACertificate;

impl Certificate {
    /// Reads a certificate in PEM or DER form.
    ///
    /// # Errors
    /// [`NotACertificate`] if it is neither, or has no RSA key.
    pub fn new(bytes: &[u8]) -> Result<Self, NotACertificate> {
        let der = match CertificateDer::from_pem_slice(bytes) {
            Ok(der) => der.to_vec(),
            Err(_) => bytes.to_vec(),
        };
        let rsa_public_key = rsa_public_key(&der).ok_or(NotACertificate)?;
        let thumbprint = |algorithm| URL_SAFE_NO_PAD.encode(digest::digest(algorithm, &der));
        Ok(Self {
            thumbprint_sha1: thumbprint(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            thumbprint_sha256: thumbprint(&digest::SHA256),
            rsa_public_key,
        })
    }

    /// Returns the SHA-256 of the certificate in base64url, for `x5t#S256`.
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint_sha256
    }

    /// Returns the SHA-1 of the certificate in base64url, for `x5t`.
    pub fn thumbprint_sha1(&self) -> &str {
        &self.thumbprint_sha1
    }
}

#[derive(Deserialize)]
struct Claims {
    aud: String,
    iss: String,
    sub: String,
    exp: i64,
    #[serde(default)]
    nbf: i64,
    #[serde(default)]
    jti: String,
}

/// Validates `assertion` and returns its `jti`.
pub(super) fn validate(
    assertion: &str,
    certificates: &[Certificate],
    client_id: &str,
    token_url: &str,
    now: Timestamp,
) -> Result<String, OauthError> {
    let malformed = || OauthError::new("invalid_request", 50_027, "JWT token is invalid or malformed.");
    let header = jsonwebtoken::decode_header(assertion).map_err(|_| malformed())?;
    if !matches!(header.alg, Algorithm::PS256 | Algorithm::RS256) {
        return Err(bad_signature("The algorithm of the assertion is neither PS256 nor RS256."));
    }
    // A thumbprint may have padding: older client libraries added it, and the service accepts it.
    let named = |given: &Option<String>, ours: &str| {
        given.as_deref().is_some_and(|thumbprint| thumbprint.trim_end_matches('=') == ours)
    };
    let certificate = certificates
        .iter()
        .find(|certificate| {
            named(&header.x5t_s256, &certificate.thumbprint_sha256) || named(&header.x5t, &certificate.thumbprint_sha1)
        })
        .ok_or_else(|| {
            bad_signature("The certificate used to sign the assertion is not registered on the application.")
        })?;

    // The library checks only the signature, because each wrong claim has its own error number.
    let mut validation = Validation::new(header.alg);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_rsa_der(&certificate.rsa_public_key);
    let claims = match jsonwebtoken::decode::<Claims>(assertion, &key, &validation) {
        Ok(token) => token.claims,
        Err(error) if matches!(error.kind(), jsonwebtoken::errors::ErrorKind::InvalidSignature) => {
            return Err(bad_signature("The signature does not match the certificate."));
        }
        Err(_) => return Err(malformed()),
    };

    if claims.aud != token_url {
        let text = format!("Client assertion audience claim '{}' does not match '{token_url}'.", claims.aud);
        return Err(OauthError::invalid_client(700_023, text));
    }
    if claims.iss != client_id || claims.sub != client_id {
        let text = "Client assertion application identifier doesn't match 'client_id' parameter.";
        return Err(OauthError::invalid_client(700_021, text));
    }
    let now = now.as_second();
    if claims.exp + CLOCK_SKEW_S < now || claims.nbf - CLOCK_SKEW_S > now {
        let text = format!("Client assertion is not within its valid time range. Current time: {now}.");
        return Err(OauthError::invalid_client(700_024, text));
    }
    Ok(claims.jti)
}

fn bad_signature(reason: &str) -> OauthError {
    OauthError::invalid_client(700_027, format!("Client assertion failed signature validation. [Reason - {reason}]"))
}

/// Returns the PKCS#1 form of the RSA key in an X.509 certificate (RFC 5280, 4.1).
fn rsa_public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    const SEQUENCE: u8 = 0x30;
    const EXPLICIT_VERSION: u8 = 0xa0;
    const BIT_STRING: u8 = 0x03;
    /// rsaEncryption, 1.2.840.113549.1.1.1, as DER.
    const RSA_ENCRYPTION: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

    let (certificate, _) = der_value(certificate, SEQUENCE)?;
    let (mut fields, _) = der_value(certificate, SEQUENCE)?;
    if fields.first() == Some(&EXPLICIT_VERSION) {
        fields = der_skip(fields)?;
    }
    // serialNumber, signature, issuer, validity, subject
    for _ in 0..5 {
        fields = der_skip(fields)?;
    }
    let (key_info, _) = der_value(fields, SEQUENCE)?;
    let (algorithm, key_info) = der_value(key_info, SEQUENCE)?;
    if !algorithm.starts_with(&RSA_ENCRYPTION) {
        return None;
    }
    let (bits, _) = der_value(key_info, BIT_STRING)?;
    match bits.split_first() {
        Some((0, key)) => Some(key.to_vec()),
        _ => None,
    }
}

/// Returns the content of the DER element at the start of `bytes`, and the bytes after it.
fn der_value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    if found != tag {
        return None;
    }
    let (&short, rest) = rest.split_first()?;
    let (len, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        // A certificate is shorter than 2^32 bytes.
        0x81..=0x84 => {
            let (len, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            (len.iter().fold(0, |len, &byte| len << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(len)
}

fn der_skip(bytes: &[u8]) -> Option<&[u8]> {
    der_value(bytes, *bytes.first()?).map(|(_, rest)| rest)
}
