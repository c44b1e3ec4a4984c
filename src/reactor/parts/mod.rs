//! The parts of a reactor that know no `Core`: each can be read, and tested, alone.
//!
//! | file | content |
//! |---|---|
//! | `slots/` | the records of sources, by number and generation |
//! | `ready.rs` | lists through the records: what is ready, due, ended |
//! | `heap/` | the timer queue |
//! | `priority.rs` | the priority of a source in a wait |
//! | `table.rs` | records, lists and heap together |
//! | `timers.rs` | what a turn reads of the timer queue without a borrow |
//! | `clock.rs` | the time as a turn sees it |
//! | `channels.rs` | registered channels: which are asked for their marks |
//! | `fds.rs` | registered fds: what was found and what was told |
//! | `closure.rs` | a closure, stored in place if it is small |
//! | `callbacks.rs` | which callbacks are live, and which a turn has called |
//! | `mailbox.rs` | posts of other threads |
//! | `asks.rs` | requests of other threads for timers, which coalesce |
//! | `spinner.rs` | when to spin before a sleep |
//! | `sites.rs` | the line that made each source |
//! | `timer_id.rs` | the ids of timers |
//! | `counters.rs`, `usage.rs` | counts; memory that may go |

pub(crate) mod asks;
pub(crate) mod callbacks;
pub(crate) mod channels;
pub(crate) mod clock;
pub(crate) mod closure;
pub(crate) mod counters;
pub(crate) mod fds;
pub(crate) mod heap;
pub(crate) mod mailbox;
pub(crate) mod priority;
pub(crate) mod ready;
pub(crate) mod sites;
pub(crate) mod slots;
pub(crate) mod spinner;
pub(crate) mod table;
pub(crate) mod timer_id;
pub(crate) mod timers;
pub(crate) mod usage;
