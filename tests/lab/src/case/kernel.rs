//! The kernels of the boards have what board/kernel.config and the boards' own say that they must; and that this
//! would be seen.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::{board, kernel, kernel_check, toolchain};

/// All boards; the number is how many options were looked for.
pub fn check() -> Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(toolchain::workspace().join("board"))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            count += of_board(&name).with_context(|| name)?;
        }
    }
    Ok(count)
}

fn of_board(name: &str) -> Result<usize> {
    let place = kernel::fetch(&board::load(name)?)?.configuration();
    kernel_check::must(&place, Some(name))?;
    let config = fs::read_to_string(&place)?;
    let wanted = kernel_check::wanted(Some(name))?;
    let lacking = tempfile::NamedTempFile::new()?;
    for option in wanted.iter().filter(|option| option.required) {
        let of = format!("CONFIG_{}=", option.name);
        let others: String =
            config.lines().filter(|line| !line.starts_with(&of)).map(|line| format!("{line}\n")).collect();
        fs::write(lacking.path(), others)?;
        let told = kernel_check::must(lacking.path(), Some(name)).err().map(|error| error.to_string());
        ensure!(
            told.as_deref() == Some(&format!("the kernel lacks {}", option.name)),
            "{}: {told:?}",
            option.name
        );
    }
    Ok(wanted.len())
}
