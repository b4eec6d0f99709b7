//! Bookkeeping of flows at their two ends: fragments and duplicates.
//!
//! The ingress cuts a payload that is too large for the path ([`fragment::fragments`]); the egress
//! hands out each payload at most once ([`receiver::FlowReceiver`]). Which path a packet takes, and
//! which socket it leaves from, is the relay's business.

pub mod fragment;
pub mod reassembly;
pub mod receiver;
pub mod window;
