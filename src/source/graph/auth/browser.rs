//! Signing in with a browser on this machine (RFC 8252; Entra: authorization code flow). The browser returns to a port
//! on loopback with a code. The code is worthless without the verifier, which never leaves this process (PKCE, RFC
//! 7636).

use super::{SignedIn, delegated_scope, oauth, remember};
use crate::format::crypto::random;
use crate::source::graph::connection::Connection;
use crate::source::graph::error::{ErrorKind, GraphError};
use crate::source::graph::http::Http;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;
use zeroize::Zeroizing;

/// How long the person may take to sign in.
const PATIENCE: Duration = Duration::from_secs(600);
/// How long a browser may take to send a request, and how many bytes the request may have.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
const REQUEST_BYTES_MAX: usize = 16 << 10;

/// What the browser returned with.
enum Return {
    Code(Zeroizing<String>),
    Refused { word: String, description: String },
}

/// Signs a person in. Calls `open` with the page to show in a browser on this machine, waits until the browser returns,
/// and stores the sign-in in the token cache of `connection`.
///
/// # Errors
/// [`ErrorKind::SignIn`] if the person declined, was refused or took too long. [`GraphError::detail`] has the service's
/// words.
pub async fn sign_in(connection: &Connection, open: impl FnOnce(&Url)) -> Result<SignedIn, GraphError> {
    super::cache_of(connection)?;
    let http = Http::new(connection)?;
    let local = |error: io::Error| {
        GraphError::new(ErrorKind::SignIn, "sign-in")
            .explained("there is no free port for the browser to return to".into())
            .with(error)
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(local)?;
    // The service accepts `http://localhost` with any port (Entra: redirect URI restrictions, localhost exceptions).
    let redirect_uri = format!("http://localhost:{}", listener.local_addr().map_err(local)?.port());
    let verifier = Zeroizing::new(URL_SAFE_NO_PAD.encode(random::<32>()));
    let state = URL_SAFE_NO_PAD.encode(random::<16>());
    let client_id = connection.credential.client_id();
    let scope = delegated_scope(connection);

    let mut page = Url::parse(&connection.endpoints.oauth(&connection.tenant_id, "authorize"))
        .expect("the endpoint is a URL, and so is it with a path");
    page.query_pairs_mut().extend_pairs([
        ("client_id", client_id),
        ("response_type", "code"),
        ("redirect_uri", &redirect_uri),
        ("response_mode", "query"),
        ("scope", &scope),
        ("state", &state),
        ("code_challenge", &URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))),
        ("code_challenge_method", "S256"),
        ("prompt", "select_account"),
    ]);
    open(&page);

    let returned = timeout(PATIENCE, wait_for_browser(&listener, &state)).await;
    let late = || GraphError::new(ErrorKind::SignIn, "sign-in").explained("nobody signed in in time".into());
    let code = match returned.map_err(|_| late())?.map_err(local)? {
        Return::Code(code) => code,
        Return::Refused { word, description } => {
            let is_declined = word == "access_denied";
            let why = if is_declined { "the sign-in was declined" } else { "the service refused the sign-in" };
            return Err(GraphError::new(ErrorKind::SignIn, "sign-in").explained(why.into()).detailed(&description));
        }
    };
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", client_id),
        ("scope", &*scope),
        ("code", &*code),
        ("redirect_uri", &*redirect_uri),
        ("code_verifier", &*verifier),
    ];
    let url = connection.endpoints.oauth(&connection.tenant_id, "token");
    remember(connection, oauth::token(&http, &connection.retry, &url, &form).await?)
}

/// Answers requests until a browser returns from the sign-in that `state` identifies.
///
/// Other requests may come: for an icon, from a program that looks what is listening here, or from somebody who tries
/// to pass off their own sign-in as this one. Browsers also open connections that they never use.
async fn wait_for_browser(listener: &TcpListener, state: &str) -> io::Result<Return> {
    let mut visits = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let state = state.to_owned();
                visits.spawn(async move { timeout(REQUEST_TIME_MAX, visit(stream, &state)).await });
            }
            Some(visit) = visits.join_next() => {
                if let Ok(Ok(Ok(Some(returned)))) = visit {
                    return Ok(returned);
                }
            }
        }
    }
}

/// Answers one request. Returns its result if it comes from our own sign-in.
async fn visit(mut stream: TcpStream, state: &str) -> io::Result<Option<Return>> {
    let returned = read_return(&request_line(&mut stream).await?, state);
    let (status, text) = match &returned {
        Some(Return::Code(_)) => ("200 OK", "You are signed in. You may close this window."),
        Some(Return::Refused { .. }) => ("200 OK", "You are not signed in. You may close this window."),
        None => ("404 Not Found", "There is nothing here."),
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}",
        text.len()
    );
    // If the browser does not wait for the answer, its result still counts.
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        let _ = stream.shutdown().await;
    }
    Ok(returned)
}

/// Reads the head of a request, and returns its first line.
async fn request_line(stream: &mut TcpStream) -> io::Result<Zeroizing<String>> {
    let mut head = Zeroizing::new(Vec::with_capacity(REQUEST_BYTES_MAX));
    // Read the whole head. Otherwise closing the connection would reset it before the browser reads the answer.
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        if head.len() >= REQUEST_BYTES_MAX || stream.read_buf(&mut *head).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    Ok(Zeroizing::new(String::from_utf8_lossy(line).into_owned()))
}

/// Returns the result in `GET /?code=...&state=... HTTP/1.1`, if it comes from our own sign-in.
fn read_return(line: &str, state: &str) -> Option<Return> {
    let target = line.strip_prefix("GET ")?.split(' ').next()?;
    let url = Url::parse("http://localhost").ok()?.join(target).ok()?;
    let value = |name: &str| url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
    if url.path() != "/" || verify_slices_are_equal(value("state")?.as_bytes(), state.as_bytes()).is_err() {
        return None;
    }
    match (value("code"), value("error")) {
        (_, Some(word)) => Some(Return::Refused { word, description: value("error_description").unwrap_or_default() }),
        (Some(code), None) => Some(Return::Code(Zeroizing::new(code))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> Option<String> {
        match read_return(line, "s3") {
            Some(Return::Code(code)) => Some(code.to_string()),
            _ => None,
        }
    }

    #[test]
    fn only_our_own_sign_in_comes_back() {
        assert_eq!(code("GET /?code=a%2Bb&state=s3&session_state=x HTTP/1.1").as_deref(), Some("a+b"));
        for line in [
            "GET /?code=evil&state=other HTTP/1.1",
            "GET /?code=evil HTTP/1.1",
            "POST /?code=evil&state=s3 HTTP/1.1",
            "GET /favicon.ico?code=evil&state=s3 HTTP/1.1",
            "GET //elsewhere/x?code=evil&state=s3 HTTP/1.1",
            "GET /?state=s3 HTTP/1.1",
            "GET",
            "",
        ] {
            assert_eq!(code(line), None, "{line}");
        }
        let refused = read_return("GET /?error=access_denied&error_description=no%20way&state=s3 HTTP/1.1", "s3");
        assert!(matches!(refused, Some(Return::Refused { word, description })
            if word == "access_denied" && description == "no way"));
    }

    #[tokio::test]
    async fn other_requests_are_answered_and_do_not_end_the_wait() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let ask = |line: &'static str| async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{line}\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let browser = async {
            drop(TcpStream::connect(address).await.unwrap());
            assert!(ask("GET /favicon.ico HTTP/1.1").await.starts_with("HTTP/1.1 404"));
            assert!(ask("GET /?code=evil&state=x HTTP/1.1").await.starts_with("HTTP/1.1 404"));
            assert!(ask("GET /?code=good&state=s3 HTTP/1.1").await.starts_with("HTTP/1.1 200"));
        };
        let (returned, ()) = tokio::join!(wait_for_browser(&listener, "s3"), browser);
        assert!(matches!(returned.unwrap(), Return::Code(code) if *code == "good"));
    }
}
