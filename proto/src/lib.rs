//! What travels between Tradewind relays, and how a link carries it.
//!
//! Packets and frames ([`packet`], [`frame`]), control messages ([`control`], [`statement`]), the
//! recovery, measurement and pacing of one link ([`link`]), and the bookkeeping of flows
//! ([`flow`]). Machines here take events and the current time and say what to do; they open no
//! socket, read no clock, start no task and know nothing of the graph.

pub mod control;
pub mod flow;
pub mod frame;
pub mod link;
pub mod packet;
pub mod statement;
pub mod units;
pub mod wire;
