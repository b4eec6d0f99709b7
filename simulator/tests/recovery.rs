//! What the rows of `scripts/bench-recovery` must reach holds with a margin, in short runs.

#[path = "../examples/recovery/scenario.rs"]
mod scenario;
#[path = "../examples/recovery/tradewind.rs"]
mod tradewind;
#[path = "../examples/recovery/trial.rs"]
mod trial;

use scenario::Must;
use tradewind::Tradewind;
use trial::Trial;

const PACKETS: u32 = 20_000;
const SEEDS: u64 = 2;
/// Runs are short: so many packets more than allowed may be missed, ...
const UNLUCKY: f64 = 8.0;
/// ... and so much more be sent per data shard.
const DEARER: f64 = 0.05;

/// Runs the scenarios whose name contains one of `names`.
fn check(names: &[&str]) {
    let mut checked = 0;
    for scenario in scenario::all(PACKETS).expect("the scenarios are sound") {
        let wanted = |name: &String| names.iter().any(|part| name.contains(part));
        let rows = || scenario.phases.iter().filter_map(|phase| phase.row.as_ref());
        if !rows().any(|(name, _)| wanted(name)) {
            continue;
        }
        for seed in 1..=SEEDS * scenario.runs {
            let phases = Trial::<Tradewind>::run(&scenario, seed).expect("it runs");
            for (spec, phase) in scenario.phases.iter().zip(phases) {
                let Some((name, Must { in_time, shards, wire })) = &spec.row else { continue };
                let deadline = scenario.deadline();
                let arrived = phase.delays.iter().filter(|&&delay| delay <= deadline).count();
                let missed = f64::from(spec.packets) - arrived as f64;
                let allowed = |least: f64| (1.0 - least / 100.0) * f64::from(spec.packets);
                if let Some(least) = in_time {
                    let most = allowed(*least) + if *least < 100.0 { UNLUCKY } else { 0.0 };
                    assert!(missed <= most, "{name}, seed {seed}: {missed} missed");
                }
                let hops = phase.after.shards.iter().zip(&phase.before.shards);
                let ratio =
                    |((data, all), (data_before, all_before)): (&(u64, u64), &(u64, u64))| {
                        (all - all_before) as f64 / (data - data_before) as f64
                    };
                let worst = hops.map(ratio).fold(0.0, f64::max);
                if let Some(most) = shards {
                    let most = if *most > 1.0 { most + DEARER } else { 1.0 };
                    assert!(worst <= most, "{name}, seed {seed}: {worst} shards per data shard");
                }
                if let Some(most) = wire {
                    let bytes: u64 = phase.after.wire.iter().sum::<u64>()
                        - phase.before.wire.iter().sum::<u64>();
                    let plain = f64::from(spec.packets) * (scenario.payload + 28) as f64;
                    let ratio = bytes as f64 / plain;
                    assert!(ratio <= *most, "{name}, seed {seed}: {ratio} of plain UDP");
                }
                checked += 1;
            }
        }
    }
    assert!(checked > 0, "there is no row {names:?}");
}

#[test]
fn a_clean_link_carries_no_redundancy_and_few_reports() {
    check(&["no loss"]);
}

#[test]
fn one_hop_delivers_in_time_at_a_bounded_cost() {
    check(&["5 %", "30 %", "propagation + 25 ms"]);
}

#[test]
fn a_lone_audio_flow_is_delivered_in_time() {
    check(&["audio"]);
}

#[test]
fn three_hops_with_bursts_miss_next_to_nothing() {
    check(&["3 hops", "bursts of 5 ms"]);
}

#[test]
fn a_step_in_loss_is_followed_within_half_a_second() {
    check(&["0 to 30 %"]);
}
