//! `strongroom webdav`

use super::error::Exit;
use super::{Session, allocator, mount, output, reader};
use crate::serve::webdav::Server;
use crate::view::{Layout, RepositoryCatalog, SnapshotView};
use anyhow::Result;
use clap::Args;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use strongroom_mount::Target;
use tokio::sync::oneshot;

/// Serves all snapshots, or one, over WebDAV: for macOS, Windows and other machines without FUSE
#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom webdav\n  \
    strongroom webdav --snapshot latest:mail --listen 127.0.0.1:8080\n\n\
    From another machine: `ssh -L 4918:127.0.0.1:4918 SERVER`, then connect to http://127.0.0.1:4918/ there (macOS: \
    Finder, Go, Connect to Server; Windows: `net use S: http://127.0.0.1:4918/`). Ctrl-C stops the server.")]
pub struct Webdav {
    /// Listens at this address; port 0 takes any free port. Everybody who can reach the address can read everything
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:4918")]
    listen: SocketAddr,
    /// Serves only this snapshot
    #[arg(long, value_name = "SNAPSHOT")]
    snapshot: Option<OsString>,
}

impl Webdav {
    pub fn run(self, session: &Session) -> Result<Exit> {
        allocator::bound();
        let repository = session.open()?;
        mount::warn_of_missing(session, &repository)?;
        let reader = reader(&repository);
        let (target, id) = match &self.snapshot {
            None => {
                let catalog = RepositoryCatalog::new(repository, reader, Layout::Both, None);
                (Target::Catalog(Arc::new(catalog)), None)
            }
            Some(asked) => {
                let selected = mount::one_snapshot(&repository, asked)?;
                let view = SnapshotView::new(reader, selected.id, selected.snapshot);
                (Target::View(Arc::new(view)), Some(selected.id))
            }
        };
        let server = Server::bind(self.listen, target, id)?;
        let end = interruption()?;
        self.announce(session, &server.url())?;
        server.run(end);
        Ok(Exit::Done)
    }

    fn announce(&self, session: &Session, url: &str) -> Result<()> {
        if !self.listen.ip().is_loopback() {
            output::message(format_args!(
                "warning: everybody who can reach {} can read everything in this backup, unencrypted and without a \
                 password",
                self.listen
            ));
        }
        let output = session.output();
        match output.json {
            true => output.json(&json!({ "url": url }))?,
            false => output::line(url)?,
        }
        output.remark("Every user of this machine can read what is served; Ctrl-C stops the server");
        Ok(())
    }
}

/// Returns a future that ends on Ctrl-C, SIGTERM or SIGHUP. From now on these signals no longer end the process.
fn interruption() -> Result<impl Future<Output = ()>> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        signals.forever().next();
        let _ = sender.send(());
    });
    Ok(async {
        let _ = receiver.await;
    })
}
