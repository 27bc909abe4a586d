//! Gives memory back that the allocator keeps.
//!
//! glibc's allocator returns what is freed at the top of a heap and keeps the holes below it. A
//! daemon that once had much in its hands (a compaction, a flood of connections) would stay large
//! for ever: 60 MB after a thousand changes of which 16 were in use.
#![allow(unsafe_code)]

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Time between two sweeps. Each looks at every free piece: 1 ms for a heap of 30 MB, which is
/// nothing twice a minute, and what is given back is not needed again soon.
const EVERY: Duration = Duration::from_secs(30);

/// Sweeps until it is told to stop.
pub(super) async fn give_back(stop: CancellationToken) {
    let sweeping = async {
        loop {
            tokio::time::sleep(EVERY).await;
            // Whoever allocates meanwhile waits for the heap's lock, but no other task does.
            if tokio::task::spawn_blocking(trim).await.is_err() {
                return;
            }
        }
    };
    stop.run_until_cancelled(sweeping).await;
    stop.cancelled().await;
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it takes no pointer, may be called at any time from any thread (malloc_trim(3)),
    // and moves or frees nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give back by themselves, or cannot be told to.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
