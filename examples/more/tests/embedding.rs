//! Tests of the examples that embed the reactor in the loops of mio, polling, tokio and calloop. In
//! many rounds no event is lost or comes twice, and no loop spins.

// With kqueues that cannot be waited for (build.rs), `.ci/run` leaves this test out. Each example
// includes the shared module, so the module is here several times.
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

use support::watchdog;

const ROUNDS: u32 = 10_000;

macro_rules! rounds_in {
    ($($name:ident: $module:ident)*) => {$(
        #[test]
        fn $name() {
            let _watchdog = watchdog();
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
