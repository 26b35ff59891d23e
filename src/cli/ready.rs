//! `rcsnap ready`: the last line of the rc scripts, and the point where the picture is taken.

use crate::sorted::Listed;
use std::path::Path;
use std::time::Duration;

use super::args::{Args, Verb};
use super::source::config;
use super::{DONE, Outcome, print};
use crate::boot::ready::{Answer, ask};
use crate::boot::rerun;
use crate::boot::status::{self, Status};
use crate::config::Key;
use crate::log;
use crate::stage::Times;
use crate::sys::stat::exists;

/// `rcsnap ready`.
pub const VERB: Verb = Verb {
    name: "ready",
    about: "Say that the rc scripts are done. Prints \"cold\" on the boot that is captured and \"restored\" on every \
        boot from the image.",
    takes: &[],
    run,
};

/// Waits for the capture, or comes back from it.
///
/// # Errors
/// None: a boot without a watcher is a cold boot.
fn run(_: &Args) -> Outcome {
    let answer = ask().unwrap_or_else(|error| {
        log!(Notice, "{error}");
        leave_reason();
        Answer::Cold
    });
    if answer == Answer::Restored {
        after_restore();
    }
    print(answer.word());
    Ok(DONE)
}

/// Writes down why the boot was cold when there is no watcher to do it: /run was not there yet when PID 1
/// handed over, so its line in the kernel log is all there is.
fn leave_reason() {
    let state = format!("{}/state", status::FOLDER);
    let Some(reason) = status::reason_in_log().filter(|_| !exists(&state)) else { return };
    let written = Status {
        boot: Answer::Cold,
        reason: &reason,
        times: &Times::new(),
        capture: "",
        figures: &[],
        obstacles: &[],
    };
    if let Err(error) = written.write() {
        log!(Warning, "{error}");
    }
}

/// What every restored boot does before it goes on: rerun scripts, hooks, confirmation.
fn after_restore() {
    let config = config();
    let limit = Duration::from_millis(config.number(Key::LimitHook).into());
    let scripts: Vec<String> = config.reruns().into_iter().map(|rerun| rerun.script).list();
    let failed = rerun::scripts(&scripts, limit)
        + rerun::hooks(&Path::new(config.text(Key::Hooks)).join("after-restore.d"), "restored", limit);
    if failed > 0 && config.is_yes(Key::RerunRequired) {
        log!(Warning, "ready: {failed} scripts or hooks failed: this boot is not confirmed");
        return;
    }
    if config.text(Key::Confirm) == "auto"
        && let Err(error) = status::confirm(&config)
    {
        log!(Warning, "{error}");
    }
}
