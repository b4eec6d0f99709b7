//! The daemon's own relays in virtual time: what the overlay promises, over many seeds.

mod basics;
mod clocks;
mod counters;
mod degraded;
mod disjoint;
mod failures;
mod full;
mod members;
#[path = "../../examples/failover/mesh.rs"]
mod mesh;
mod partners;
mod policies;
mod triangle;
mod work;
mod world;
