//! Worlds for Tradewind: PoPs, the links between them, traffic and faults, and what real relays
//! make of them.
//!
//! [`world`] says what there is, [`link`] how a link behaves. [`emulation`] runs a world in real
//! time with real relays ([`relays`], [`cluster`]) and real sockets ([`emulator`], [`traffic`]), [`simulation`]
//! in virtual time with the daemon's own machines ([`overlay`]); both end in an [`outcome`].
//! [`sweep`] runs a grid of worlds, [`what_if`] a world with and without changes.
//! [`virtual_net`] has the event queue, and the link models under a virtual clock. No rule of the protocol or of
//! routing lives here.

pub mod baseline;
pub mod capture;
pub mod clock;
pub mod cluster;
pub mod demo;
pub mod emulation;
pub mod emulator;
mod fluid;
pub mod link;
pub mod outcome;
pub mod overlay;
pub mod progress;
pub mod relays;
pub mod report;
pub mod script;
pub mod simulation;
pub mod snapshot;
pub mod sweep;
pub mod traffic;
pub mod virtual_net;
pub mod what_if;
pub mod world;
