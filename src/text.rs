//! Searching for one text in another. std's own search is made for long texts: it has 3 KB, and none is long here.

/// Where `part` begins for the first time.
#[must_use]
#[inline(never)]
pub fn find(text: &str, part: &str) -> Option<usize> {
    text.as_bytes().windows(part.len().max(1)).position(|window| window == part.as_bytes())
}

/// Whether `part` is in there.
#[must_use]
pub fn has(text: &str, part: &str) -> bool {
    find(text, part).is_some()
}

/// What is before `part`, and what is behind it.
#[must_use]
#[inline(never)]
pub fn split<'a>(text: &'a str, part: &str) -> Option<(&'a str, &'a str)> {
    let at = find(text, part)?;
    Some((text.get(..at)?, text.get(at + part.len()..)?))
}

/// What is before the last such character, and what is behind it. The character is one of ASCII.
#[must_use]
#[inline(never)]
pub fn split_last(text: &str, character: char) -> Option<(&str, &str)> {
    let at = text.bytes().rposition(|byte| char::from(byte) == character)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// The last part of a path.
#[must_use]
pub fn file_name(path: &str) -> &str {
    split_last(path, '/').map_or(path, |(_, name)| name)
}

/// The text without such parts at its beginning.
#[must_use]
#[inline(never)]
pub fn without_start<'a>(mut text: &'a str, start: &str) -> &'a str {
    while let Some(rest) = text.strip_prefix(start) {
        text = rest;
    }
    text
}

/// The text without such parts at its end.
#[must_use]
#[inline(never)]
pub fn without_end<'a>(mut text: &'a str, end: &str) -> &'a str {
    while let Some(rest) = text.strip_suffix(end) {
        text = rest;
    }
    text
}

/// The path that a link in sysfs means, without the way up to the top of it.
#[must_use]
pub fn from_top(link: &str) -> &str {
    without_start(link, "../")
}

/// The text with `by` in the place of each `part`.
#[must_use]
pub fn replaced(mut text: &str, part: &str, by: &str) -> String {
    let mut all = String::new();
    while let Some((before, rest)) = split(text, part) {
        all.push_str(before);
        all.push_str(by);
        text = rest;
    }
    all.push_str(text);
    all
}

/// A number that may be negative.
#[must_use]
pub fn signed(text: &str) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(digits) => 0_i64.checked_sub_unsigned(digits.parse().ok()?),
        None => text.parse::<u64>().ok()?.try_into().ok(),
    }
}

/// The texts one after the other, with `between` between two of them.
#[must_use]
#[inline(never)]
pub fn joined(texts: &mut dyn Iterator<Item = &str>, between: &str) -> String {
    let mut all = String::new();
    for (place, text) in texts.enumerate() {
        if place > 0 {
            all.push_str(between);
        }
        all.push_str(text);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{file_name, find, from_top, has, joined, replaced, signed, split, split_last, without_end};

    #[test]
    fn parts_are_found_as_std_finds_them() {
        for (text, part) in
            [("a #b #c", " #"), ("", "x"), ("xy", "xyz"), ("ääß", "ß"), ("aab", "ab"), ("ab", "ab")]
        {
            assert_eq!(find(text, part), text.find(part), "{part} in {text}");
            assert_eq!(has(text, part), text.contains(part));
            assert_eq!(split(text, part), text.split_once(part));
        }
    }

    #[test]
    fn parts_are_taken_as_std_takes_them() {
        for text in ["a/b/c", "", "/", "ä/", "no", "x//"] {
            assert_eq!(split_last(text, '/'), text.rsplit_once('/'), "{text}");
            assert_eq!(Some(file_name(text)), text.rsplit('/').next());
            assert_eq!(without_end(text, "/"), text.trim_end_matches('/'));
            assert_eq!(replaced(text, "/", "--"), text.replace('/', "--"));
        }
    }

    #[test]
    fn signed_numbers_are_read() {
        for text in ["0", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(signed(text), text.parse().ok());
        }
        for text in ["", "-", "x", "9223372036854775808", "-9223372036854775809"] {
            assert_eq!(signed(text), None);
        }
    }

    #[test]
    fn links_lose_their_way_up() {
        assert_eq!(from_top("../../devices/x"), "devices/x");
        assert_eq!(from_top("devices/../x"), "devices/../x");
    }

    #[test]
    fn texts_are_joined() {
        assert_eq!(joined(&mut ["a", "", "b"].into_iter(), ", "), "a, , b");
        assert_eq!(joined(&mut std::iter::empty(), ", "), "");
    }
}
