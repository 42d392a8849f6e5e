//! `strongroom-simulator`: a Microsoft 365 tenant on loopback, for safe experiments.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use serde_json::json;
use strongroom_simulator::{Certificate, Faults, Limits, Options, Organisation, Simulator, Switches};

/// Starts a Microsoft 365 tenant on loopback: sign-in, directory, Outlook mail, calendars, tasks and contacts, through the API of
/// Microsoft Graph.
///
/// Nothing leaves the machine, and nothing is stored: when you stop it with Ctrl-C, the tenant is gone.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLE)]
struct Arguments {
    /// Port on 127.0.0.1; 0 selects a free port
    #[arg(long, default_value_t = 8080, value_name = "PORT")]
    port: u16,
    /// Seed; the same seed gives the same people and mail
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of users with a mailbox
    #[arg(long, default_value_t = 3, value_name = "N")]
    users: usize,
    /// Number of messages in each mailbox
    #[arg(long, default_value_t = 200, value_name = "N")]
    messages: usize,
    /// Number of contacts in each mailbox
    #[arg(long, default_value_t = 20, value_name = "N")]
    contacts: usize,
    /// Number of events in the calendars of each mailbox
    #[arg(long, default_value_t = 20, value_name = "N")]
    events: usize,
    /// Number of tasks in the lists of each mailbox
    #[arg(long, default_value_t = 20, value_name = "N")]
    tasks: usize,
    /// Distribute the .eml files of a folder among the mailboxes instead of generating messages
    #[arg(long, value_name = "DIR", conflicts_with = "messages")]
    corpus: Option<PathBuf>,
    /// Add a user of every kind: shared mailbox, room, guest, without licence, over quota and so on
    #[arg(long)]
    every_kind: bool,
    /// Add a mailbox with names and bytes that break careless programs
    #[arg(long)]
    hurting: bool,
    /// Use other boundary strings in every download of a message, as Exchange does
    #[arg(long)]
    unstable_mime: bool,
    /// Throttle: `default` as the service does, `none`, or a JSON document of limits
    #[arg(long, default_value = "default", value_name = "LIMITS", value_parser = limits)]
    limits: Limits,
    /// Break requests: `none`, `bad-day` (one in 20), `bad-day:N` (one in N), or a JSON document of faults
    #[arg(long, default_value = "none", value_name = "FAULTS")]
    faults: FaultsArgument,
    /// Accept this certificate (PEM or DER) for sign-in, in addition to the secret
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Print a JSON document instead of a configuration
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  strongroom-simulator --users 5 --messages 1000 --every-kind > strongroom.toml &
  export SIMULATED_SECRET=$(sed -n 's/.*SIMULATED_SECRET=//p' strongroom.toml)
  strongroom --config strongroom.toml tenant users simulated";

/// The requested faults. Those of a bad day use the seed of the tenant.
#[derive(Debug, Clone)]
enum FaultsArgument {
    BadDay(u32),
    Given(Box<Faults>),
}

impl std::str::FromStr for FaultsArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            _ if text == "none" => Ok(Self::Given(Box::default())),
            _ if text == "bad-day" => Ok(Self::BadDay(20)),
            Some(("bad-day", one_in)) => one_in.parse().map(Self::BadDay).map_err(|error| error.to_string()),
            _ => serde_json::from_str(text).map(Self::Given).map_err(|error| error.to_string()),
        }
    }
}

fn limits(text: &str) -> Result<Limits, String> {
    match text {
        "default" => Ok(Limits::default()),
        "none" => Ok(Limits::none()),
        json => serde_json::from_str(json).map_err(|error| error.to_string()),
    }
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("Caused by: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { port, seed, users, messages, contacts, events, tasks, corpus, .. } = arguments;
    let Arguments { every_kind, hurting, unstable_mime, .. } = arguments;
    let faults = match arguments.faults {
        FaultsArgument::BadDay(one_in) => Faults::bad_day(seed, one_in),
        FaultsArgument::Given(faults) => *faults,
    };
    let certificates = match &arguments.certificate {
        Some(file) => vec![read_certificate(file)?],
        None => Vec::new(),
    };
    let simulator = Simulator::start(Options {
        port,
        organisation: Organisation { seed, users, messages, contacts, events, tasks, every_kind, hurting, corpus },
        limits: arguments.limits,
        faults,
        switches: Switches { unstable_mime, ..Switches::default() },
        certificates,
        ..Options::default()
    })?;
    println!("{}", if arguments.json { document(&simulator) } else { configuration(&simulator) });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(tokio::signal::ctrl_c())?;
    Ok(())
}

fn read_certificate(file: &Path) -> anyhow::Result<Certificate> {
    let bytes = std::fs::read(file).with_context(|| format!("could not read {}", file.display()))?;
    Certificate::new(&bytes).with_context(|| format!("could not use {}", file.display()))
}

fn document(simulator: &Simulator) -> String {
    let users: Vec<String> = simulator.tenant().users().iter().map(|user| user.principal_name()).collect();
    json!({
        "url": simulator.url(),
        "tenantId": simulator.tenant_id(),
        "clientId": simulator.client_id(),
        "clientSecret": simulator.client_secret(),
        "users": users,
    })
    .to_string()
}

/// Returns a configuration for Strongroom. It contains the secret, which is not really secret: whoever can reach the
/// port can do everything anyway.
fn configuration(simulator: &Simulator) -> String {
    let url = simulator.url();
    format!(
        "# A simulated tenant at {url}; {url}/control/ shows and changes it.\n\
         # export SIMULATED_SECRET={}\n\
         [tenants.simulated]\n\
         tenant_id = \"{}\"\n\
         client_id = \"{}\"\n\
         client_secret = {{ env = \"SIMULATED_SECRET\" }}\n\
         endpoints = {{ login = \"{url}\", graph = \"{url}\" }}",
        simulator.client_secret(),
        simulator.tenant_id(),
        simulator.client_id(),
    )
}
