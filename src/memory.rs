//! Gives memory back to the system. The first lists of all objects take several times what is kept of them, and glibc
//! keeps what was freed between objects that are in use.

use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(10);

/// Keeps all threads' memory in one place, where it is used again sooner. Before the first thread is started.
pub fn in_one_place() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it sets a parameter of the allocator, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back, now and then, without end.
pub async fn give_back() {
    let mut every = tokio::time::interval(EVERY);
    loop {
        every.tick().await;
        trim();
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: malloc_trim may be called at any time from any thread; it touches free memory only.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give it back by themselves, or cannot.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
