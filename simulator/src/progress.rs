//! What a run tells whoever waits for it.

use std::time::Duration;

use tradewind_proto::units::PopId;

/// Told what goes on.
pub trait Progress {
    /// Something worth a line.
    fn note(&mut self, line: &str);

    /// Traffic flows; called about four times a second of the world's time.
    fn tick(&mut self, state: &Tick<'_>);

    /// Whether to end early, with the result so far.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Where a run stands.
#[derive(Debug)]
pub struct Tick<'a> {
    /// Since traffic began.
    pub elapsed: Duration,
    /// Until it ends.
    pub total: Duration,
    /// Every flow, those of a group as one.
    pub flows: &'a [FlowTick],
}

/// Where a flow stands, or a group of flows.
#[derive(Clone, Debug)]
pub struct FlowTick {
    /// Its name.
    pub name: String,
    /// How many flows it is.
    pub flows: usize,
    /// Packets sent each way.
    pub sent: u64,
    /// Packets in time over the overlay.
    pub overlay_in_time: u64,
    /// Packets in time over the direct path, if there is one and it is run at the same time.
    pub direct_in_time: Option<u64>,
    /// The present route; none of several flows.
    pub route: Option<Vec<PopId>>,
}
