//! A queue of messages that is bounded by their number and by their bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

/// How much one queue holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) messages: usize,
    pub(super) bytes: usize,
}

/// The end that drops what does not fit.
#[derive(Debug)]
pub(super) struct Sender {
    queue: mpsc::Sender<Bytes>,
    queued: Arc<AtomicUsize>,
    max_bytes: usize,
}

/// The end of the connection that writes.
#[derive(Debug)]
pub(super) struct Receiver {
    queue: mpsc::Receiver<Bytes>,
    queued: Arc<AtomicUsize>,
}

pub(super) fn queue(bound: Bound) -> (Sender, Receiver) {
    let (sender, receiver) = mpsc::channel(bound.messages);
    let queued = Arc::new(AtomicUsize::new(0));
    let sender = Sender {
        queue: sender,
        queued: Arc::clone(&queued),
        max_bytes: bound.bytes,
    };
    let receiver = Receiver {
        queue: receiver,
        queued,
    };
    (sender, receiver)
}

impl Sender {
    /// False when it does not fit or nobody writes any more; it is dropped then.
    pub(super) fn push(&self, bytes: Bytes) -> bool {
        let len = bytes.len();
        // Only the other end changes the count meanwhile, and only downwards.
        if self.queued.load(Ordering::Relaxed).saturating_add(len) > self.max_bytes {
            return false;
        }
        self.queued.fetch_add(len, Ordering::Relaxed);
        let fits = self.queue.try_send(bytes).is_ok();
        if !fits {
            self.queued.fetch_sub(len, Ordering::Relaxed);
        }
        fits
    }
}

impl Receiver {
    /// The next message; `None` when the sender is gone.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        self.queue.recv().await
    }

    /// The next message, if one is there.
    pub(super) fn next_now(&mut self) -> Option<Bytes> {
        self.queue.try_recv().ok()
    }

    /// Makes room for as many bytes: they have been written.
    pub(super) fn written(&self, len: usize) {
        self.queued.fetch_sub(len, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Bound = Bound {
        messages: 3,
        bytes: 10,
    };

    #[test]
    fn messages_and_bytes_are_both_bounded() {
        let (sender, _receiver) = queue(BOUND);
        assert!(sender.push(Bytes::from_static(b"12345678")));
        assert!(!sender.push(Bytes::from_static(b"123")), "bytes");
        assert!(sender.push(Bytes::from_static(b"1")));
        assert!(sender.push(Bytes::new()));
        assert!(!sender.push(Bytes::new()), "messages");
    }

    #[test]
    fn writing_makes_room() {
        let (sender, mut receiver) = queue(BOUND);
        assert!(sender.push(Bytes::from_static(b"1234567890")));
        let message = receiver.next_now().unwrap();
        assert!(!sender.push(Bytes::from_static(b"1")), "not written yet");
        receiver.written(message.len());
        assert!(sender.push(Bytes::from_static(b"1234567890")));
    }

    #[test]
    fn nothing_is_counted_that_was_dropped() {
        let (sender, receiver) = queue(BOUND);
        drop(receiver);
        assert!(!sender.push(Bytes::from_static(b"1234567890")));
        assert_eq!(sender.queued.load(Ordering::Relaxed), 0);
    }
}
