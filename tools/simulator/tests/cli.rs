//! The binary, as people start it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_strongroom-simulator");

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn first_line(arguments: &[&str]) -> (Running, String) {
    let mut child = Command::new(BINARY).args(arguments).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    (Running(child), line)
}

#[test]
fn help_ends_with_an_example() {
    let output = Command::new(BINARY).arg("--help").output().expect("the binary starts");
    let help = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success());
    assert!(
        help.split_once("Example:\n").is_some_and(|(_, example)| example.contains("  strongroom-simulator ")),
        "{help}"
    );
}

#[test]
fn what_it_prints_leads_to_it() {
    let (_running, line) = first_line(&["--port", "0", "--users", "2", "--messages", "1", "--json"]);
    let document: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(document["users"].as_array().map(Vec::len), Some(2));
    let url = format!("{}/control/application", document["url"].as_str().expect("a URL"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let answer: Value = runtime.block_on(async { reqwest::get(url).await?.json().await }).expect("an answer");
    assert_eq!(answer["clientSecret"], document["clientSecret"]);
    let (_running, line) = first_line(&["--port", "0", "--messages", "1"]);
    assert!(line.starts_with("# A simulated tenant at http://127.0.0.1:"), "{line}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let output = Command::new(BINARY).args(["--port", &port]).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(error.starts_with(&format!("Error: could not listen on port {port}\nCaused by: ")), "{error}");
}
