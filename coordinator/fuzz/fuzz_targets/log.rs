#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fittingroom_coordinator::fuzz::log(bytes));
