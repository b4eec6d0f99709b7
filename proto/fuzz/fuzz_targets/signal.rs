#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = tradewind_proto_fuzz::signal(bytes);
});
