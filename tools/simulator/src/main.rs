//! `strongroom-simulator`: starts a tenant on loopback.

fn main() {}
