#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| caravan_fuzz::runbook::run(bytes));
