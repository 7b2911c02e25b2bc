//! Memory that the allocator keeps for itself.

/// Parts of the heap, each with free space of its own. There would be eight for each processor, and of
/// what many threads have used by turns, little can be given back.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 4;

/// Bounds what the allocator keeps. To be called before there are threads.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "glibc has no safe interface")]
pub(crate) fn bound() {
    // SAFETY: takes no pointers, and there is no other thread yet (mallopt(3)). It cannot fail but for
    // a number that is out of range.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS) };
}

/// Other allocators have bounds of their own.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn bound() {}

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
