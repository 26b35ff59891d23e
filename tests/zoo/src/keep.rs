//! Observables that must read the same after the wait.

type Read = Box<dyn Fn() -> String + Send>;

/// A list of observables with what they read at first.
#[derive(Default)]
pub struct Keep {
    items: Vec<(String, Read, String)>,
}

impl Keep {
    /// Reads it now, and again in [`Keep::verify`].
    pub fn add(&mut self, what: &str, read: impl Fn() -> String + Send + 'static) {
        let first = read();
        self.items.push((what.to_owned(), Box::new(read), first));
    }

    /// What reads differently now.
    #[must_use]
    pub fn verify(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (what, read, first) in &self.items {
            let now = read();
            if now != *first {
                problems.push(format!("{what} was {first:?} and is {now:?}"));
            }
        }
        problems
    }
}
