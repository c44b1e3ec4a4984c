//! Any bytes are a list of operations. A difference to the model is a panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pollmux_fuzz::Target::Ops.expect(bytes));
