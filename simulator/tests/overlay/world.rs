//! Small networks that several tests start from.

use std::time::Duration;

use tradewind_simulator::link::LinkSpec;
use tradewind_simulator::overlay::{Overlay, RelaySpec, pop};

pub fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn delay(millis: u64) -> LinkSpec {
    LinkSpec::with_delay(ms(millis))
}

/// Relays of these names with links as given, both directions alike, all started at once. The
/// first is the peer that the others dial.
pub fn overlay(seed: u64, names: &[&str], links: &[(&str, &str, LinkSpec)]) -> Overlay {
    let mut overlay = Overlay::new(seed);
    for name in names {
        overlay.add(RelaySpec::new(pop(name)).dialling(names[..1].iter().copied()));
    }
    for (a, b, spec) in links {
        overlay.link_both(a, b, spec);
    }
    overlay.start_all();
    overlay
}
