//! An image as a tree of values: to compare two of them, and to write one that was changed.

use std::path::Path;

use anyhow::{Context, Result};
use rcsnap::image::{self, Sink, Title, Writer};
use rcsnap::restore::Image;
use serde_json::{Value, json};

/// An image in memory.
pub struct Picture {
    bytes: Vec<u8>,
    image: Image,
}

impl Picture {
    pub fn read(path: &Path) -> Result<Picture> {
        let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let mut source: &[u8] = &bytes;
        let image = Image::read(&mut source)?;
        Ok(Picture { bytes, image })
    }

    /// All that it says, but the contents of pages.
    pub fn values(&self) -> Result<Value> {
        Ok(json!({
            "meta": serde_json::to_value(&self.image.meta)?,
            "tree": serde_json::to_value(&self.image.tree)?,
            "files": serde_json::to_value(&self.image.files)?,
            "pages": serde_json::to_value(&self.image.index)?,
        }))
    }

    /// Writes an image with the same pages and these values.
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
