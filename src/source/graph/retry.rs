//! Whether and when to ask again.
