//! The real `tradewind`: relay processes, real sockets, certificates by `tradewind cert`.
//!
//! All on loopback, and bounded in time by what a busy machine may need, never by how fast a
//! relay is: figures come from benchmarks.
#![allow(clippy::disallowed_methods, reason = "real time is what these tests run in")]

mod carrying;
mod diamond;
mod failing;
mod failover;
mod harness;
mod operating;
mod refusing;
mod traffic;
