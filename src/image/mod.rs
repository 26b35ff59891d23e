//! The image: bytes only, no system call here (the host, the fuzzers and the lab use it too).

pub mod section;
