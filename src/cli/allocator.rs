//! Limits the memory that the C library's allocator keeps.

use std::time::Duration;

/// Time between two times that freed memory is given back. A mount that is read quickly keeps 50 MiB more with five
/// seconds.
const INTERVAL: Duration = Duration::from_secs(1);
/// Processor time for each [`INTERVAL`] below which nothing worth giving back was freed.
const IDLE_MAX: Duration = Duration::from_millis(20);

/// Keeps the memory of a long run close to what it uses. By default glibc opens an arena for nearly every thread and
/// keeps large freed buffers. That takes a third more memory for the first backup of an organisation. It also keeps
/// what is freed between two buffers that are in use: as much as is used, after an hour. A thread gives that back every
/// second.
///
/// Call it before any other thread starts.
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
    // Without the thread the run takes more memory, and that is all.
    drop(std::thread::Builder::new().name("memory".to_owned()).spawn(give_back_freed));
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "the standard library cannot ask the allocator for this")]
fn give_back_freed() {
    let (mut used, mut was_busy) = (cpu_time(), true);
    loop {
        std::thread::sleep(INTERVAL);
        let now = cpu_time();
        let is_busy = now.saturating_sub(used) > IDLE_MAX;
        if is_busy || was_busy {
            // SAFETY: `malloc_trim` takes an integer, locks what it looks at, and frees only what nobody uses.
            unsafe { libc::malloc_trim(0) };
        }
        (used, was_busy) = (now, is_busy);
    }
}

/// Returns the processor time that this process has used.
#[cfg(target_env = "gnu")]
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.try_into().unwrap_or_default()
}

/// Other allocators are not changed.
#[cfg(not(target_env = "gnu"))]
pub fn bound() {}
