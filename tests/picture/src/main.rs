//! Prints an image as JSON. Registers are laid out as the processor has them, so only a program of that processor can
//! read them: the lab puts this one on a board.

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use picture::Picture;

fn main() -> Result<()> {
    let path = std::env::args_os().nth(1).context("usage: picture IMAGE")?;
    let picture = Picture::read(Path::new(&path))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    serde_json::to_writer(&mut out, &picture.view()?)?;
    Ok(out.flush()?)
}
