//! How a relay chooses paths: link state, clock coordinates, the metric, policies, routes and why.
//!
//! Functions and machines over what relays say of themselves ([`tradewind_proto::statement`]);
//! nothing here sends anything or reads a clock.
//!
//! - [`lsdb`]: everybody's newest statements, and which of them a neighbour lacks;
//! - [`clock`]: one-way delays without synchronised clocks;
//! - [`metric`]: what a link costs; [`policy`]: who may be visited; [`graph`]: both on a graph;
//! - [`paths`]: the searches; [`routes`]: the choice, with hysteresis; [`explain`]: why;
//! - [`tables`]: the snapshot that the packet path reads.

pub mod clock;
pub mod explain;
pub mod graph;
mod hysteresis;
pub mod lsdb;
pub mod metric;
pub mod paths;
pub mod policy;
pub mod routes;
pub mod tables;
#[cfg(test)]
mod world;
