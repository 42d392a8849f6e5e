//! `strongroom completions` and `strongroom man`: both are generated from the definitions of the commands.

use super::Cli;
use super::error::Exit;
use anyhow::{Context, Result};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;
use std::path::PathBuf;

/// Writes a script for your shell that completes commands and options
#[derive(Args)]
#[command(after_help = "Example:\n  strongroom completions bash > /etc/bash_completion.d/strongroom")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<Exit> {
        // Generated into memory first, because the generator panics if it cannot write.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "strongroom", &mut script);
        std::io::stdout().lock().write_all(&script)?;
        Ok(Exit::Done)
    }
}

/// Writes the manual page, or one page for each command into a folder
#[derive(Args)]
#[command(after_help = "Examples:\n  strongroom man | man -l -\n  strongroom man --dir /usr/local/share/man/man1")]
pub struct Man {
    /// Writes strongroom.1, strongroom-backup.1 and so on into DIR
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Man {
    pub fn run(self) -> Result<Exit> {
        let command = Cli::command();
        match self.dir {
            Some(dir) => {
                std::fs::create_dir_all(&dir)
                    .and_then(|()| clap_mangen::generate_to(command, &dir))
                    .with_context(|| format!("could not write manual pages to {}", dir.display()))?;
            }
            None => clap_mangen::Man::new(command).render(&mut std::io::stdout().lock())?,
        }
        Ok(Exit::Done)
    }
}
