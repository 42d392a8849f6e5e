//! How much is too much.

/// The limits of the service.
#[derive(Clone, Debug, Default)]
pub struct Limits {}
