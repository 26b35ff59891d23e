//! The board's kernel has what the board's kernel.config says that it must.

use super::{Bench, Case};
use crate::kernel_check;

pub fn cases() -> Vec<Case> {
    vec![Case::new("kernel", "options", options)]
}

fn options(bench: &Bench, _: &str) -> anyhow::Result<()> {
    kernel_check::must(&bench.guest.configuration(), Some(&bench.guest.board.name))
}
