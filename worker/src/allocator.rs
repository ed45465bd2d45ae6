//! How the worker's allocator, mimalloc, is set.

/// Has the allocator keep what one training step frees for the next.
///
/// By itself it gives memory back after 10 ms, and the kernel fills every page with zeros before it
/// comes again. To be called where mimalloc is the global allocator; elsewhere it does nothing.
pub fn keep_freed_memory() {
    unsafe extern "C" {
        fn mi_option_set(option: std::ffi::c_int, value: std::ffi::c_long);
    }
    /// `mi_option_purge_delay` in mimalloc.h, versions 2 and 3: milliseconds, tenfold for large blocks.
    const PURGE_DELAY: std::ffi::c_int = 15;
    // SAFETY: the function is that of the crate `mimalloc`, with its signature in mimalloc.h; it sets
    // a number that mimalloc reads when it frees memory, and ignores options that it does not know.
    unsafe { mi_option_set(PURGE_DELAY, 10_000) };
}
