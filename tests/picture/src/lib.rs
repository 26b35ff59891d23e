//! An image as a tree of values: to compare two of them, and to write one that was changed.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::path::Path;

use anyhow::{Context, Result};
use rcsnap::boot::attempt::Notes;
use rcsnap::image::pages::{PAGE, PageReader};
use rcsnap::image::{self, Reader, Sink, Title, Writer};
use rcsnap::inputs::Inputs;
use rcsnap::restore::Image;
use rcsnap::{capture, file, kernel};
use serde::Serialize;
use serde_json::{Value, json};

/// An image in memory.
pub struct Picture {
    bytes: Vec<u8>,
    image: Image,
    inputs: Option<Inputs>,
    notes: Option<Notes>,
}

/// Pages by address, each with a hash of its contents: 0 for a page of zeroes.
pub type Contents = BTreeMap<u64, u64>;

/// All that an image says.
#[derive(Serialize)]
pub struct View<'a> {
    meta: &'a image::Meta,
    tree: &'a capture::Tree,
    files: &'a [file::Entry],
    kernel: Option<&'a kernel::State>,
    tmpfs: Option<&'a kernel::tmpfs::State>,
    inputs: Option<&'a Inputs>,
    notes: Option<&'a Notes>,
    /// Memory, one list a process, then one a shared object.
    contents: Vec<Contents>,
}

impl Picture {
    /// Reads a file.
    ///
    /// # Errors
    /// It is no image of this processor's.
    pub fn read(path: &Path) -> Result<Picture> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let mut source: &[u8] = &bytes;
        let image = Image::read(&mut source)?;
        let mut reader = Reader::open(&mut source, image::KINDS)?;
        let (inputs, notes) = (reader.find(image::INPUTS)?, reader.find(image::BOOT)?);
        Ok(Picture { bytes, image, inputs, notes })
    }

    /// All that it says, with hashes of the pages.
    ///
    /// # Errors
    /// The pages are damaged.
    pub fn view(&self) -> Result<View<'_>> {
        let Image { meta, tree, files, kernel, .. } = &self.image;
        Ok(View {
            meta,
            tree,
            files,
            kernel: kernel.as_ref().map(|(state, _)| state),
            tmpfs: kernel.as_ref().map(|(_, tmpfs)| tmpfs),
            inputs: self.inputs.as_ref(),
            notes: self.notes.as_ref(),
            contents: self.contents()?,
        })
    }

    fn contents(&self) -> Result<Vec<Contents>> {
        let Image { tree, index, header, .. } = &self.image;
        let mut all = vec![Contents::new(); tree.processes.len() + tree.objects.len()];
        let addresses = |start: u64, pages: u32| (0..u64::from(pages)).map(move |n| start + n * PAGE as u64);
        for run in &index.zeros {
            let of = all.get_mut(run.mm as usize).context("pages of nobody")?;
            of.extend(addresses(run.start, run.pages).map(|address| (address, 0)));
        }
        let mut source: &[u8] = &self.bytes;
        let mut reader = PageReader::new(&mut source, header, index)?;
        while let Some(pages) = reader.next_block()? {
            for run in pages.runs {
                let bytes = pages.of(run).context("a run lies outside its block")?;
                let of = all.get_mut(run.mm as usize).context("pages of nobody")?;
                of.extend(addresses(run.start, run.pages).zip(bytes.chunks(PAGE).map(hash)));
            }
        }
        Ok(all)
    }

    /// All that it says of a tree, but the contents of pages.
    ///
    /// # Errors
    /// It cannot be said in JSON.
    pub fn values(&self) -> Result<Value> {
        Ok(json!({
            "meta": serde_json::to_value(&self.image.meta)?,
            "tree": serde_json::to_value(&self.image.tree)?,
            "files": serde_json::to_value(&self.image.files)?,
            "pages": serde_json::to_value(&self.image.index)?,
        }))
    }

    /// Writes an image of a tree with the same pages and these values.
    ///
    /// # Errors
    /// The values are not those of an image, or the file's.
    pub fn write(&self, mut values: Value, path: &Path) -> Result<()> {
        let header = &self.image.header;
        let (start, length) =
            (usize::try_from(header.blocks_offset)?, usize::try_from(header.blocks_length)?);
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes)?;
        writer.push(self.bytes.get(start..start + length).context("finding the pages")?)?;
        writer.section(image::META, &self.image.meta)?;
        let tree: rcsnap::capture::Tree = serde_json::from_value(values["tree"].take())?;
        writer.section(image::TREE, &tree)?;
        let files: Vec<rcsnap::file::Entry> = serde_json::from_value(values["files"].take())?;
        writer.section(image::FILES, &files)?;
        let pages: rcsnap::image::pages::PageIndex = serde_json::from_value(values["pages"].take())?;
        writer.section(image::PAGES, &pages)?;
        writer.finish(&Title { flags: header.flags, generation: header.generation, key: header.key })?;
        std::fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
    }
}

/// The same on every machine.
fn hash(page: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(page);
    hasher.finish()
}
