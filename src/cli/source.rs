//! Where a command finds its configuration, its store and its image.

use std::path::Path;

use super::args::{Form, Takes};
use crate::boot::status;
use crate::config::Config;
use crate::error::Result;
use crate::image::Source;
use crate::log;
use crate::store::device::{Access, Device};
use crate::store::notes::State;
use crate::store::{Store, spec};

/// What may be allowed beyond the configuration.
pub const ALLOW: Takes = Takes {
    name: "allow",
    form: Form::Line,
    about: "a line as if it stood at the end of /etc/rcsnap.conf; may be given again",
};

/// The configuration of the running system, as the boot saw it. Its warnings are told.
#[must_use]
pub fn config() -> Config {
    config_with("")
}

/// The same, as if these lines stood at its end.
#[must_use]
pub fn config_with(lines: &str) -> Config {
    let config = Config::load_with(lines, status::words().words());
    for warning in &config.warnings {
        log!(Warning, "{warning}");
    }
    config
}

/// The store of the configuration.
///
/// # Errors
/// None is configured, or it cannot be opened.
pub fn store(access: Access) -> Result<Store> {
    spec::open(&config(), access)
}

/// Does something with an image: the file of this name, or else the newest image of the store. `None` when the
/// store has none.
///
/// # Errors
/// It cannot be opened, or the work's own.
pub fn with_image<T>(
    file: Option<&str>,
    work: impl FnOnce(&mut dyn Source) -> Result<T>,
) -> Result<Option<T>> {
    if let Some(file) = file {
        return work(&mut Device::open(Path::new(file), Access::Read)?).map(Some);
    }
    let store = store(Access::Read)?;
    let newest = store.slots().iter().enumerate().filter(|(_, slot)| slot.state == State::Published);
    let Some((newest, _)) = newest.max_by_key(|(_, slot)| slot.published) else { return Ok(None) };
    work(&mut store.source(newest)?).map(Some)
}
