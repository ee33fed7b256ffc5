//! demo and bench.
fn main() {}
