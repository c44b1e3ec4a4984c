//! Any bytes are a list of operations. A difference to the model is a panic.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let (Err(text), _) = pollmux_fuzz::run(bytes) {
        eprintln!("{:#?}", pollmux_fuzz::ops::decode(bytes).ops);
        panic!("{text}");
    }
});
