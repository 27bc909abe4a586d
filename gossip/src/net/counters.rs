//! What was dropped or refused, and how often.
//!
//! The shell drops rather than waits: for a full queue, a stranger, a forged datagram. Each place
//! that drops counts here, so that a drop is visible and never a silence.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Live counters, shared by all tasks of the shell.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub(crate) $name: Counter,)*
        }

        /// The counters at one moment, each since the start.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        pub struct CounterValues {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads all counters.
            pub fn read(&self) -> CounterValues {
                CounterValues { $($name: self.$name.get(),)* }
            }
        }

        impl CounterValues {
            /// Names and values, for a metrics page.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Membership datagrams sent.
    datagrams_sent,
    /// Membership datagrams received and opened.
    datagrams_received,
    /// Received datagrams that were not sealed by a member.
    datagrams_refused,
    /// Datagrams not sent, because the queue or the socket's buffer was full, they were too long,
    /// or the host had no route.
    datagrams_unsent,
    /// Datagrams received while the node's queue was full.
    datagrams_overrun,
    /// Connections refused because the other side is no member of this cluster.
    strangers_refused,
    /// Connections that failed to be set up, for any reason.
    connections_failed,
    /// Control messages handed to a connection.
    messages_sent,
    /// Control messages received.
    messages_received,
    /// Control messages not sent: no connection, or its queue was full.
    messages_dropped,
    /// Control messages over the size limit, sent or received.
    messages_oversize,
    /// Requests to this node that were refused because too many were unanswered.
    requests_refused,
    /// Commands to the control plane that were dropped because its queue was full.
    commands_dropped,
    /// Peers that mDNS reported while the node was too busy to hear.
    discoveries_dropped,
}

/// One counter.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
