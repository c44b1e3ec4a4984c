//! The priority of a source.

/// The priority of a source in [`wait`](crate::Handle::wait), given by `with_priority`.
///
/// Every source with a key takes a priority. Without one a source is `Normal`.
///
/// In a batch the sources of a higher priority come first. When more sources are ready than fit,
/// those are chosen first. Sources of one priority come in the order of waiting.
///
/// A lower priority delays a source, and does not starve it. When more sources are ready than fit,
/// a batch with room for two or more keeps a place for the source that has waited longest. So each
/// source is reported after at most as many batches as there are ready sources. With room for one
/// event a source waits for as long as a source of a higher priority is ready.
///
/// `select!` and [`Select`](crate::Select) ignore priorities. There `biased` sets the order.
///
/// # Cost
/// None while all sources of the reactor are `Normal`. Otherwise each wait is O(ready) in place of
/// O(reported). A wait does not allocate. To set a priority may allocate, like a key.
///
/// ```
/// use pollmux::{Events, Priority, Reactor, Sim};
/// use std::time::Duration;
///
/// const DATA: u64 = 1;
/// const STOP: u64 = 2;
///
/// let reactor = Reactor::with_driver(Sim::new())?;
/// let data = reactor.after(Duration::from_secs(1)).with_key(DATA);
/// let stop =
///     reactor.after(Duration::from_secs(1)).with_key(STOP).with_priority(Priority::High);
///
/// let mut events = Events::new();
/// reactor.wait(&mut events)?;
/// let keys: Vec<u64> = events.iter().map(|event| event.key()).collect();
/// assert_eq!(keys, [STOP, DATA]);
/// # drop((data, stop));
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Priority {
    /// After all others.
    Low,
    /// The priority of a source that was given none.
    #[default]
    Normal,
    /// Before all others.
    High,
}

impl Priority {
    /// All, the highest one first.
    pub(crate) const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];
}
