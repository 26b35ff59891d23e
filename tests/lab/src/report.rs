//! The figures of one lab command, as one JSON object.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// Figures in the order they were put.
pub struct Report {
    figures: Map<String, Value>,
}

impl Report {
    pub fn new(command: &str) -> Self {
        let mut report = Self { figures: Map::new() };
        report.put("command", command);
        report
    }

    pub fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.into(), value.into());
    }

    /// Nothing is written when no file was asked for.
    pub fn write(&self, file: Option<&Path>) -> Result<()> {
        let Some(file) = file else { return Ok(()) };
        let text = serde_json::to_string_pretty(&self.figures)?;
        std::fs::write(file, text + "\n").with_context(|| format!("writing {}", file.display()))
    }
}
