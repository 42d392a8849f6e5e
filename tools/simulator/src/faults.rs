//! What goes wrong.

/// Faults by seed.
#[derive(Clone, Debug, Default)]
pub struct Faults {}
