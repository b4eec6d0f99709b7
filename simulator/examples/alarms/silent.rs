//! How often a link that lives is taken for dead: two `Link` machines of the protocol, hot and
//! silent (nothing but heartbeats and reports to judge by), over a lossy link model.

use std::time::Duration;

use tradewind_proto::link::{Heat, Link, LinkConfig, Recovery};
use tradewind_proto::units::{PopId, Timestamp};
use tradewind_simulator::link::{LinkSpec, Loss};
use tradewind_simulator::overlay::pop;
use tradewind_simulator::virtual_net::VirtualNet;

use crate::ONE_WAY;

/// Some moment in 2026; the machines want plausible clocks.
const START: Timestamp = Timestamp::from_micros(1_790_000_000_000_000);
/// What comes before counts for nothing: the link learns its loss.
const WARMUP: Duration = Duration::from_secs(20);

/// One link for so long: suspicions and downs of both ends.
pub fn run(loss: Loss, span: Duration, seed: u64) -> (u64, u64) {
    let names: [PopId; 2] = ["a", "b"].map(pop);
    let mut net = VirtualNet::new(seed);
    net.connect_both(&names[0], &names[1], LinkSpec { loss, ..LinkSpec::with_delay(ONE_WAY) });
    let config = LinkConfig { datagram: 1_414, peer_clock_offset: 0, recovery: Recovery::Plan };
    let mut ends = [(); 2].map(|()| Link::new(config.clone(), START));
    ends.iter_mut().for_each(|end| end.set_heat(Heat::Hot, START));
    let alarms = |ends: &[Link; 2]| {
        let counters = ends.each_ref().map(|end| (end.counters().suspects, end.counters().downs));
        (counters[0].0 + counters[1].0, counters[0].1 + counters[1].1)
    };
    let mut before = None;
    let mut now = START;
    while now < START + WARMUP + span {
        if before.is_none() && now >= START + WARMUP {
            before = Some(alarms(&ends));
        }
        if net.next_at() <= now
            && let Some(arrival) = net.next()
        {
            ends[usize::from(arrival.to == names[1])].handle_datagram(arrival.datagram, now);
        }
        for (end, other) in [(0, 1), (1, 0)] {
            if ends[end].poll_timeout() <= now {
                ends[end].handle_timeout(now);
            }
            while let Some(datagram) = ends[end].poll_transmit(now) {
                net.send(&names[end], &names[other], datagram, now);
            }
            while ends[end].poll_event().is_some() {}
        }
        let wake = ends.iter().map(Link::poll_timeout).min().unwrap_or(Timestamp::NEVER);
        now = net.next_at().min(wake).max(now);
    }
    let (was, is) = (before.unwrap_or_default(), alarms(&ends));
    (is.0 - was.0, is.1 - was.1)
}
