//! Runs any bytes as a simulated world. A difference panics.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pollmux_fuzz::Target::Worlds.expect(bytes));
