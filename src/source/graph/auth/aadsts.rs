//! Explains the error numbers of the identity platform in words that say what to do (Entra: authentication error
//! codes).

/// Returns what to do about error `AADSTS<number>`; `None` for a number that is unknown here or needs no explanation.
pub(super) fn advice(number: u64) -> Option<&'static str> {
    Some(match number {
        50_011 => "add the redirect URI `http://localhost` for mobile and desktop applications to the app registration",
        50_020 => "sign in with an account of this tenant",
        50_034 => "there is no such account in this tenant",
        50_057 => "the account is disabled",
        50_076 | 50_079 | 50_158 => "sign in again with `strongroom tenant login` and complete the second factor",
        50_105 => "assign the account to the application, or stop requiring an assignment",
        50_173 => "the session was revoked: sign in again with `strongroom tenant login`",
        53_003 => {
            "a Conditional Access policy blocks this way of signing in: exempt the application, or use a certificate"
        }
        65_001 => "nobody consented to the permissions: an administrator must grant them in the app registration",
        65_004 => "consent was declined",
        70_000 | 70_008 | 70_043 | 700_082 | 700_084 => {
            "the sign-in has expired: sign in again with `strongroom tenant login`"
        }
        70_011 => "check that `cloud` in the configuration is the cloud of the tenant",
        70_016 => "nobody entered the code in time: start again",
        90_002 => "there is no such tenant in this cloud: check `tenant_id` and `cloud`",
        500_011 => "Graph is not known to this tenant: check `cloud`",
        700_016 => "the application is not in this tenant: check `client_id` and `tenant_id`, or register it",
        700_024 => "the clock of this machine is wrong by minutes",
        700_027 => "upload the certificate to the app registration; the one that was used is not there",
        7_000_112 => "the application is disabled in this tenant",
        7_000_215 => "the client secret is wrong: use its value, not its id",
        7_000_218 => "allow public client flows in the app registration, or configure a secret or a certificate",
        7_000_222 => "the client secret has expired: create another in the app registration",
        _ => return None,
    })
}
