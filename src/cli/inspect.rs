//! `rcsnap inspect`: what is in an image.

use super::args::{Args, Form, Takes, Verb};
use super::source::with_image;
use super::{DONE, NO_IMAGE, Outcome, print};
use crate::error::Result;
use crate::image::codec::{Reader, tag_name};
use crate::image::pages::PAGE;
use crate::json::{self, Object};
use crate::key::hex;
use crate::restore::Image;
use crate::sorted::{Listed, Map};
use crate::task::tree::Process;
use crate::text;

/// `rcsnap inspect`.
pub const VERB: Verb = Verb {
    name: "inspect",
    about: "Show what an image holds: processes with their memory and files, and sizes by section.",
    takes: &[
        Takes { name: "json", form: Form::Switch, about: "print JSON" },
        Takes {
            name: "image",
            form: Form::File,
            about: "the image; without it, the newest one of the store",
        },
    ],
    run,
};

/// What is shown of one process.
struct Row {
    pid: u32,
    ppid: u32,
    session: u32,
    comm: String,
    threads: usize,
    mappings: usize,
    /// Pages that the image places into it.
    pages: u64,
    /// Descriptors by kind.
    files: Map<&'static str, usize>,
}

struct View {
    image: Image,
    /// Bytes by section, blocks first.
    sections: Vec<(String, u64)>,
    rows: Vec<Row>,
}

/// Shows.
///
/// # Errors
/// The image cannot be read.
fn run(args: &Args) -> Outcome {
    let view = with_image(args.file.as_deref(), |source| {
        let reader = Reader::open_any(source)?;
        let blocks = ("pages (compressed)".to_owned(), reader.header().blocks_length);
        let heads = reader.entries().iter().map(|head| (tag_name(head.tag), head.length));
        let sections = std::iter::once(blocks).chain(heads).list();
        let image = Image::read(source)?;
        let rows = rows(&image);
        Ok(View { image, sections, rows })
    })?;
    let Some(view) = view else { return Ok(NO_IMAGE) };
    if args.has("json") {
        print(&as_json(&view)?);
    } else {
        as_text(&view);
    }
    Ok(DONE)
}

fn rows(image: &Image) -> Vec<Row> {
    let row = |(mm, process): (usize, &Process)| {
        let runs = image.index.runs.iter().filter(|run| run.mm as usize == mm);
        let body = process.body.as_ref();
        let mut files = Map::new();
        for fd in body.iter().flat_map(|body| &body.fds) {
            let name = image.files.get(fd.entry as usize).map_or("?", |entry| entry.state.name());
            *files.entry(name, || 0) += 1;
        }
        Row {
            pid: process.ids.pid,
            ppid: process.ids.ppid,
            session: process.ids.session,
            comm: process.comm.clone(),
            threads: body.map_or(0, |body| body.threads.len()),
            mappings: body.map_or(0, |body| body.memory.vmas.len()),
            pages: runs.map(|run| u64::from(run.pages)).sum(),
            files,
        }
    };
    image.tree.processes.iter().enumerate().map(row).list()
}

fn as_text(view: &View) {
    let meta = &view.image.meta;
    let what = if meta.whole_system { "whole system" } else { "process tree" };
    print(&format!("{what}, captured by rcsnap {} under Linux {}", meta.rcsnap, meta.kernel_release));
    print(&format!("generation {}", hex(&view.image.header.generation)));
    print(&format!("{} bytes, tasks stopped for {} ms", view.image.header.total, meta.stopped_ms));
    print("");
    print("  PID  PPID   SID THR MAPS    KiB NAME             FILES");
    for row in &view.rows {
        let files: Vec<String> = row.files.iter().map(|(name, n)| format!("{name} {n}")).list();
        print(&format!(
            "{:5} {:5} {:5} {:3} {:4} {:6} {:16} {}",
            row.pid,
            row.ppid,
            row.session,
            row.threads,
            row.mappings,
            row.pages * PAGE as u64 / 1024,
            row.comm,
            text::joined(&mut files.iter().map(String::as_str), ", ")
        ));
    }
    print("");
    for (name, bytes) in &view.sections {
        print(&format!("{bytes:9} bytes {name}"));
    }
}

fn as_json(view: &View) -> Result<String> {
    let meta = &view.image.meta;
    let processes = view.rows.iter().map(|row| {
        let mut files = Object::new();
        for (name, n) in row.files.iter() {
            files.number(name, *n as u64);
        }
        Object::new()
            .number("pid", row.pid.into())
            .number("ppid", row.ppid.into())
            .number("session", row.session.into())
            .text("name", &row.comm)
            .number("threads", row.threads as u64)
            .number("mappings", row.mappings as u64)
            .number("bytes", row.pages * PAGE as u64)
            .raw("files", &files.end())
            .end()
    });
    let processes = json::array(processes);
    let mut sections = Object::new();
    for (name, bytes) in &view.sections {
        sections.number(name, *bytes);
    }
    let flag = |on| if on { "true" } else { "false" };
    Ok(Object::new()
        .raw("whole_system", flag(meta.whole_system))
        .text("rcsnap", &meta.rcsnap)
        .text("kernel", &meta.kernel_release)
        .text("generation", &hex(&view.image.header.generation))
        .number("bytes", view.image.header.total)
        .number("stopped_ms", meta.stopped_ms.into())
        .raw("sections", &sections.end())
        .raw("processes", &processes)
        .end())
}
