//! The simulated world: several reactors in one virtual time, with a network between them.
//!
//! The code under test needs no change: it gets a [`Reactor`](crate::Reactor) and runs its loop.
//! Begin with [`Sim`] for one loop, and with [`SimWorld`] for several.
//!
//! ```
//! use pollmux::{SimWorld, select};
//! use std::time::Duration;
//!
//! let mut world = SimWorld::new(1); // the seed
//! let week = world.spawn("week", |reactor| {
//!     let hour = reactor.every(Duration::from_secs(3_600)).unwrap();
//!     (0..24 * 7).filter(|_| select! { reactor; recv(hour) -> tick => tick.missed == 0 }).count()
//! });
//! world.run()?;
//! assert_eq!(week.take(), Some(168));
//! # Ok::<(), pollmux::sim::Deadlock>(())
//! ```
//!
//! | file | content |
//! |---|---|
//! | `world.rs` | [`SimWorld`] and [`WorldHandle`]: members and runs |
//! | `deadlock.rs` | [`Deadlock`]: the members that wait, and their sources |
//! | `faults.rs` | the public methods for links, partitions, cuts and holds |
//! | `network.rs` | [`Link`]: delays, losses, duplicates, and messages on the way |
//! | `scheduler/` | the turn, and the member that gets it next |
//! | `member.rs` | a member's thread, its driver, its end |
//! | `history.rs` | [`History`]: the happenings, as text or as a Chrome trace |
//! | `search.rs` | [`Search`]: many seeds, and the history of the first that fails |
//!
//! # Comparison with other simulators
//!
//! | | `SimWorld` | turmoil | madsim | Go's `testing/synctest` |
//! |---|---|---|---|---|
//! | code under test | threads with reactors | tokio tasks | async tasks | goroutines |
//! | network and channels | those of the reactors | turmoil's types | madsim's types | Go's own |
//! | virtual time | yes | yes | yes | yes |
//! | order of execution from a seed | yes | of hosts (`enable_random_order`) | yes | no |
//! | network with delay and loss | links before channels | TCP and UDP | TCP and UDP | none |
//! | partition | yes | yes | yes (`clog`) | none |
//! | hold and release of messages | yes | yes | no | none |
//! | crash and restart | kill, `restart` | crash, `bounce` | kill, `restart` | none |
//! | pause and resume | yes | no | yes | no |
//! | a deadlock is an error | yes, with lines | a time limit | yes | yes |
//! | search over seeds | `search` | the user's loop | `MADSIM_TEST_NUM` | none |

mod deadlock;
mod faults;
mod history;
mod member;
mod network;
mod scheduler;
mod search;
mod single;
mod world;

pub use self::deadlock::{Deadlock, WaitingMember};
pub use self::history::History;
pub use self::member::{MemberDriver, WaitsFor};
pub use self::network::{Link, LinkStats};
pub use self::search::{FailingSeed, Search, Verdict};
pub use self::single::Sim;
pub use self::world::{Member, SimWorld, WorldHandle, WorldStats};
