//! A relay sleeps when there is nothing to do.

use tradewind_simulator::overlay::{FlowSpec, Overlay, Work};

use crate::world::{delay, overlay, secs};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

fn mesh() -> Overlay {
    let mut links = Vec::new();
    for (i, a) in NAMES.iter().enumerate() {
        for (j, b) in NAMES.iter().enumerate().skip(i + 1) {
            links.push((*a, *b, delay(10 + (i * 4 + j) as u64)));
        }
    }
    overlay(1, &NAMES, &links)
}

/// Wake-ups and calls of the busiest relay per second, over ten seconds.
fn per_second(overlay: &mut Overlay) -> Work {
    let before = NAMES.map(|name| overlay.work(name));
    overlay.run_for(secs(10));
    let spent = NAMES.into_iter().zip(before).map(|(name, before)| {
        let after = overlay.work(name);
        let (wake_ups, calls) = (after.wake_ups - before.wake_ups, after.calls - before.calls);
        Work { wake_ups: wake_ups / 10, calls: calls / 10 }
    });
    spent.max_by_key(|work| work.wake_ups).unwrap_or_default()
}

#[test]
fn wake_ups_are_bounded_by_what_there_is_to_do() {
    let mut overlay = mesh();
    overlay.run_for(secs(20));
    let idle = per_second(&mut overlay);
    overlay.flow(FlowSpec::new("a", "b"));
    overlay.run_for(secs(2));
    let light = per_second(&mut overlay);
    let heavy =
        FlowSpec { interval: std::time::Duration::from_micros(500), ..FlowSpec::new("a", "c") };
    overlay.flow(heavy);
    overlay.run_for(secs(2));
    let loaded = per_second(&mut overlay);
    println!("idle {idle:?}, 200 packets/s {light:?}, 2,200 packets/s {loaded:?}");
    assert!(idle.wake_ups < 60, "{idle:?}");
    assert!(light.wake_ups < 1_000, "{light:?}");
    assert!(loaded.wake_ups < 5_000, "{loaded:?}");
}
