//! `rcsnap status`: what this boot was, why, where its time went, and what the store holds.

use super::args::{Args, Form, Takes, Verb};
use super::source::store;
use super::{DONE, Outcome, print};
use crate::boot::status::{FOLDER, reason_in_log};
use crate::error::Result;
use crate::json::{self, Object};
use crate::key::hex;
use crate::store::device::Access;
use crate::store::notes::{Slot, State};
use crate::sys::fs;

/// `rcsnap status`.
pub const VERB: Verb = Verb {
    name: "status",
    about: "Say whether this boot was cold or restored, why, what each phase took, and what the slots hold.",
    takes: &[Takes { name: "json", form: Form::Switch, about: "print JSON" }],
    run,
};

/// Prints.
///
/// # Errors
/// None: what cannot be read is said.
fn run(args: &Args) -> Outcome {
    let slots = store(Access::Read).map(|store| store.slots().to_vec());
    if args.has("json") {
        print(&json(&slots));
    } else {
        print(&text(&slots));
    }
    Ok(DONE)
}

fn text(slots: &Result<Vec<Slot>>) -> String {
    let state = fs::text(format!("{FOLDER}/state"));
    let mut text = state.unwrap_or_else(|_| match reason_in_log() {
        Some(reason) => format!("cold: {reason}\n"),
        None => "this boot was not begun by rcsnap\n".into(),
    });
    match slots {
        Ok(slots) => {
            for (number, slot) in slots.iter().enumerate() {
                text += &format!("slot {number}: {}\n", describe(slot));
            }
        }
        Err(error) => text += &format!("{error}\n"),
    }
    text.truncate(text.trim_ascii_end().len());
    text
}

fn word(slot: &Slot) -> &'static str {
    match (slot.state, slot.pending) {
        (State::Empty, _) => "empty",
        (State::Burned, _) => "burned",
        (State::Published, true) => "published, not confirmed yet",
        (State::Published, false) => "published",
    }
}

fn describe(slot: &Slot) -> String {
    if slot.state == State::Empty {
        return word(slot).into();
    }
    let failures = match slot.failures {
        0 => String::new(),
        n => format!(", {n} restores in a row failed"),
    };
    format!("{}, {} KiB, key {}{failures}", word(slot), slot.length.div_ceil(1024), hex(&slot.key[..4]))
}

fn json(slots: &Result<Vec<Slot>>) -> String {
    let boot = fs::text(format!("{FOLDER}/boot.json"));
    let boot = match boot {
        Ok(text) => text.trim_ascii_end().to_owned(),
        Err(_) => {
            Object::new().text("boot", "cold").text("reason", &reason_in_log().unwrap_or_default()).end()
        }
    };
    let mut object = Object::new();
    object.raw("boot", &boot);
    match slots {
        Ok(slots) => {
            let slot = |slot: &Slot| {
                Object::new()
                    .text("state", word(slot))
                    .number("bytes", slot.length)
                    .number("failures", slot.failures.into())
                    .text("key", &hex(&slot.key))
                    .text("generation", &hex(&slot.generation))
                    .end()
            };
            object.raw("slots", &json::array(slots.iter().map(slot))).end()
        }
        Err(error) => object.text("store_error", &error.to_string()).end(),
    }
}

#[cfg(test)]
mod tests {
    use super::describe;
    use crate::store::notes::{Slot, State};

    #[test]
    fn a_slot_is_told_in_one_line() {
        assert_eq!(describe(&Slot::default()), "empty");
        let slot =
            Slot { state: State::Published, length: 4097, key: [0xab; 32], failures: 1, ..Slot::default() };
        assert_eq!(describe(&slot), "published, 5 KiB, key abababab, 1 restores in a row failed");
    }
}
