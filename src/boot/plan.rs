//! What this boot does: a pure function of the command line, the key and what the store remembers.
//!
//! The rules stand in their order in [`decide`], one a line; the first that matches holds:
//!
//! | found | boot | captures | written to the store |
//! |---|---|---|---|
//! | turned off, single user, another init | cold | no | nothing |
//! | no store | cold | no | nothing |
//! | an attempt that nobody confirmed | cold | no | failed attempt; the second in a row burns the slot |
//! | `rcsnap=refresh` | cold | yes, beyond the limits | - |
//! | a published image with this key | restore | - | armed |
//! | none, and the limits are not reached | cold | yes | - |
//! | none, and they are | cold | no | - |
//!
//! A boot that goes on cold after an attempt does not capture: what broke the restore may still be there,
//! and a board that boots well twice is worth more than a picture of it.

use std::fmt;

use crate::key::Key;
use crate::store::notes::{Directory, State};

/// Captures that are begun for one key until a restored boot is confirmed.
pub const CAPTURES_PER_KEY: usize = 3;
/// Captures that are begun in [`BOOTS`] boots, whatever their keys.
pub const CAPTURES_IN_BOOTS: usize = 5;
/// See [`CAPTURES_IN_BOOTS`].
pub const BOOTS: u32 = 20;

/// What the command line and the file system ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// `rcsnap=auto`, and the default.
    Auto,
    /// `rcsnap=refresh`: a cold boot that captures, whatever is in the store.
    Refresh,
    /// `rcsnap=off`, /etc/rcsnap.off, `single` and the like, with what turned it off.
    Off(String),
}

/// What the store holds, as far as it could be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    /// It was opened.
    Store(&'a Directory),
    /// None is configured, or it could not be opened, and why.
    Nothing(String),
}

/// What to do, and what to write into the store before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Restore the image in this slot.
    Restore {
        /// The slot.
        slot: usize,
    },
    /// Run the scripts.
    Cold {
        /// Why: the line on the console.
        why: Why,
        /// Whether to leave a watcher that captures.
        capture: bool,
    },
}

/// Why a boot is cold before anything was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// Turned off, by what.
    Off(String),
    /// No store, and why.
    NoStore(String),
    /// The attempt on this slot was not confirmed. The caller calls `Store::fail`.
    Unconfirmed {
        /// The slot.
        slot: usize,
        /// Whether this makes the second in a row, so that the slot is burned.
        burns: bool,
    },
    /// `rcsnap=refresh`.
    Refresh,
    /// No image at all.
    Empty,
    /// Only burned images have this key.
    Burned,
    /// There are images, and none has this key. What differs from the newest.
    OtherKey(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Off(by) => write!(f, "turned off by {by}"),
            Why::NoStore(cause) => write!(f, "no store: {cause}"),
            Why::Unconfirmed { slot, burns: false } => {
                write!(f, "the last restore of slot {slot} was not confirmed; one more will be tried")
            }
            Why::Unconfirmed { slot, burns: true } => {
                write!(f, "the last two restores of slot {slot} were not confirmed; it is burned")
            }
            Why::Refresh => f.write_str("a new image is asked for (rcsnap=refresh)"),
            Why::Empty => f.write_str("no image yet"),
            Why::Burned => f.write_str("the image with this key is burned"),
            Why::OtherKey(what) => write!(f, "no image with this key: changed since the last: {what}"),
        }
    }
}

impl Why {
    /// Whether it is that there is no image to restore, so that one is captured within the limits.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Why::Empty | Why::Burned | Why::OtherKey(_))
    }
}

/// What is said when the limits stand against a capture.
pub const LIMITED: &str = "; no capture: too many were begun (rcsnap=refresh makes one)";

/// Decides. Nothing is read or written here.
#[must_use]
pub fn decide(wish: &Wish, found: &Found<'_>, key: &Key) -> Plan {
    let cold = |why, capture| Plan::Cold { why, capture };
    if let Wish::Off(by) = wish {
        return cold(Why::Off(by.clone()), false);
    }
    let store = match found {
        Found::Nothing(cause) => return cold(Why::NoStore(cause.clone()), false),
        Found::Store(store) => store,
    };
    // A restore that failed after it had changed the kernel is one of these.
    if let Some(slot) = store.slots.iter().position(|slot| slot.pending) {
        let burns = store.slots[slot].failures.saturating_add(1) >= crate::store::MAX_FAILURES;
        return cold(Why::Unconfirmed { slot, burns }, false);
    }
    if *wish == Wish::Refresh {
        return cold(Why::Refresh, true);
    }
    if let Some(slot) = store.find(&key.hash) {
        return Plan::Restore { slot };
    }
    cold(missing(store, key), may_capture(store, &key.hash))
}

/// Whether the limits allow one more capture.
#[must_use]
pub fn may_capture(store: &Directory, key: &[u8; 32]) -> bool {
    let (same, late) = store.captures(key, BOOTS);
    same < CAPTURES_PER_KEY && late < CAPTURES_IN_BOOTS
}

/// Why no slot can be restored.
fn missing(store: &Directory, key: &Key) -> Why {
    let used = || store.slots.iter().filter(|slot| slot.state != State::Empty);
    if used().any(|slot| slot.key == key.hash) {
        return Why::Burned;
    }
    match used().max_by_key(|slot| slot.published) {
        Some(newest) => Why::OtherKey(key.differing(&newest.hints)),
        None => Why::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::{CAPTURES_IN_BOOTS, CAPTURES_PER_KEY, Found, Plan, Why, Wish, decide};
    use crate::key::Key;
    use crate::store::notes::{Directory, Slot, State};

    const KEY: Key = Key { hash: [1; 32], hints: [5; 8], parts: Vec::new() };
    const OTHER: [u8; 32] = [2; 32];

    /// A row of the table; `None` matches everything.
    struct Row {
        wish: Option<Wish>,
        store: Option<bool>,
        pending: Option<u8>,
        slot: Option<&'static str>,
        limited: Option<bool>,
        plan: Plan,
    }

    fn any(plan: Plan) -> Row {
        Row { wish: None, store: None, pending: None, slot: None, limited: None, plan }
    }

    fn cold(why: Why, capture: bool) -> Plan {
        Plan::Cold { why, capture }
    }

    /// The table of the design, first match from the top.
    fn table() -> Vec<Row> {
        let off = || Wish::Off("rcsnap=off".into());
        let last = |slot, why: Why| {
            [true, false].map(|limited| Row {
                slot: Some(slot),
                limited: Some(limited),
                ..any(cold(why.clone(), !limited))
            })
        };
        let mut rows = vec![
            Row { wish: Some(off()), ..any(cold(Why::Off("rcsnap=off".into()), false)) },
            Row { store: Some(false), ..any(cold(Why::NoStore("gone".into()), false)) },
            Row { pending: Some(1), ..any(cold(Why::Unconfirmed { slot: 0, burns: false }, false)) },
            Row { pending: Some(2), ..any(cold(Why::Unconfirmed { slot: 0, burns: true }, false)) },
            Row { wish: Some(Wish::Refresh), ..any(cold(Why::Refresh, true)) },
            Row { slot: Some("mine"), ..any(Plan::Restore { slot: 1 }) },
        ];
        rows.extend(last("burned", Why::Burned));
        rows.extend(last("other", Why::OtherKey("rc scripts, command line".into())));
        rows.extend(last("empty", Why::Empty));
        rows
    }

    /// Slot 0 carries the pending attempt, slot 1 what is looked for.
    fn directory(pending: u8, slot: &str, per_key: bool, per_boots: bool) -> Directory {
        let mut store = Directory::new(1 << 20, 2);
        store.boots = 100;
        (store.slots[0].pending, store.slots[0].failures) = (pending > 0, pending.saturating_sub(1));
        let (state, key) = match slot {
            "mine" => (State::Published, KEY.hash),
            "burned" => (State::Burned, KEY.hash),
            "other" => (State::Published, OTHER),
            _ => (State::Empty, [0; 32]),
        };
        store.slots[1] =
            Slot { state, key, published: 3, hints: [5, 4, 5, 5, 5, 5, 5, 4], ..Slot::default() };
        if per_key {
            // Long ago: the limit for a key knows no time.
            store.boots = 1;
            (0..CAPTURES_PER_KEY).for_each(|_| store.count_capture(&KEY.hash));
            store.boots = 100;
        }
        if per_boots {
            (0..CAPTURES_IN_BOOTS).for_each(|_| store.count_capture(&OTHER));
        }
        store
    }

    #[test]
    fn every_combination_does_what_the_table_says() {
        let wishes = [Wish::Auto, Wish::Refresh, Wish::Off("rcsnap=off".into())];
        let mut seen = vec![false; table().len()];
        let mut combinations = 0;
        for bits in 0..3 * 2 * 3 * 4 * 4 {
            let mut rest = bits;
            let mut pick = |of: usize| {
                let found = rest % of;
                rest /= of;
                found
            };
            let wish = wishes[pick(3)].clone();
            let opened = pick(2) == 1;
            let pending = u8::try_from(pick(3)).unwrap();
            let slot = ["mine", "burned", "other", "empty"][pick(4)];
            let (per_key, per_boots) = [(false, false), (true, false), (false, true), (true, true)][pick(4)];
            let store = directory(pending, slot, per_key, per_boots);
            let found = if opened { Found::Store(&store) } else { Found::Nothing("gone".into()) };
            let table = table();
            let row = table.iter().position(|row| {
                row.wish.as_ref().is_none_or(|w| *w == wish)
                    && row.store.is_none_or(|s| s == opened)
                    && row.pending.is_none_or(|p| p == pending)
                    && row.slot.is_none_or(|s| s == slot)
                    && row.limited.is_none_or(|l| l == (per_key || per_boots))
            });
            let row = row.expect("the table has a row for everything");
            assert_eq!(decide(&wish, &found, &KEY), table[row].plan, "combination {bits}");
            seen[row] = true;
            combinations += 1;
        }
        assert_eq!(combinations, 288);
        assert!(seen.iter().all(|seen| *seen), "every row is reached");
    }

    #[test]
    fn the_newest_of_two_images_with_the_key_is_restored() {
        let mut store = directory(0, "mine", false, false);
        store.slots[0] = Slot { published: 9, ..store.slots[1].clone() };
        assert_eq!(decide(&Wish::Auto, &Found::Store(&store), &KEY), Plan::Restore { slot: 0 });
    }

    #[test]
    fn old_captures_of_other_keys_do_not_count() {
        let mut store = directory(0, "empty", false, true);
        store.boots += 20;
        let plan = decide(&Wish::Auto, &Found::Store(&store), &KEY);
        assert_eq!(plan, cold(Why::Empty, true));
    }
}
