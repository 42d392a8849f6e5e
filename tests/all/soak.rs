//! Memory stays flat: fifty mailboxes and one giant message, by the real program.
//!
//! `make soak` runs it at full size; the ordinary suite at `STRONGROOM_SOAK_PERCENT` of that, a tenth if not set.
//! `STRONGROOM_SOAK_MAILBOXES` is the number of mailboxes.

use crate::common;

use common::{Lab, write};
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};
use strongroom_simulator::{NewMessage, Options, Organisation, Simulator};

const MAILBOXES: usize = 50;
const MESSAGES: usize = 20_000;
const GIANT_BYTES: usize = 150 << 20;
const MEMORY_KIB_MAX: u64 = 300 << 10;

#[test]
fn memory_stays_flat_whatever_the_organisation() {
    let messages = MESSAGES * number("STRONGROOM_SOAK_PERCENT", 10) / 100;
    let mailboxes = number("STRONGROOM_SOAK_MAILBOXES", MAILBOXES);
    let organisation = Organisation { users: mailboxes, messages, ..Organisation::default() };
    let simulator = Simulator::start(Options { organisation, ..Options::default() }).unwrap();
    let tenant = simulator.tenant();
    let user = tenant.users()[0].principal_name();
    tenant.add_message(&user, "inbox", NewMessage { mime: giant(GIANT_BYTES), ..NewMessage::default() }).unwrap();

    let lab = Lab::new();
    let url = simulator.url();
    let text = format!(
        "[tenants.contoso]\ntenant_id = \"{}\"\nclient_id = \"{}\"\nendpoints = {{ login = \"{url}\", graph = \"{url}\" }}\n\
         client_secret = {{ env = \"CONTOSO_SECRET\" }}\n[sets.everyone]\ntenant = \"contoso\"\nrecoverable_items = true\n",
        simulator.tenant_id(),
        simulator.client_id()
    );
    write(&lab.path("strongroom.toml"), text);
    for run in ["first", "second"] {
        let started = Instant::now();
        let mut command = lab.command(["backup", "--set", "everyone", "--json", "--quiet"]);
        command.env("STRONGROOM_CONFIG", lab.path("strongroom.toml"));
        command.env("CONTOSO_SECRET", simulator.client_secret());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut peak_kib = 0;
        while child.try_wait().unwrap().is_none() {
            peak_kib = peak_kib.max(high_water_kib(child.id()).unwrap_or(0));
            std::thread::sleep(Duration::from_millis(50));
        }
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let elapsed = started.elapsed();
        eprintln!("{run} run: {} in {elapsed:?}, peak {peak_kib} KiB", report["ledger"]);
        assert_eq!(report["ledger"]["enumerated"], mailboxes * messages + 1, "{}", report["ledger"]);
        assert!(peak_kib < MEMORY_KIB_MAX, "the {run} run took {peak_kib} KiB");
    }
}

/// Returns the number in a variable of the environment, or `default` if it is not set.
fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// Returns the peak memory of the process so far, in KiB, while it runs.
fn high_water_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// A mail with an attachment that does not repeat itself.
fn giant(len: usize) -> Vec<u8> {
    let mut mime =
        b"From: a@contoso.com\r\nSubject: giant\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n"
            .to_vec();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while mime.len() < len {
        for _ in 0..76 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            mime.push(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"[(state >> 58) as usize]);
        }
        mime.extend_from_slice(b"\r\n");
    }
    mime
}
