//! Worlds for Tradewind: PoPs, the links between them, traffic and faults, and what real relays
//! make of them.
//!
//! [`world`] says what there is, [`link`] how a link behaves. [`emulation`] runs a world in real
//! time with real relays ([`cluster`]) and real sockets ([`emulator`], [`traffic`]) and ends in an
//! [`outcome`]. [`virtual_net`] puts the same link models under a virtual clock, and [`overlay`] runs the
//! daemon's own machines over them, without I/O. No rule of the
//! protocol or of routing lives here.

pub mod clock;
pub mod cluster;
pub mod demo;
pub mod emulation;
pub mod emulator;
pub mod link;
pub mod outcome;
pub mod overlay;
pub mod traffic;
pub mod virtual_net;
pub mod world;
