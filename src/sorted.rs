//! Lists in order, and maps and sets that are such lists.
//!
//! std's B-tree and its sort are compiled anew for every type that they hold, and each copy has more code than
//! most functions that use one. So the algorithms are here once, over places in a list, and what a type adds to
//! them is the comparison of two of its elements. A [`Map`] or [`Set`] has few elements, or gets them all at
//! once: putting one in moves those behind it.

use std::cmp::Ordering;

use crate::sys::order;

/// Iterators that are made lists.
pub trait Listed: Iterator + Sized {
    /// What comes, as a list. std's `collect` has more code: it asks how many there will be.
    fn list(self) -> Vec<Self::Item> {
        let mut list = Vec::new();
        self.for_each(|one| list.push(one));
        list
    }

    /// The same for what may fail, up to the first failure.
    fn whole<T, E>(self) -> Result<Vec<T>, E>
    where
        Self: Iterator<Item = Result<T, E>>,
    {
        let mut list = Vec::new();
        for one in self {
            list.push(one?);
        }
        Ok(list)
    }
}

impl<I: Iterator> Listed for I {}

/// Sorts a list; what is equal keeps its order.
pub fn sort<T: Ord>(list: &mut [T]) {
    sort_by(list, T::cmp);
}

/// Sorts a list by what a function makes of each element; what is equal keeps its order.
pub fn sort_by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    sort_by(list, |a, b| key(a).cmp(&key(b)));
}

/// Sorts a list by a comparison; what is equal keeps its order.
pub fn sort_by<T>(list: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let places = places(list.len(), &|a, b| compare(&list[a], &list[b]));
    order::settle(list, places);
}

/// The places of a list in their order.
fn places(count: usize, order: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).list();
    places.sort_by(|a, b| order(*a, *b));
    places
}

/// The first of `count` places that is not `Less`, by halving: `Ok` if it is `Equal`.
fn halve(count: usize, order: &dyn Fn(usize) -> Ordering) -> Result<usize, usize> {
    let (mut from, mut to) = (0, count);
    while from < to {
        let at = from.midpoint(to);
        match order(at) {
            Ordering::Less => from = at + 1,
            Ordering::Equal => return Ok(at),
            Ordering::Greater => to = at,
        }
    }
    Err(from)
}

/// A map: a list in the order of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Map<K, V>(Vec<(K, V)>);

impl<K, V> Default for Map<K, V> {
    fn default() -> Map<K, V> {
        Map::new()
    }
}

impl<K, V> Map<K, V> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Map<K, V> {
        Map(Vec::new())
    }

    /// The keys, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// The values, to be changed.
    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Keys and values, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, (K, V)> {
        self.0.iter()
    }
}

impl<K: Ord, V> Map<K, V> {
    /// Where a key is, or would be.
    fn place(&self, key: &K) -> Result<usize, usize> {
        halve(self.0.len(), &|at| self.0[at].0.cmp(key))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|at| &self.0[at].1)
    }

    /// Whether it has a key.
    #[must_use]
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Puts a value in, in place of the one that the key had.
    pub fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// The value of a key, made first if there is none.
    pub fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let at = self.place(&key).unwrap_or_else(|at| {
            self.0.insert(at, (key, make()));
            at
        });
        &mut self.0[at].1
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.place(key).ok().map(|at| self.0.remove(at).1)
    }
}

impl<K, V> IntoIterator for Map<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Ord, V> From<Vec<(K, V)>> for Map<K, V> {
    /// Of several values of one key, the last counts.
    fn from(mut list: Vec<(K, V)>) -> Map<K, V> {
        // Stable, so that the last comes first among its equals.
        list.reverse();
        sort_by(&mut list, |a, b| a.0.cmp(&b.0));
        list.dedup_by(|a, b| a.0 == b.0);
        Map(list)
    }
}

impl<K: Ord, V> std::ops::Index<&K> for Map<K, V> {
    type Output = V;

    /// Panics, as an index does, where the key is not there.
    fn index(&self, key: &K) -> &V {
        &self.0[self.place(key).unwrap_or(usize::MAX)].1
    }
}

/// A set: a list in order, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set<K>(Vec<K>);

impl<K> Default for Set<K> {
    fn default() -> Set<K> {
        Set::new()
    }
}

impl<K> Set<K> {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Set<K> {
        Set(Vec::new())
    }

    /// What is in it, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, K> {
        self.0.iter()
    }
}

impl<K: Ord> Set<K> {
    fn place(&self, key: &K) -> Result<usize, usize> {
        halve(self.0.len(), &|at| self.0[at].cmp(key))
    }

    /// Whether something is in it.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Puts something in. Whether it is new.
    pub fn insert(&mut self, key: K) -> bool {
        let place = self.place(&key);
        if let Err(at) = place {
            self.0.insert(at, key);
        }
        place.is_err()
    }

    /// Takes something out.
    pub fn remove(&mut self, key: &K) {
        if let Ok(at) = self.place(key) {
            self.0.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{Map, Set, sort, sort_by_key};

    /// Numbers that look random and are the same in every run.
    fn numbers(seed: u32, count: usize, below: u32) -> Vec<u32> {
        let mut state = seed;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn lists_are_sorted_as_by_std() {
        for count in 0..200 {
            let mut ours: Vec<String> = numbers(7, count, 50).iter().map(u32::to_string).collect();
            let mut theirs = ours.clone();
            sort(&mut ours);
            theirs.sort();
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn what_is_equal_keeps_its_order() {
        let mut ours: Vec<(u32, usize)> = numbers(3, 1000, 20).into_iter().zip(0..).collect();
        let mut theirs = ours.clone();
        sort_by_key(&mut ours, |pair| pair.0);
        theirs.sort_by_key(|pair| pair.0);
        assert_eq!(ours, theirs);
    }

    #[test]
    fn map_does_what_a_tree_does() {
        for seed in 0..20 {
            let (mut ours, mut theirs) = (Map::new(), BTreeMap::new());
            for (step, key) in numbers(seed, 400, 60).into_iter().enumerate() {
                match step % 5 {
                    0 => assert_eq!(ours.remove(&key), theirs.remove(&key)),
                    1 => *ours.entry(key, || 7) += 1,
                    _ => ours.insert(key, step),
                }
                match step % 5 {
                    1 => *theirs.entry(key).or_insert(7) += 1,
                    0 => {}
                    _ => drop(theirs.insert(key, step)),
                }
                assert_eq!(ours.get(&key), theirs.get(&key));
                assert_eq!(ours.contains_key(&30), theirs.contains_key(&30));
            }
            assert!(ours.keys().eq(theirs.keys()) && ours.values().eq(theirs.values()));
            assert!(ours.into_iter().eq(theirs));
        }
    }

    #[test]
    fn map_of_a_list_keeps_the_last_value_of_a_key() {
        let list: Vec<(u32, usize)> = numbers(5, 500, 90).into_iter().zip(0..).collect();
        let theirs: BTreeMap<u32, usize> = list.iter().copied().collect();
        assert!(Map::from(list).into_iter().eq(theirs));
    }

    #[test]
    fn set_does_what_a_tree_does() {
        let (mut ours, mut theirs) = (Set::new(), BTreeSet::new());
        for (step, key) in numbers(11, 2000, 100).into_iter().enumerate() {
            if step % 3 == 0 {
                ours.remove(&key);
                theirs.remove(&key);
            } else {
                assert_eq!(ours.insert(key), theirs.insert(key));
            }
            assert_eq!(ours.contains(&key), theirs.contains(&key));
        }
        assert!(ours.iter().eq(&theirs));
    }
}
