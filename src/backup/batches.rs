//! Collects the steps of a walk in batches. A batch holds neighbouring items, so that they become neighbours in
//! storage.

use super::unchanged::Step;
use crate::source::ItemKind;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::ops::ControlFlow::{self, Break, Continue};

/// Maximum number of steps in a batch.
const STEPS_MAX: usize = 64;
const BYTES_MAX: u64 = 1 << 20;
/// Maximum number of batches between the walk and the trees.
pub(super) const UNDERWAY_MAX: usize = 256;

pub(super) struct Batch {
    pub number: u64,
    pub steps: Vec<Step>,
    /// Released when the trees have taken the batch.
    pub ticket: Ticket,
}

/// A place among the batches in progress.
pub(super) struct Ticket(Receiver<()>);

impl Drop for Ticket {
    fn drop(&mut self) {
        let _ = self.0.try_recv();
    }
}

/// Collects steps, and sends them in batches.
pub(super) struct Batches<'a> {
    output: &'a Sender<Batch>,
    take_ticket: Sender<()>,
    tickets: Receiver<()>,
    number: u64,
    steps: Vec<Step>,
    bytes: u64,
}

impl<'a> Batches<'a> {
    pub fn new(output: &'a Sender<Batch>) -> Self {
        let (take_ticket, tickets) = bounded(UNDERWAY_MAX);
        Self { output, take_ticket, tickets, number: 0, steps: Vec::new(), bytes: 0 }
    }

    /// Adds a step. Returns `Break` if nobody takes the batches any more.
    pub fn push(&mut self, step: Step) -> ControlFlow<()> {
        if let Step::Item { item, .. } = &step
            && let ItemKind::File { content, .. } = &item.kind
        {
            self.bytes += content.len_hint() + item.path.len() as u64;
        }
        self.steps.push(step);
        if self.steps.len() < STEPS_MAX && self.bytes < BYTES_MAX { Continue(()) } else { self.send() }
    }

    /// Sends the steps that were not sent yet.
    pub fn send(&mut self) -> ControlFlow<()> {
        self.bytes = 0;
        if self.steps.is_empty() {
            return Continue(());
        }
        if self.take_ticket.send(()).is_err() {
            return Break(());
        }
        let steps = std::mem::take(&mut self.steps);
        let batch = Batch { number: self.number, steps, ticket: Ticket(self.tickets.clone()) };
        self.number += 1;
        if self.output.send(batch).is_err() { Break(()) } else { Continue(()) }
    }
}
