//! What the C library's allocator may keep.

/// Keeps the memory of a long run close to what it uses. Left alone, glibc opens an arena for nearly every thread, and
/// keeps large buffers that were freed: a third more for a first backup of an organisation.
///
/// Call it before there is a second thread.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "there is no other way to set parameters of the allocator from within")]
pub fn bound() {
    const ARENAS_MAX: libc::c_int = 2;
    const MAPPED_BYTES_MIN: libc::c_int = 1 << 20;
    // SAFETY: it takes two integers, and refuses those that it does not know.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BYTES_MIN);
    }
}

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
pub fn bound() {}
