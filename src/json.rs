//! Just enough JSON for boot.json and `--json`: a serialiser crate would cost tens of kilobytes.

use std::fmt::Write as _;

/// An object that is being written.
#[derive(Debug, Default)]
pub struct Object(String);

impl Object {
    /// An empty object.
    #[must_use]
    pub fn new() -> Object {
        Object::default()
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, name: &str, value: &str) -> &mut Object {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}{}:{value}", text(name));
        self
    }

    /// A member that is a text.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Object {
        self.raw(name, &text(value))
    }

    /// A member that is a number.
    pub fn number(&mut self, name: &str, value: u64) -> &mut Object {
        self.raw(name, &value.to_string())
    }

    /// The object.
    #[must_use]
    pub fn end(&self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// An array of values that are JSON already.
#[must_use]
pub fn array(values: impl IntoIterator<Item = String>) -> String {
    let mut list = String::from("[");
    for value in values {
        list.extend([if list.len() > 1 { "," } else { "" }, &value]);
    }
    list + "]"
}

/// A string with its quotes (RFC 8259, section 7).
#[must_use]
pub fn text(value: &str) -> String {
    let mut out = String::with_capacity(value.len() + 2);
    out.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::{Object, array, text};

    #[test]
    fn members_are_quoted_and_separated() {
        let inner = Object::new().number("a", 1).end();
        let outer = Object::new().text("q\"", "x\\\n\u{1}").raw("list", &array([inner, text("ü")])).end();
        assert_eq!(outer, r#"{"q\"":"x\\\n\u0001","list":[{"a":1},"ü"]}"#);
        assert_eq!(Object::new().end(), "{}");
    }
}
