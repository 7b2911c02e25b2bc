//! Memory that the allocator keeps for itself.

/// Gives back to the system what was freed. Each thread that packed or unpacked a layer leaves
/// megabytes to the allocator, which would keep them for work that may never come.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc has no safe interface")]
pub(crate) fn give_back() {
    // SAFETY: takes no pointers, and may be called at any time by any thread (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}
