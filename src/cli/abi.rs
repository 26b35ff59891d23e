//! `rcsnap abi`: what an image must agree with.

use super::args::{Args, Form, Takes, Verb};
use super::source::with_image;
use super::{DONE, NO_IMAGE, Outcome, print};
use crate::image::codec::{Reader, tag_name};
use crate::image::{self, FORMAT};

/// `rcsnap abi`.
pub const VERB: Verb = Verb {
    name: "abi",
    about: "Print the sections that this rcsnap reads and writes, with the hash of each definition; with --image, those \
        of an image too.",
    takes: &[
        Takes { name: "image", form: Form::Switch, about: "compare with the newest image of the store" },
        Takes { name: "file", form: Form::File, about: "compare with this image" },
    ],
    run,
};

/// Prints.
///
/// # Errors
/// The image cannot be read.
fn run(args: &Args) -> Outcome {
    let theirs = if args.has("image") || args.file.is_some() {
        let heads =
            with_image(args.file.as_deref(), |source| Ok(Reader::open_any(source)?.entries().to_vec()))?;
        let Some(heads) = heads else { return Ok(NO_IMAGE) };
        Some(heads)
    } else {
        None
    };
    print(&format!("format {FORMAT}"));
    for kind in image::abi() {
        let mut line = format!("{} {:016x} {}", tag_name(kind.tag), kind.hash, kind.name);
        if let Some(theirs) = &theirs {
            line += match theirs.iter().find(|head| head.tag == kind.tag) {
                Some(head) if head.hash == kind.hash => ": same",
                Some(_) => ": differs",
                None => ": absent",
            };
        }
        print(&line);
    }
    for head in theirs.iter().flatten().filter(|head| image::abi().iter().all(|kind| kind.tag != head.tag)) {
        print(&format!("{} {:016x} unknown here", tag_name(head.tag), head.hash));
    }
    Ok(DONE)
}
