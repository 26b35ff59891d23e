//! `cargo lab`: the host side of rcsnap.

fn main() {}
