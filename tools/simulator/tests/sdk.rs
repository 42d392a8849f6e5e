//! The simulator, held to account by Microsoft's own client: the Python SDK `msgraph-sdk`.
//!
//! `make test-sdk` installs the SDK and sets `STRONGROOM_SDK_PYTHON` to the interpreter that has it. Without it there
//! is nothing to run, and the test says so.

use std::process::Command;

use strongroom_simulator::{Options, Organisation, Simulator};

#[test]
fn the_official_sdk_finds_what_it_expects() {
    let Some(python) = std::env::var_os("STRONGROOM_SDK_PYTHON") else {
        eprintln!("skipped: STRONGROOM_SDK_PYTHON is not set; `make test-sdk` sets it");
        return;
    };
    let organisation = Organisation { users: 2, messages: 60, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).expect("a simulator");
    let status = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/sdk/test_sdk.py"))
        .env("SIMULATOR_URL", simulator.url())
        .env("SIMULATOR_TENANT", simulator.tenant_id())
        .env("SIMULATOR_CLIENT", simulator.client_id())
        .env("SIMULATOR_SECRET", simulator.client_secret())
        .status()
        .expect("the interpreter starts");
    assert!(status.success(), "the SDK found fault: {status}");
    let counters = simulator.counters();
    assert_eq!((counters.mails_sent, counters.invitations_sent), (0, 0));
}
