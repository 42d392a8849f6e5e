//! What the service would send when a meeting begins, changes or ends. It is only counted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::server::State;
use crate::tenant::Appointment;

fn addresses(attendees: &[Value]) -> BTreeSet<String> {
    let address = |attendee: &Value| attendee["emailAddress"]["address"].as_str().unwrap_or_default().to_lowercase();
    attendees.iter().map(address).collect()
}

/// Counts what the service sends when the attendees of a meeting change from `before` to `after`: an invitation to each
/// new one, an update to each that stays, a cancellation to each that is gone.
pub fn send(state: &State, before: &[Value], after: &[Value]) {
    let (before, after) = (addresses(before), addresses(after));
    let counters = &state.counters;
    let add = |counter: &AtomicU64, count: usize| counter.fetch_add(count as u64, Ordering::Relaxed);
    add(&counters.invitations_sent, after.difference(&before).count());
    add(&counters.updates_sent, after.intersection(&before).count());
    add(&counters.cancellations_sent, before.difference(&after).count());
}

/// Counts the updates that a change of a meeting sends.
pub fn send_updates(state: &State, appointment: &Appointment) {
    if !appointment.is_of_others() {
        send(state, appointment.attendees(), appointment.attendees());
    }
}

/// Counts the cancellations that the end of a meeting sends. Who leaves a meeting of others cancels nothing.
pub fn send_cancellations(state: &State, appointment: &Appointment) {
    if !appointment.is_of_others() {
        send(state, appointment.attendees(), &[]);
    }
}
