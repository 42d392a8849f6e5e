//! Shows the progress of a long command, and stops the command on a signal.

use super::output::{self, Output};
use crate::backup::Progress;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time between two updates of the line on a terminal. Without a terminal, a line is printed every [`PLAIN_INTERVAL`].
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
const PLAIN_INTERVAL: Duration = Duration::from_secs(30);

/// Shortest pause that is shown.
const PAUSE_SHOWN_MIN: Duration = Duration::from_secs(3);

/// Progress that is being shown.
pub struct Shown {
    /// The work reports its progress here.
    pub progress: Arc<Progress>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Shown {
    /// Starts to show progress, unless `--quiet` is given.
    pub fn start(output: Output, what: &'static str) -> Self {
        Self::with_pauses(output, what, || None)
    }

    /// Like [`Shown::start`], for work that has to wait now and then. `pause` returns how long the current pause takes.
    pub fn with_pauses(
        output: Output,
        what: &'static str,
        pause: impl Fn() -> Option<Duration> + Send + 'static,
    ) -> Self {
        let progress = Arc::new(Progress::default());
        let ended = Arc::new(AtomicBool::new(false));
        let thread = (!output.quiet).then(|| {
            let (progress, ended) = (progress.clone(), ended.clone());
            std::thread::spawn(move || show(what, &progress, &pause, &ended))
        });
        Self { progress, ended, thread }
    }

    /// Removes the line.
    pub fn finish(self) {}
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn show(what: &str, progress: &Progress, pause: &dyn Fn() -> Option<Duration>, ended: &AtomicBool) {
    let started = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let interval = if terminal { DRAW_INTERVAL } else { PLAIN_INTERVAL };
    let bar = terminal.then(|| {
        let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("a template that indicatif knows");
        ProgressBar::new_spinner().with_style(style)
    });
    loop {
        std::thread::park_timeout(interval);
        if ended.load(Ordering::Relaxed) {
            break;
        }
        let items = progress.items.load(Ordering::Relaxed);
        let done = progress.bytes.load(Ordering::Relaxed);
        let rate = (done as f64 / started.elapsed().as_secs_f64()) as u64;
        let current = match pause().filter(|pause| *pause >= PAUSE_SHOWN_MIN) {
            Some(pause) => format!("waiting for Microsoft 365's limits, goes on in {} s", pause.as_secs()),
            None => output::path(&progress.current.lock()),
        };
        let line = format!("{what}: {items} items, {}, {}/s  {current}", output::bytes(done), output::bytes(rate));
        match &bar {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => output::message(line),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Returns a flag that Ctrl-C or SIGTERM sets. A second signal ends the process at once.
pub fn cancel_on_signals() -> Result<Arc<AtomicBool>> {
    let cancel = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The order matters: at the first signal the flag is still unset, so the process does not end and only the flag
        // is set.
        signal_hook::flag::register_conditional_shutdown(signal, 130, cancel.clone())
            .and_then(|_| signal_hook::flag::register(signal, cancel.clone()))
            .context("could not listen to signals")?;
    }
    Ok(cancel)
}
