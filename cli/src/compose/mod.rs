//! Compose files, turned into what the cluster stores.
