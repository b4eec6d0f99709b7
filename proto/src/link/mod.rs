//! One link: both directions between two neighbours, over an unreliable datagram channel.
//!
//! A [`Link`] takes packets with the time by which each must reach the neighbour, sends them at
//! once, repairs what was lost while that still helps, and hands out what the neighbour sent. It
//! measures both directions and says when the other side falls silent. It knows neither paths nor
//! flows: whoever drives it decides what goes over it.
//!
//! # How it works
//!
//! Whatever needs to be known to have arrived takes the next link sequence number: data, repeats,
//! parity, heartbeats, probes. The receiver only says which numbers came (`receipts`); the sender
//! keeps what each number was (`sent`) and so knows which shards of each group the neighbour has
//! (`group`, `outgoing`) and decides alone about every repair, by [`plan`] and by the rounds that
//! still fit before the deadline (`outlook`). The receiver passes packets up as they come and
//! rebuilds what it can (`incoming`, [`code`]). [`Link`] itself is in `machine`, `receive` and
//! `transmit`. [`meter`], [`rate`], [`pacer`], [`queue`] and [`liveness`] measure and pace.
//!
//! # Memory
//!
//! Per link and direction at most 32 MiB of packets for repair and 32 MiB of shards for rebuilding
//! (each in at most 4,096 groups), the queue, and about 2 MiB of bookkeeping. Packets are slices of
//! the datagrams that carry them, so what is kept may hold on to its neighbours in memory for as
//! long. Plans are shared by all links of a process: see [`plan`].

mod clock;
pub mod code;
mod counters;
mod datagram;
mod group;
mod incoming;
pub mod liveness;
mod machine;
pub mod meter;
mod outgoing;
mod outlook;
pub mod pacer;
pub mod plan;
pub mod queue;
pub mod rate;
mod receipts;
mod receive;
mod recovery;
mod sent;
mod traffic;
mod transmit;

use std::time::Duration;

use bytes::Bytes;

pub use self::counters::Counters;
pub use self::machine::Link;
pub use self::outgoing::LONGEST_OPEN;
pub use self::receipts::{BEAT_ANSWER, OVERDUE, REORDERING};
pub use self::receive::GUARD;
pub use self::recovery::Recovery;
use crate::packet::Header;
use crate::units::Timestamp;

/// What a link is told at its start.
#[derive(Clone, Debug)]
pub struct LinkConfig {
    /// The largest datagram that the channel carries, in bytes.
    pub datagram: usize,
    /// The neighbour's clock less ours, in microseconds, known to some minutes (from the hello): it
    /// completes the neighbour's 32-bit timestamps, no more.
    pub peer_clock_offset: i64,
    /// How losses are made up for.
    pub recovery: Recovery,
}

/// A packet to carry to the neighbour.
#[derive(Clone, Debug)]
pub struct Outbound {
    /// Its path stands at the neighbour already; its budget holds at `entered`; `sent_at` is filled in by the link.
    pub header: Header,
    /// What follows the header.
    pub payload: Bytes,
    /// When the header's budget was right.
    pub entered: Timestamp,
    /// When it must be with the neighbour to be of use: the deadline less what the rest of the path takes.
    pub arrive_by: Timestamp,
}

/// A packet that the neighbour sent.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Its budget has been charged for the link, repair included.
    pub header: Header,
    /// What follows the header.
    pub payload: Bytes,
}

/// What happened on the link.
#[derive(Clone, Debug)]
pub enum LinkEvent {
    /// A packet came (in whatever order, but each once).
    Received(Inbound),
    /// The state of the outgoing direction changed.
    Liveness(Liveness),
}

/// Whether packets sent on the link arrive. DESIGN: each direction is judged apart; this is the outgoing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Liveness {
    /// Nothing acknowledged yet.
    Starting,
    /// Packets arrive.
    Up,
    /// Silent for three gaps: new and unacknowledged packets should take the detour; may err.
    Suspect,
    /// Silent for so long that it is no accident.
    Down,
}

/// Whether the link is in use: decides how often a silent link is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Heat {
    /// Carries traffic, or is the detour or backup of one that does: silent for at most 10 ms.
    Hot,
    /// A heartbeat a second.
    Cold,
}

impl Heat {
    /// The longest that a link is silent.
    pub const fn gap(self) -> Duration {
        match self {
            Self::Hot => Duration::from_millis(10),
            Self::Cold => Duration::from_secs(1),
        }
    }
}

/// What the link measured. `tx`: towards the neighbour, `rx`: from it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Smoothed round-trip time, `None` before the first.
    pub rtt: Option<Duration>,
    /// Least round-trip time of the last minute or so.
    pub min_rtt: Option<Duration>,
    /// Smoothed one-way delay as the clocks show it: arrival on the neighbour's clock less departure on ours, in microseconds.
    pub raw_delay_tx: Option<i64>,
    /// The same for the other direction: arrival on our clock less departure on the neighbour's.
    pub raw_delay_rx: Option<i64>,
    /// Smoothed deviation of the delay.
    pub jitter_tx: Duration,
    /// Smoothed deviation of the delay.
    pub jitter_rx: Duration,
    /// Delay beyond the least, of late.
    pub queueing_tx: Duration,
    /// Share of datagrams lost, 0 to 1.
    pub loss_tx: f32,
    /// What that may well be, as long as little is known of a loss that has worsened.
    pub loss_tx_at_most: f32,
    /// Share of datagrams lost, 0 to 1.
    pub loss_rx: f32,
    /// Mean length of a burst of losses, in datagrams; at least 1.
    pub burst_tx: f32,
    /// What the pacer allows now, bits per second.
    pub rate_bps: u64,
    /// What the link was found to carry at most, bits per second; `None` while no limit was met.
    pub capacity_bps: Option<u64>,
    /// What it carries at present, bits per second.
    pub load_bps: u64,
    /// What it was asked to carry: also what expired in its queue or found no room there. Too much of
    /// it is remembered for some time, even if the traffic has gone elsewhere.
    pub demand_bps: u64,
    /// How the newest group was protected; `None` before the first.
    pub protection_tx: Option<Protection>,
    /// Repeats and parity of the last second, in bytes per byte of data.
    pub redundancy_tx: f32,
}

/// The recovery plan in force, as one group shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// Packets of the group.
    pub packets: u8,
    /// Parity shards that followed them at once.
    pub parity: u8,
    /// How often it could be helped, that first time included; 0: too late for any help.
    pub rounds: u8,
}

/// Why [`Link::send`] did not take a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Header and payload exceed [`Link::max_packet`].
    #[error("the packet is larger than the link carries")]
    TooLarge,
    /// The queue of its class is full.
    #[error("the queue is full")]
    QueueFull,
    /// It can't arrive in time any more.
    #[error("the packet is too late")]
    Late,
}
