//! `strongroom restore`
use super::Session;
use super::error::Exit;
use anyhow::Result;
use clap::Args;
/// R
#[derive(Args)]
pub struct Restore {}
impl Restore {
    pub fn run(self, _session: &Session) -> Result<Exit> {
        Ok(Exit::Failed)
    }
}
