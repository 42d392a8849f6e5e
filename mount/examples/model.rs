//! Mounts a generated tree: to try the mount out, to measure it, and for tests that kill a process.
//!
//! ```text
//! cargo run --release --example model -- DIR [--catalog] [--xattr] [--allow-other] [--threads N] [--folders N]
//!     [--files N]
//! ```
//!
//! Prints `ready` when DIR is usable. SIGUSR1 prints the requests since the last SIGUSR1; SIGINT and SIGTERM unmount.

#[path = "../tests/common/model.rs"]
mod model;

use model::{Model, Shelf, office};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::path::PathBuf;
use std::sync::Arc;
use strongroom_mount::{Operation, Options, Target, mount};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args_os().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("name a folder")?);
    let mut options = Options::default();
    let (mut catalog, mut folders, mut files) = (false, 10, 100);
    while let Some(argument) = arguments.next() {
        let mut number =
            || arguments.next().and_then(|n| n.into_string().ok()?.parse().ok()).ok_or("a number is missing");
        match argument.to_str() {
            Some("--catalog") => catalog = true,
            Some("--xattr") => options.xattr = true,
            Some("--allow-other") => options.allow_other = true,
            Some("--threads") => options.threads = number()?,
            Some("--folders") => folders = number()?,
            Some("--files") => files = number()?,
            _ => return Err(format!("unknown argument {argument:?}").into()),
        }
    }

    let model = Model::new(office(folders, files));
    let target = if catalog {
        Target::Catalog(Shelf::new(&[(1, "2026-11-21 22.00.00 everyone", &model)]))
    } else {
        Target::View(model)
    };
    // Block the signals before mounting: a signal in between must not end the process without unmounting.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    let mounted = Arc::new(mount(target, &directory, &options)?);
    println!("ready");

    let (unmounter, serving) = (mounted.unmounter(), Arc::downgrade(&mounted));
    std::thread::spawn(move || {
        let mut before = [0; Operation::ALL.len()];
        for signal in &mut signals {
            if signal == SIGUSR1 {
                let Some(mounted) = serving.upgrade() else { break };
                let now = Operation::ALL.map(|operation| mounted.requests().of(operation));
                let since: Vec<_> = Operation::ALL.iter().zip(now.iter().zip(before)).collect();
                for (operation, (now, before)) in since {
                    if *now > before {
                        print!("{} {}, ", operation.name(), now - before);
                    }
                }
                println!("total {}", now.iter().sum::<u64>() - before.iter().sum::<u64>());
                before = now;
            } else if let Err(error) = unmounter.unmount() {
                eprintln!("not unmounted: {error}");
            }
        }
    });
    mounted.wait();
    println!("unmounted: {:?}", mounted.unmounter().unmount()?);
    Ok(())
}
