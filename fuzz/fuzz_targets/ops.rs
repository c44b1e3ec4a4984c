//! Runs any bytes as operations. A difference to the model panics.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pollmux_fuzz::Target::Ops.expect(bytes));
