//! Packets that enter links, told to a capture.

use std::collections::BTreeMap;

use tradewind_proto::units::Timestamp;

use super::Overlay;
use crate::capture::{Capture, Payload};
use crate::link::Fate;
use crate::world::LinkId;

/// A capture that runs.
pub(super) struct Tap {
    capture: Capture,
    /// When it began: its time 0.
    since: Timestamp,
    /// The capture's numbers of links, by their ends.
    links: BTreeMap<(usize, usize), usize>,
}

impl Tap {
    pub(super) fn note(
        &mut self,
        ends: (usize, usize),
        now: Timestamp,
        bytes: usize,
        payload: Payload<'_>,
        fate: Fate,
    ) {
        if let Some(&link) = self.links.get(&ends) {
            self.capture.packet(link, now.since(self.since), bytes, payload, fate);
        }
    }
}

impl Overlay {
    /// From now on writes down the packets that enter the capture's links; now is its time 0.
    pub fn start_capture(&mut self, capture: Capture) {
        let ends = |(from, to): &LinkId| (self.number(from.as_str()), self.number(to.as_str()));
        let links = capture.links().map(ends).zip(0..).collect();
        self.tap = Some(Tap { capture, since: self.now, links });
    }

    /// Ends the capture that was started.
    pub fn end_capture(&mut self) -> Option<Capture> {
        self.tap.take().map(|tap| tap.capture)
    }
}
