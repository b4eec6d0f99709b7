//! The daemon's own relays in virtual time: what the overlay promises, over many seeds.

mod basics;
mod failures;
mod triangle;
mod world;
