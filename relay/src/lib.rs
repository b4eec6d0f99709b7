//! A Tradewind relay: the daemon around the machines, its configuration and identity, and what
//! the `tradewind` command is made of.

pub mod api;
pub mod cli;
pub mod config;
mod driver;
pub mod identity;
pub mod metrics;
pub mod node;

pub use config::Config;
pub use driver::{Command, Relay, quic, run};
