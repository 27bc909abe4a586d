//! `dunlin demo`: a cluster on this host, shown at work and cleaned up again.
