//! What the rows of `scripts/bench-recovery` must reach holds with a margin, in short runs.

#[path = "../examples/recovery/figures.rs"]
mod figures;
#[path = "../examples/recovery/nodes.rs"]
mod nodes;
#[path = "../examples/recovery/scenario.rs"]
mod scenario;

use scenario::Must;

const PACKETS: u32 = 20_000;
const SEEDS: u64 = 2;
/// Runs are short: so many packets more than allowed may be missed, ...
const UNLUCKY: f64 = 12.0;
/// ... and so much more be sent per data shard.
const DEARER: f64 = 0.03;
/// What half of the packets may take beyond propagation, in milliseconds.
const SLOWER: f64 = 1.0;

/// Runs the scenarios whose name contains one of `names`.
fn check(names: &[&str]) {
    let mut checked = 0;
    for scenario in scenario::all(PACKETS) {
        if !scenario.rows().any(|(row, _)| names.iter().any(|part| row.contains(part))) {
            continue;
        }
        let run = |seed| nodes::run(&scenario, seed).expect("it runs");
        let mut phases = run(1);
        for seed in 2..=SEEDS * scenario.runs {
            for (sum, phase) in phases.iter_mut().zip(run(seed)) {
                sum.add(&phase);
            }
        }
        for (spec, phase) in scenario.phases.iter().zip(phases) {
            let Some((name, Must { in_time, shards, wire })) = &spec.row else { continue };
            let figures = phase.figures(&scenario);
            if let Some(least) = in_time {
                let missed = (1.0 - figures.in_time / 100.0) * phase.flow.sent as f64;
                let allowed = (1.0 - least / 100.0) * phase.flow.sent as f64;
                let most = allowed + if *least < 100.0 { UNLUCKY } else { 0.5 };
                assert!(missed <= most, "{name}: {missed:.0} missed");
            }
            // At 50 % loss it is a matter of luck whether half come without repair.
            let luck = name.starts_with("50 %");
            let median = figures.delays[0].expect("something is delivered");
            let propagation = (scenario.deadline() - scenario.slack).as_secs_f64() * 1e3;
            assert!(luck || median <= propagation + SLOWER, "{name}: half take {median} ms");
            if let Some((most, shards)) = shards.zip(figures.shards) {
                let most = if most > 1.0 { most + DEARER } else { 1.0 };
                assert!(shards <= most, "{name}: {shards} shards per data shard");
            }
            if let Some((most, wire)) = wire.zip(figures.wire) {
                let times_plain = wire.iter().sum::<f64>() / (1.0 + 28.0 / scenario.payload as f64);
                assert!(times_plain <= most, "{name}: {times_plain} of plain UDP");
            }
            checked += 1;
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
