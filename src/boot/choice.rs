//! What the plan needs: the configuration, the key, the store; and what it writes into the store.

use super::cmdline::Cmdline;
use super::plan::{self, Found, Plan, Why, Wish};
use crate::config::Config;
use crate::error::Result;
use crate::key::Key;
use crate::log;
use crate::stage::{Stage, Times};
use crate::store::device::Access;
use crate::store::{Store, Trusted, spec};

/// Turns rcsnap off where the command line cannot be changed.
const OFF: &str = "/etc/rcsnap.off";

/// What was chosen, and what it was chosen from.
pub struct Choice {
    /// What to do.
    pub plan: Plan,
    /// The store, if there is one that can be opened.
    pub store: Option<Store>,
    /// The key of this boot, if it was needed.
    pub key: Option<Key>,
}

/// What the command line and the file system ask for.
#[must_use]
pub fn wish(line: &Cmdline) -> Wish {
    match line.left_alone() {
        Some(by) => Wish::Off(by),
        None if super::exists(OFF) => Wish::Off(OFF.into()),
        None if line.get("rcsnap") == Some("refresh") => Wish::Refresh,
        None => Wish::Auto,
    }
}

/// Takes the key, opens the store and decides.
///
/// # Errors
/// A fault that was asked for.
pub fn choose(line: &Cmdline, config: &Config, times: &mut Times) -> Result<Choice> {
    let wish = wish(line);
    if let Wish::Off(_) = wish {
        // Neither is touched: turned off means that nothing of rcsnap can stand in the way.
        let plan = plan::decide(&wish, &Found::Nothing(String::new()), &Key::of(Vec::new()));
        return Ok(Choice { plan, store: None, key: None });
    }
    times.enter(Stage::Key)?;
    let key = Key::take(config, line.words());
    times.enter(Stage::Plan)?;
    let mut store = spec::open(config, Access::Write);
    if let Ok(store) = &mut store {
        store.count_boot();
    }
    let found = match &store {
        Ok(store) => Found::Store(store.history()),
        Err(error) => Found::Nothing(error.to_string()),
    };
    let plan = plan::decide(&wish, &found, &key);
    Ok(Choice { plan, store: store.ok(), key: Some(key) })
}

impl Choice {
    /// The image that the plan wants to restore. One that is not what the directory says is burned, and the
    /// plan is made anew.
    #[must_use]
    pub fn candidate(&mut self) -> Option<Trusted> {
        let Plan::Restore { slot } = self.plan else { return None };
        let (store, key) = (self.store.as_mut()?, self.key.as_ref()?);
        match store.trust(slot, &key.hash) {
            Ok(trusted) => Some(trusted),
            Err(error) => {
                log!(Warning, "{error}");
                note(store.burn(slot));
                self.plan =
                    Plan::Cold { why: Why::Burned, capture: plan::may_capture(store.history(), &key.hash) };
                None
            }
        }
    }

    /// Writes what a cold boot has to say to the store, and closes it: the scripts find it unused.
    pub fn close(&mut self) {
        let Some(mut store) = self.store.take() else { return };
        let Plan::Cold { why, capture } = &self.plan else { return };
        note(match why {
            Why::Unconfirmed { slot, .. } => store.fail(*slot).map(drop),
            // A capture writes the count of boots with its own note.
            _ if *capture => Ok(()),
            _ => store.settle(),
        });
    }
}

/// A note that cannot be written is told and changes nothing: the boot goes on.
pub fn note(result: Result<()>) {
    if let Err(error) = result {
        log!(Warning, "{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::wish;
    use crate::boot::cmdline::Cmdline;
    use crate::boot::plan::Wish;

    #[test]
    fn off_is_stronger_than_refresh() {
        assert_eq!(wish(&Cmdline::parse("quiet")), Wish::Auto);
        assert_eq!(wish(&Cmdline::parse("rcsnap=refresh")), Wish::Refresh);
        assert_eq!(
            wish(&Cmdline::parse("rcsnap=refresh single")),
            Wish::Off("\"single\" on the command line".into())
        );
    }
}
