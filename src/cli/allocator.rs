//! Limits the memory that the C library's allocator keeps.

/// Keeps the memory of a long run close to what it uses. By default glibc opens an arena for nearly every thread and
/// keeps large freed buffers. That takes a third more memory for the first backup of an organisation.
///
/// Call it before a second thread starts.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no other way to set parameters of the allocator from within")]
pub fn bound() {
    const ARENAS_MAX: libc::c_int = 2;
    const MAPPED_BYTES_MIN: libc::c_int = 1 << 20;
    // SAFETY: `mallopt` takes two integers, and refuses parameters that it does not know.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    }
}

/// Other allocators are not changed.
#[cfg(not(target_env = "gnu"))]
pub fn bound() {}
