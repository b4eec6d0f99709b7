//! The daemon's own relays in virtual time: what the overlay promises, over many seeds.

mod basics;
mod clocks;
mod counters;
mod failures;
mod members;
mod policies;
mod triangle;
mod work;
mod world;
