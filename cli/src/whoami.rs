//! `dunlin whoami`: a tiny HTTP workload that says who it is.
