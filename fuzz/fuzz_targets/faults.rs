//! Runs any bytes as operations and faults of the driver. A difference panics.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pollmux_fuzz::Target::Faults.expect(bytes));
