//! Any bytes are a simulated world. A difference is a panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pollmux_fuzz::Target::Worlds.expect(bytes));
