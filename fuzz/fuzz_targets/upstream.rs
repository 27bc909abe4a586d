#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Some(target) = dunlin_tests::fuzz::target("upstream") {
        dunlin_tests::fuzz::run_contained(target, bytes);
    }
});
