//! The reactor inside the loops of mio, polling, tokio and calloop, as the examples do it, for many
//! rounds: nothing is lost, nothing comes twice, no loop spins.

// Where no kqueue can be waited for (build.rs) there is nothing to test, and `.ci/run` leaves it
// out. Each example has what they share as a module of its own.
#![allow(clippy::duplicate_mod)]

#[path = "../embed_calloop.rs"]
#[allow(dead_code)]
mod embed_calloop;
#[path = "../embed_mio.rs"]
#[allow(dead_code)]
mod embed_mio;
#[path = "../embed_polling.rs"]
#[allow(dead_code)]
mod embed_polling;
#[path = "../embed_tokio.rs"]
#[allow(dead_code)]
mod embed_tokio;
#[path = "../on_mio.rs"]
#[allow(dead_code)]
mod on_mio;

use support::watch::dog;

const ROUNDS: u32 = 10_000;

macro_rules! rounds_in {
    ($($name:ident: $module:ident)*) => {$(
        #[test]
        fn $name() {
            let _dog = dog();
            let report = $module::run(ROUNDS).unwrap();
            assert_eq!(report.rounds, ROUNDS);
            report.print();
        }
    )*};
}

rounds_in! {
    ten_thousand_rounds_in_calloop: embed_calloop
        ten_thousand_rounds_in_mio: embed_mio
    ten_thousand_rounds_in_polling: embed_polling
    ten_thousand_rounds_in_tokio: embed_tokio
        ten_thousand_rounds_on_mio: on_mio
}
