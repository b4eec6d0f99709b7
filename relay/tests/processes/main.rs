//! The real `tradewind`: relay processes, real sockets, certificates by `tradewind cert`.
//!
//! All on loopback, and bounded in time by what a busy machine may need, never by how fast a
//! relay is: figures come from benchmarks.

mod carrying;
mod failing;
mod harness;
mod refusing;
mod traffic;
