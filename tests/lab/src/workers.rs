//! Work that several threads take from one list.

use std::sync::Mutex;

use anyhow::{Result, anyhow, bail};

/// Does `one` with each item, `jobs` at a time, in their order; what comes of them stands in the order of its ends.
pub fn each<T: Send, R: Send>(
    jobs: usize,
    items: Vec<T>,
    one: impl Fn(T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    let queue = Mutex::new(items.into_iter().rev().collect::<Vec<_>>());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let work = || -> Result<()> {
            loop {
                let next = queue.lock().map_err(|_| anyhow!("another worker failed"))?.pop();
                let Some(item) = next else { return Ok(()) };
                let result = one(item)?;
                results.lock().map_err(|_| anyhow!("another worker failed"))?.push(result);
            }
        };
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(_) => bail!("a worker panicked"),
        })
    })?;
    Ok(results.into_inner().unwrap_or_default())
}
