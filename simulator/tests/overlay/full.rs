//! Links that carry less than they are asked for: they are left, and not tried again at once.

use std::time::Duration;

use tradewind_proto::units::Timestamp;
use tradewind_simulator::link::{LinkSpec, Rate};
use tradewind_simulator::overlay::{FlowNumber, FlowSpec, Overlay, START, pop};

use crate::world::{delay, ms, overlay, secs};

/// When the path in use at the ingress led over `via`, from `since` to now.
fn visits(
    overlay: &Overlay,
    flow: FlowNumber,
    via: &str,
    since: Timestamp,
) -> Vec<(Duration, Duration)> {
    let (routes, key) = (&overlay.record(flow).routes, pop(via).key());
    let ends = routes.iter().skip(1).map(|(at, _)| *at).chain([overlay.now()]);
    let spans = routes.iter().zip(ends).filter(|((_, path), end)| {
        *end > since && path.is_some_and(|path| path.pops().contains(&key))
    });
    spans.map(|((from, _), end)| (from.since(since), end.since(since))).collect()
}

/// A flow of 2 Mbit/s, 2.2 with all headers, goes over `n`; then the way over `m` becomes much shorter, but
/// one of its links, which nobody has used so far, carries 1 or 2 Mbit/s. With 2 its queue grows for so
/// long before any packet is late that no loss tells.
#[test]
fn an_untried_way_that_is_too_narrow_is_left_within_a_second_and_seldom_tried_again() {
    let narrow = [("a", "m", 1), ("m", "b", 1), ("a", "m", 1), ("a", "m", 2), ("m", "b", 2)];
    for (seed, (from, to, mbps)) in narrow.into_iter().enumerate() {
        let narrow = (from, to);
        let links =
            [("a", "b", 300), ("a", "m", 100), ("m", "b", 100), ("a", "n", 25), ("n", "b", 25)];
        let links: Vec<_> = links.iter().map(|&(a, b, millis)| (a, b, delay(millis))).collect();
        let mut overlay = overlay(seed as u64, &["a", "b", "m", "n"], &links);
        let flow = FlowSpec { interval: ms(4), ..FlowSpec::new("a", "b") }; // 1,000 bytes each
        let flow = overlay.flow(flow.between(secs(6), secs(200)));
        overlay.run_until(START + secs(13));
        assert_eq!(overlay.route("a", "b").unwrap_or_default(), ["a", "n", "b"]);
        let began = overlay.now();
        for (a, b) in [("a", "m"), ("m", "b")] {
            let rate = ((a, b) == narrow).then(|| Rate::with_default_queue(mbps << 20));
            overlay.link_both(a, b, &LinkSpec { rate, ..delay(10) });
        }
        overlay.run_for(secs(90));
        let visits = visits(&overlay, flow, "m", began);
        println!("seed {seed}, {narrow:?} with {mbps} Mbit/s: over m {visits:?}");
        // It is remembered for 10, 20 and 40 s. Who forgot it at once would come back ten times.
        assert!((1..=5).contains(&visits.len()), "seed {seed}: {visits:?}");
        assert!(visits.iter().all(|(from, to)| *to - *from <= secs(1)), "seed {seed}: {visits:?}");
        let (delivered, sent) =
            overlay.record(flow).delivered_of(began, overlay.now().minus(secs(1)));
        assert!(delivered * 100 >= sent * 97, "seed {seed}: {delivered} of {sent}");
    }
}
