//! Interprets the service's errors: a status, headers and usually a code in a JSON envelope (Graph: error responses).
//!
//! Codes and statuses decide. The words of a message count in two cases only, for which the service has no code.

use super::error::{ErrorKind, GraphError};
use super::request::{Request, Scope};
use super::retry::{Fault, retry_after};
use super::throttle::Affected;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// Maximum number of bytes that are kept of an error's words.
const DETAIL_BYTES_MAX: usize = 1_000;
/// Maximum depth of nested errors that are read.
const ENVELOPE_DEPTH_MAX: usize = 8;

/// A refusal by the service, and what may help.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) error: GraphError,
    /// Why it may help to send the request again; `None` if it cannot help.
    pub(super) fault: Option<Fault>,
    /// Whom a refusal for lack of capacity concerns.
    pub(super) affected: Affected,
    /// True if the service may have carried out the request in spite of the error.
    pub(super) ambiguous: bool,
}

/// The codes and the words in an error's envelope. The outermost error comes first.
#[derive(Debug, Default)]
struct Envelope {
    codes: Vec<String>,
    message: String,
}

impl Envelope {
    /// Reads the body of an error, which may be anything.
    fn read(body: &[u8]) -> Self {
        let mut envelope = Self::default();
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return envelope };
        let mut level = &value["error"];
        // Some services behind Graph answer in the form of OAuth.
        if let Some(code) = level.as_str() {
            envelope.push(code);
            envelope.message = value["error_description"].as_str().unwrap_or_default().to_owned();
        }
        envelope.message.push_str(level["message"].as_str().unwrap_or_default());
        for _ in 0..ENVELOPE_DEPTH_MAX {
            envelope.push(level["code"].as_str().unwrap_or_default());
            for detail in level["details"].as_array().into_iter().flatten() {
                envelope.push(detail["code"].as_str().unwrap_or_default());
            }
            // Both spellings occur (Graph: error resource type).
            level = if level["innerError"].is_object() { &level["innerError"] } else { &level["innererror"] };
            if !level.is_object() {
                break;
            }
        }
        envelope
    }

    /// Adds `code` if it has the form of a code. Anything else that a service puts there must not reach a log.
    fn push(&mut self, code: &str) {
        let is_code = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if !code.is_empty() && code.len() <= 64 && code.bytes().all(is_code) {
            self.codes.push(code.to_owned());
        }
    }
}

/// Returns what a lower-case code means; `None` for a code that says no more than its status.
fn kind_of(code: &str, request: &Request) -> Option<ErrorKind> {
    let in_mailbox = matches!(request.scope, Scope::Mailbox(_));
    Some(match code {
        "syncstatenotfound" | "resyncrequired" | "syncstateinvalid" => ErrorKind::Resync,
        "mailboxnotenabledforrestapi" | "errorinvaliduser" => ErrorKind::NoMailbox,
        // For the same user, the service may answer with this code one time and with `MailboxNotEnabledForRESTAPI` the
        // next. Unlicensed users get the code below.
        "resourcenotfound" | "request_resourcenotfound" if in_mailbox => ErrorKind::NoMailbox,
        "authenticationerror" if in_mailbox => ErrorKind::NoMailbox,
        "erroritemnotfound" | "itemnotfound" | "notfound" | "resourcenotfound" | "request_resourcenotfound" => {
            ErrorKind::NotFound
        }
        "errorsyncfoldernotfound" => ErrorKind::NotFound,
        "erroraccessdenied" | "accessdenied" => ErrorKind::Denied,
        "authorization_requestdenied" => ErrorKind::MissingPermission,
        "errorquotaexceeded" | "quotalimitreached" => ErrorKind::QuotaExceeded,
        "errorcorruptdata" | "errorcannotopenfileattachment" => ErrorKind::ItemCorrupt,
        // For a read, the stored item is damaged. For a write, the mistake is ours.
        "errorinvalidrecipients" if request.method == Method::GET => ErrorKind::ItemCorrupt,
        "errorfolderexists" | "namealreadyexists" | "errorirresolvableconflict" => ErrorKind::Conflict,
        "resourcelocked" | "notallowed" => ErrorKind::Locked,
        "errormessagesizeexceeded" => ErrorKind::TooLarge,
        "applicationthrottled" | "toomanyrequests" | "activitylimitreached" => ErrorKind::Throttled,
        _ => return None,
    })
}

/// Returns the refusal of `request` that `status`, `headers` and `body` express.
pub(super) fn refusal(request: &Request, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
    let envelope = Envelope::read(body);
    let known = envelope.codes.iter().rev().find_map(|code| {
        let kind = kind_of(&code.to_ascii_lowercase(), request)?;
        Some((kind, code.as_str()))
    });
    let (kind, code) = match known {
        Some((kind, code)) => (Some(kind), Some(code)),
        None => (None, envelope.codes.last().map(String::as_str)),
    };
    let wait = wait_of(headers);
    let (kind, fault) = judge(status, kind, code, &envelope.message, wait, body.is_empty());
    let is_server_error = status.is_server_error() && !matches!(fault, Some(Fault::Throttled(_)));
    let mut error = GraphError::new(kind, request.label).answered(
        status.as_u16(),
        code,
        headers.get("request-id").and_then(|id| id.to_str().ok()).filter(|id| is_id(id)),
    );
    if kind == ErrorKind::SignIn {
        error = error.explained("the token is refused".into());
    }
    if !envelope.message.is_empty() {
        error = error.detailed(shorten(&envelope.message));
    }
    Refusal { error, fault, affected: affected_by(request, headers), ambiguous: is_server_error }
}

/// Returns the kind of a failure, and why it may help to try again.
fn judge(
    status: StatusCode,
    kind: Option<ErrorKind>,
    code: Option<&str>,
    message: &str,
    wait: Option<Duration>,
    is_empty: bool,
) -> (ErrorKind, Option<Fault>) {
    if matches!(status.as_u16(), 429 | 509) || kind == Some(ErrorKind::Throttled) || (status == 503 && wait.is_some()) {
        return (ErrorKind::Throttled, Some(Fault::Throttled(wait)));
    }
    if message.contains("Parameter 'DeltaToken' not supported for this request") {
        return (ErrorKind::DeltaUnsupported, None);
    }
    if message.contains("IO error during request payload read") {
        return (ErrorKind::Unavailable, Some(Fault::Broken));
    }
    match kind {
        // The service sometimes delivers the item a moment later.
        Some(ErrorKind::ItemCorrupt) => return (ErrorKind::ItemCorrupt, Some(Fault::Doubtful)),
        Some(kind) => return (kind, None),
        None => {}
    }
    match status.as_u16() {
        401 => (ErrorKind::SignIn, Some(Fault::Unauthorized)),
        403 => (ErrorKind::Denied, None),
        404 => (ErrorKind::NotFound, (is_empty || code.is_none()).then_some(Fault::Doubtful)),
        408 => (ErrorKind::Unavailable, Some(Fault::Broken)),
        409 | 412 => (ErrorKind::Conflict, None),
        410 => (ErrorKind::Resync, None),
        413 => (ErrorKind::TooLarge, None),
        423 => (ErrorKind::Locked, None),
        501 => (ErrorKind::BadRequest, None),
        507 => (ErrorKind::QuotaExceeded, None),
        300..=399 => (ErrorKind::Malformed, None),
        500.. => (ErrorKind::Unavailable, Some(Fault::Broken)),
        _ => (ErrorKind::BadRequest, None),
    }
}

/// Returns how long the headers say to wait. Two headers may say so; the longer wait counts.
fn wait_of(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let date = text(DATE.as_str());
    let after = text(RETRY_AFTER.as_str()).and_then(|value| retry_after(value, date));
    let remaining = text("ratelimit-remaining").and_then(|value| value.trim().parse::<u64>().ok());
    let reset = text("ratelimit-reset").filter(|_| remaining == Some(0)).and_then(|value| retry_after(value, date));
    after.max(reset)
}

/// Returns whom a refusal concerns. A refusal of a mailbox request concerns that mailbox only, unless the service names
/// a limit of the application or the tenant: `x-ms-throttle-scope: Tenant_Application/ReadWrite/<app>/<tenant>` (Graph:
/// throttling limits). All limits of the directory are of that kind.
fn affected_by(request: &Request, headers: &HeaderMap) -> Affected {
    let scope = headers.get("x-ms-throttle-scope").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let named = scope.split('/').next().unwrap_or_default().to_ascii_lowercase();
    let is_wide = named.starts_with("tenant") || named.starts_with("application");
    if is_wide && matches!(request.scope, Scope::Mailbox(_)) { Affected::Tenant } else { Affected::Scope }
}

fn is_id(text: &str) -> bool {
    text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn shorten(text: &str) -> &str {
    &text[..text.floor_char_boundary(DETAIL_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    fn judged(request: &Request, status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Refusal {
        let headers = headers
            .iter()
            .map(|&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        refusal(request, StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

    fn of_mailbox() -> Request {
        Request::get("/users/u/messages".into(), Scope::mailbox("u"))
    }

    fn of_directory() -> Request {
        Request::get("/users".into(), Scope::Directory)
    }

    #[test]
    fn codes_decide() {
        use ErrorKind as Kind;
        for (status, code, kind) in [
            (404, "ErrorItemNotFound", Kind::NotFound),
            (404, "itemNotFound", Kind::NotFound),
            (404, "ErrorSyncFolderNotFound", Kind::NotFound),
            (404, "Request_ResourceNotFound", Kind::NoMailbox),
            (404, "MailboxNotEnabledForRESTAPI", Kind::NoMailbox),
            (404, "ResourceNotFound", Kind::NoMailbox),
            (404, "ErrorInvalidUser", Kind::NoMailbox),
            (401, "AuthenticationError", Kind::NoMailbox),
            (403, "AuthenticationError", Kind::NoMailbox),
            (410, "SyncStateNotFound", Kind::Resync),
            (400, "SyncStateInvalid", Kind::Resync),
            (400, "resyncRequired", Kind::Resync),
            (403, "ErrorAccessDenied", Kind::Denied),
            (403, "accessDenied", Kind::Denied),
            (403, "Authorization_RequestDenied", Kind::MissingPermission),
            (403, "ErrorQuotaExceeded", Kind::QuotaExceeded),
            (507, "ErrorQuotaExceeded", Kind::QuotaExceeded),
            (400, "ErrorQuotaExceeded", Kind::QuotaExceeded),
            (500, "ErrorCorruptData", Kind::ItemCorrupt),
            (400, "ErrorInvalidRecipients", Kind::ItemCorrupt),
            (400, "ErrorCannotOpenFileAttachment", Kind::ItemCorrupt),
            (409, "ErrorFolderExists", Kind::Conflict),
            (412, "ErrorIrresolvableConflict", Kind::Conflict),
            (423, "resourceLocked", Kind::Locked),
            (400, "ErrorMessageSizeExceeded", Kind::TooLarge),
            (400, "UnableToDeserializePostBody", Kind::BadRequest),
            (501, "NotImplemented", Kind::BadRequest),
        ] {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"m"}}}}"#);
            let refusal = judged(&of_mailbox(), status, &[], &body);
            assert_eq!(refusal.error.kind(), kind, "{status} {code}");
            assert_eq!((refusal.error.status(), refusal.error.code()), (Some(status), Some(code)));
            let passes = (kind == Kind::ItemCorrupt).then_some(Fault::Doubtful);
            assert_eq!(refusal.fault, passes, "{status} {code}");
        }
        assert_eq!(
            judged(&of_directory(), 404, &[], r#"{"error":{"code":"ResourceNotFound"}}"#).error.kind(),
            Kind::NotFound
        );
        let post = Request::post("/users/u/messages".into(), Scope::mailbox("u"), &serde_json::json!({}));
        let invalid = judged(&post, 400, &[], r#"{"error":{"code":"ErrorInvalidRecipients"}}"#);
        assert_eq!(invalid.error.kind(), Kind::BadRequest, "of what we wrote");
    }

    #[test]
    fn the_most_specific_known_code_counts() {
        for (body, kind, code) in [
            (
                r#"{"error":{"code":"BadRequest","innerError":{"code":"SyncStateNotFound"}}}"#,
                ErrorKind::Resync,
                Some("SyncStateNotFound"),
            ),
            (
                r#"{"error":{"code":"ErrorAccessDenied","innererror":{"code":"whatever","innererror":{"code":"deep"}}}}"#,
                ErrorKind::Denied,
                Some("ErrorAccessDenied"),
            ),
            (
                r#"{"error":{"code":"","details":[{"code":"ErrorQuotaExceeded"}]}}"#,
                ErrorKind::QuotaExceeded,
                Some("ErrorQuotaExceeded"),
            ),
            (r#"{"error":"accessDenied","error_description":"words"}"#, ErrorKind::Denied, Some("accessDenied")),
            (r#"{"error":{"code":"a","innerError":{"code":"b"}}}"#, ErrorKind::BadRequest, Some("b")),
            (r#"{"error":{"code":"alice@contoso.com said: no"}}"#, ErrorKind::BadRequest, None),
            (r#"{"error":[]}"#, ErrorKind::BadRequest, None),
            ("<html>", ErrorKind::BadRequest, None),
            ("", ErrorKind::BadRequest, None),
        ] {
            let error = judged(&of_mailbox(), 400, &[], body).error;
            assert_eq!((error.kind(), error.code()), (kind, code), "{body}");
        }
        let mut nested = r#"{"code":"ErrorAccessDenied"}"#.to_owned();
        for _ in 0..100 {
            nested = format!(r#"{{"innerError":{nested}}}"#);
        }
        assert_eq!(judged(&of_mailbox(), 400, &[], &format!(r#"{{"error":{nested}}}"#)).error.code(), None);
    }

    #[test]
    fn words_decide_if_there_is_no_code() {
        let delta =
            r#"{"error":{"code":"BadRequest","message":"Parameter 'DeltaToken' not supported for this request."}}"#;
        assert_eq!(judged(&of_mailbox(), 400, &[], delta).error.kind(), ErrorKind::DeltaUnsupported);
        let io = r#"{"error":{"code":"x","message":"IO error during request payload read."}}"#;
        assert_eq!(judged(&of_mailbox(), 400, &[], io).fault, Some(Fault::Broken));
    }

    #[test]
    fn a_refusal_for_lack_of_capacity_is_recognised_in_all_its_forms() {
        let seconds = |n| Some(Fault::Throttled(Some(Duration::from_secs(n))));
        let throttled = r#"{"error":{"code":"ApplicationThrottled","message":"over its MailboxConcurrency limit"}}"#;
        let old = r#"{"error":{"code":"UnknownError","message":""}}"#;
        for (status, headers, body, fault) in [
            (429, &[("retry-after", "7")][..], throttled, seconds(7)),
            (429, &[("retry-after", "7")], old, seconds(7)),
            (429, &[], "", Some(Fault::Throttled(None))),
            (403, &[], throttled, Some(Fault::Throttled(None))),
            (509, &[], "", Some(Fault::Throttled(None))),
            (503, &[("retry-after", "9")], "", seconds(9)),
            (503, &[], "", Some(Fault::Broken)),
            (429, &[("retry-after", "7"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "31")], "", seconds(31)),
            (429, &[("retry-after", "7"), ("ratelimit-remaining", "5"), ("ratelimit-reset", "31")], "", seconds(7)),
            (
                429,
                &[("date", "Wed, 21 Oct 2026 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2026 07:30:00 GMT")],
                "",
                seconds(120),
            ),
        ] {
            let refusal = judged(&of_mailbox(), status, headers, body);
            assert_eq!(refusal.fault, fault, "{status} {headers:?} {body}");
            assert_eq!(refusal.ambiguous, refusal.fault == Some(Fault::Broken));
        }
    }

    #[test]
    fn a_refusal_concerns_the_mailbox_unless_it_names_a_wider_limit() {
        let affected = |request: Request, scope: &'static str| {
            judged(&request, 429, &[("x-ms-throttle-scope", scope)], "").affected
        };
        assert_eq!(affected(of_mailbox(), "Tenant_Application/ReadWrite/app/tenant"), Affected::Tenant);
        assert_eq!(affected(of_mailbox(), "Application/Read/app"), Affected::Tenant);
        assert_eq!(affected(of_mailbox(), "Mailbox_Application/Read/app/u"), Affected::Scope);
        assert_eq!(judged(&of_mailbox(), 429, &[], "").affected, Affected::Scope);
        assert_eq!(
            affected(of_directory(), "Tenant_Application/ReadWrite/app/tenant"),
            Affected::Scope,
            "the directory's own"
        );
    }

    #[test]
    fn a_status_decides_if_no_code_does() {
        let kind = |status| judged(&of_mailbox(), status, &[], "<html>").error.kind();
        let kinds = [301, 401, 403, 404, 409, 410, 412, 413, 423, 418, 500, 599].map(kind);
        use ErrorKind as K;
        let expected = [
            K::Malformed,
            K::SignIn,
            K::Denied,
            K::NotFound,
            K::Conflict,
            K::Resync,
            K::Conflict,
            K::TooLarge,
            K::Locked,
            K::BadRequest,
            K::Unavailable,
            K::Unavailable,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn an_error_names_the_request_and_not_what_it_was_about() {
        let body = r#"{"error":{"code":"ErrorItemNotFound","message":"no mail 'Budget' of alice@contoso.com"}}"#;
        let error =
            judged(&of_mailbox().labelled("reading a message"), 404, &[("request-id", "93b6f17e-1")], body).error;
        let text = "reading a message was not found (status 404, code ErrorItemNotFound, request 93b6f17e-1)";
        assert_eq!(error.to_string(), text);
        assert!(!format!("{error:?}").contains("alice"));
        assert_eq!(error.detail(), Some("no mail 'Budget' of alice@contoso.com"));
        let strange = judged(&of_mailbox(), 404, &[("request-id", "alice@contoso.com")], body).error;
        assert_eq!(strange.request_id(), None);
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "ä".repeat(2_000));
        assert_eq!(judged(&of_mailbox(), 400, &[], &long).error.detail().unwrap().len(), 1_000);
    }
}
