//! Any bytes are a list of operations, with faults of the driver. A difference is a panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pollmux_fuzz::Target::Faults.expect(bytes));
