//! Which pages are stored already.

/// The pages that are stored, by their hash: of several with one hash, the last. A table that is at most half full.
#[derive(Default)]
pub(super) struct Seen {
    /// Hash and number; a hash of 0 is an empty place.
    places: Vec<(u64, u32)>,
    used: usize,
}

impl Seen {
    /// The place of a hash: its own, or the empty one where it belongs. There must be one.
    fn place(&self, hash: u64) -> usize {
        let mask = self.places.len() - 1;
        // The upper bits are the better mixed ones.
        let mut at = usize::try_from(hash >> 32).unwrap_or(0) & mask;
        while self.places[at].0 != 0 && self.places[at].0 != hash {
            at = (at + 1) & mask;
        }
        at
    }

    pub(super) fn number(&self, hash: u64) -> Option<u32> {
        if self.places.is_empty() {
            return None;
        }
        let (found, number) = self.places[self.place(hash)];
        (found == hash && hash != 0).then_some(number)
    }

    pub(super) fn note(&mut self, hash: u64, number: u32) {
        if 2 * (self.used + 1) > self.places.len() {
            let larger = vec![(0, 0); (2 * self.places.len()).max(1024)];
            for (hash, number) in std::mem::replace(&mut self.places, larger) {
                let at = self.place(hash);
                self.places[at] = (hash, number);
            }
        }
        let at = self.place(hash);
        self.used += usize::from(self.places[at].0 == 0);
        self.places[at] = (hash, number);
    }
}
