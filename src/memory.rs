//! Gives memory back to the system. The first lists of all objects take several times what is kept of them, and glibc
//! keeps what was freed between objects that are in use.

use std::time::Duration;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(10);

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
