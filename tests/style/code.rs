//! Rust text, cut into code and string literals. Comments are dropped.

/// The code of a text with blanks in place of comments and literals, and the string literals.
fn cut(text: &str) -> (String, Vec<String>) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut strings) = (String::new(), Vec::new());
    let mut at = 0;
    let is = |at: usize, c: char| chars.get(at) == Some(&c);
    while at < chars.len() {
        if is(at, '/') && is(at + 1, '/') {
            at = find(&chars, at, "\n");
        } else if is(at, '/') && is(at + 1, '*') {
            at = find(&chars, at + 2, "*/") + 2;
        } else if let Some(hashes) = raw(&chars, at, &code) {
            let start = at + 2 + hashes;
            let end = find(&chars, start, &format!("\"{}", "#".repeat(hashes)));
            strings.push(chars[start..end].iter().collect());
            at = end + 1 + hashes;
            code.push(' ');
        } else if is(at, '"') {
            let start = at + 1;
            at = start;
            while at < chars.len() && !is(at, '"') {
                at += if is(at, '\\') { 2 } else { 1 };
            }
            let end = at.min(chars.len());
            strings.push(chars[start..end].iter().collect());
            at += 1;
            code.push(' ');
        } else if is(at, '\'') && (is(at + 1, '\\') || is(at + 2, '\'')) {
            // A character, no lifetime.
            let start = if is(at + 1, '\\') { at + 3 } else { at + 2 };
            at = find(&chars, start, "'") + 1;
            code.push(' ');
        } else {
            code.push(chars[at]);
            at += 1;
        }
    }
    (code, strings)
}

/// Where `what` is from `at` on; the end if it is nowhere.
fn find(chars: &[char], at: usize, what: &str) -> usize {
    let what: Vec<char> = what.chars().collect();
    (at..chars.len()).find(|at| chars[*at..].starts_with(&what)).unwrap_or(chars.len())
}

/// The hashes of a raw string that begins here, if one does.
fn raw(chars: &[char], at: usize, before: &str) -> Option<usize> {
    let part_of_name = before.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
    if chars[at] != 'r' || (part_of_name && !before.ends_with('b')) {
        return None;
    }
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

/// Whether there is unsafe code, or leave for it.
pub fn has_unsafe(text: &str) -> bool {
    let (code, _) = cut(text);
    tokens(&code).iter().any(|(_, token)| *token == "unsafe" || *token == "unsafe_code")
}

/// The string literals, as they are written.
pub fn strings(text: &str) -> Vec<String> {
    cut(text).1
}

/// The identifiers, but for methods and fields that are used, whose definition is what counts.
pub fn identifiers(text: &str) -> Vec<String> {
    let (code, _) = cut(text);
    tokens(&code).iter().filter(|(before, _)| *before != '.').map(|(_, token)| (*token).to_owned()).collect()
}

/// Words of identifier characters, each with the character before it.
fn tokens(code: &str) -> Vec<(char, &str)> {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut begin = None;
    let mut before = ' ';
    for (at, c) in code.char_indices().chain([(code.len(), ' ')]) {
        match (begin, inside(c)) {
            (None, true) => begin = Some((at, before)),
            (Some((start, before)), false) => {
                found.push((before, &code[start..at]));
                begin = None;
            }
            _ => {}
        }
        before = c;
    }
    found
}

/// The words of an identifier in lower case: `PageDump` and `page_dump` are page and dump.
pub fn words(identifier: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut lower = false;
    for c in identifier.chars() {
        if c == '_' || (c.is_uppercase() && lower) {
            words.push(String::new());
        }
        if c != '_'
            && let Some(last) = words.last_mut()
        {
            last.extend(c.to_lowercase());
        }
        lower = c.is_lowercase();
    }
    words
}

#[test]
fn code_is_told_from_comments_and_literals() {
    let text =
        "let a = \"b \\\" c\"; // d\nlet e = 'f'; r#\"g\"h\"#; /* i */ fn j<'k>(l: &'k str) {} '\\n' m";
    let (code, strings) = cut(text);
    assert_eq!(strings, ["b \\\" c", "g\"h"]);
    for gone in ["b", "d", "f", "g", "i"] {
        assert!(!tokens(&code).iter().any(|(_, token)| *token == gone), "{gone} in {code}");
    }
    for there in ["e", "j", "k", "m"] {
        assert!(tokens(&code).iter().any(|(_, token)| *token == there), "{there} not in {code}");
    }
    assert_eq!(words("PageDump"), ["page", "dump"]);
    assert_eq!(identifiers("a.dump(b)"), ["a", "b"]);
}
