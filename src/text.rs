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

/// The path that a link in sysfs means, without the way up to the top of it.
#[must_use]
#[inline(never)]
pub fn from_top(mut link: &str) -> &str {
    while let Some(rest) = link.strip_prefix("../") {
        link = rest;
    }
    link
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
    use super::{find, from_top, has, joined, split};

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
