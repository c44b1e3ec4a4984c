//! The network of a world from the user's side: links, partitions, cuts and holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::history::Happening;
use super::member::misuse;
use super::network::{Link, Network, Wire};
use super::scheduler::{Delivery, Fate};
use super::world::WorldHandle;
use crate::channel::Sender;

impl WorldHandle {
    /// Makes a link from one member to another. Its messages go into the channel of `to_channel`,
    /// after a delay, if nothing happens to them. [`Link`] has an example.
    ///
    /// By default the delay is zero, nothing is lost, and messages keep their order. A message that
    /// finds the channel full is lost, as in a socket's buffer. So take
    /// [`unbounded`](crate::channel::unbounded), or a large channel. The names are for
    /// [`partition`](Self::partition) and its kin, and the members may come later. The receiver is
    /// disconnected when the link, its clones and the messages on the way are gone.
    pub fn link<T: Send + 'static>(&self, from: &str, to: &str, to_channel: Sender<T>) -> Link<T> {
        let number = {
            let mut network = self.shared.network();
            let name = |name: &str| network.name(name).unwrap_or_else(|| name.into());
            let wire = Wire::new(name(from), name(to));
            network.links.push(wire);
            network.links.len() - 1
        };
        Link::new(self.shared.clone(), number, to_channel)
    }

    /// Partitions the network. Nothing goes from one group to another, until [`heal`](Self::heal)
    /// or another partition. The members not named are one more group. Messages on the way from one
    /// group to another are lost.
    ///
    /// ```
    /// # let world = pollmux::SimWorld::new(1);
    /// # for name in ["b", "c"] { world.link("a", name, pollmux::channel::unbounded::<()>().0); }
    /// world.partition(&[&["a"]]); // a alone, and the rest
    /// world.partition(&[&["a", "b"], &["c"]]);
    /// world.heal();
    /// world.hold("a", "b"); // messages wait
    /// world.release("a", "b");
    /// ```
    ///
    /// # Panics
    /// When a name is neither that of a member nor that of the end of a link.
    #[track_caller]
    pub fn partition(&self, groups: &[&[&str]]) {
        let mut parts = BTreeMap::new();
        for (at, group) in groups.iter().enumerate() {
            for name in group.iter() {
                let Some(name) = self.known(name) else { return };
                parts.insert(name, at + 1);
            }
        }
        self.part("partition", || format!("{groups:?}"), |network| network.parts = parts);
    }

    /// Cuts the links from one member to another, in this direction. Messages on the way are lost.
    ///
    /// # Panics
    /// As [`partition`](Self::partition) does.
    #[track_caller]
    pub fn cut(&self, from: &str, to: &str) {
        let Some(way) = self.way(from, to) else { return };
        self.part("cut", || format!("{from} -> {to}"), |network| _ = network.cuts.insert(way));
    }

    /// Mends the links that [`cut`](Self::cut) has cut.
    ///
    /// # Panics
    /// As [`partition`](Self::partition) does.
    #[track_caller]
    pub fn mend(&self, from: &str, to: &str) {
        let Some(way) = self.way(from, to) else { return };
        self.part("mended", || format!("{from} -> {to}"), |network| _ = network.cuts.remove(&way));
    }

    /// Ends the partition and mends all cuts. Delays, losses and holds of the links stay.
    pub fn heal(&self) {
        self.part("healed", String::new, |network| {
            network.parts.clear();
            network.cuts.clear();
        });
    }

    /// Holds the links from one member to another, in this direction. Messages on the way, and
    /// those that are sent later, wait for [`release`](Self::release). A cut or a partition loses
    /// them.
    ///
    /// turmoil's `hold` holds both directions.
    ///
    /// # Panics
    /// As [`partition`](Self::partition) does.
    #[track_caller]
    pub fn hold(&self, from: &str, to: &str) {
        let Some(way) = self.way(from, to) else { return };
        self.part("held", || format!("{from} -> {to}"), |network| _ = network.holds.insert(way));
    }

    /// Lets all messages arrive that [`hold`](Self::hold) has held.
    ///
    /// # Panics
    /// As [`partition`](Self::partition) does.
    #[track_caller]
    pub fn release(&self, from: &str, to: &str) {
        let Some(way) = self.way(from, to) else { return };
        self.part(
            "released",
            || format!("{from} -> {to}"),
            |network| _ = network.holds.remove(&way),
        );
        let scheduler = &self.shared.scheduler;
        let released = self.shared.network().released(scheduler);
        for (link, tie) in released {
            let shared = self.shared.clone();
            // Each settles the first held message of the link at that time.
            let settle = Box::new(move |fate| {
                if fate != Fate::Lost {
                    shared.deliver_released(link);
                }
            });
            scheduler.post(scheduler.clock().now(), tie, Delivery { link, settle });
        }
    }

    /// Changes the network, and loses the messages on ways that are no longer open.
    fn part(&self, what: &str, who: impl FnOnce() -> String, change: impl FnOnce(&mut Network)) {
        let scheduler = &self.shared.scheduler;
        scheduler.note(|| Happening::Network(format!("{what} {}", who()).trim_end().to_owned()));
        let lost = {
            let mut network = self.shared.network();
            change(&mut network);
            network.recall(scheduler)
        };
        lost.into_iter().for_each(|delivery| delivery.settle(Fate::Lost));
    }

    #[track_caller]
    fn way(&self, from: &str, to: &str) -> Option<(Arc<str>, Arc<str>)> {
        Some((self.known(from)?, self.known(to)?))
    }

    /// Returns the name of a member or of the end of a link, and panics if it is unknown. Returns
    /// `None`
    /// in a thread that unwinds, which must not panic.
    #[track_caller]
    pub(super) fn known(&self, name: &str) -> Option<Arc<str>> {
        let linked = self.shared.network().name(name);
        match linked {
            Some(name) => Some(name),
            None if self.shared.scheduler.knows(name) => Some(name.into()),
            None => {
                misuse(&format!("there is no member and no link's end `{name}` in this world"));
                None
            }
        }
    }
}
