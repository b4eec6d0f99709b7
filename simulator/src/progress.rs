//! What a run tells whoever waits for it.

use std::time::Duration;

use tradewind_proto::units::PopId;

use crate::baseline::Way;
use crate::emulator::LinkReport;
use crate::traffic::FlowReport;

/// Told what goes on; what nobody cares for is ignored.
pub trait Progress {
    /// Something worth a line.
    fn note(&mut self, _line: &str) {}

    /// Traffic flows; called about four times a second of the world's time.
    fn tick(&mut self, _state: &Tick<'_>) {}

    /// Figures so far of one way, for whoever keeps them: called at every tick. Asking for them
    /// costs time.
    fn record(&mut self, _way: Way, _at: Duration, _figures: &mut dyn FnMut() -> Figures) {}

    /// The same once more, when all that may still come has come.
    fn record_last(&mut self, way: Way, at: Duration, figures: &mut dyn FnMut() -> Figures) {
        self.record(way, at, figures);
    }

    /// Whether to end early, with the result so far.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Waits for the result alone.
#[derive(Clone, Copy, Debug)]
pub struct Silent;

impl Progress for Silent {}

/// What was measured so far, all counted since traffic began or before.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// In the order of [`World::rows`](crate::world::World::rows); `None`: not on this way.
    pub rows: Vec<Option<FlowReport>>,
    /// Every direction of every link, always in the same order; none for the direct way.
    pub links: Vec<LinkReport>,
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
