//! What arrives, in what time and at what cost.

use std::collections::BTreeMap;
use std::time::Duration;

use tradewind_proto::link::{Heat, Recovery};
use tradewind_proto::units::{Class, Timestamp};

use crate::channel::{Bench, Channel, assert_balance};

const QUIET: Duration = Duration::from_secs(2);

/// A flow of equal packets.
#[derive(Clone, Copy)]
struct Flow {
    packets: u32,
    gap: Duration,
    len: usize,
    /// From sending to arrival.
    deadline: Duration,
}

const VIDEO: Flow = Flow {
    packets: 20_000,
    gap: Duration::from_micros(500),
    len: 1200,
    deadline: Duration::from_millis(120),
};

struct Outcome {
    /// Share of packets that did not arrive in time.
    missed: f64,
    /// Shards sent per data shard.
    cost: f64,
    bench: Bench,
}

/// Sends the flow over a link that has been up for a second.
fn run(channel: Channel, flow: Flow, seed: u64) -> Outcome {
    run_on(Bench::new(channel, seed), flow)
}

fn run_on(mut bench: Bench, flow: Flow) -> Outcome {
    for end in 0..2 {
        let now = bench.clock(end);
        bench.ends[end].link.set_heat(Heat::Hot, now);
    }
    bench.run_for(Duration::from_secs(1));
    let mut sent_at = Vec::new();
    for seq in 0..flow.packets {
        sent_at.push(bench.now);
        let _ = bench.send(seq, flow.len, flow.deadline);
        bench.run_until(bench.now + flow.gap);
    }
    bench.run_for(QUIET);
    assert_balance(&bench);
    let missed = count_missed(&bench, &sent_at, flow);
    let counters = bench.counters(0);
    let shards = counters.data_tx + counters.repeat_tx + counters.parity_tx;
    let cost = shards as f64 / counters.data_tx as f64;
    Outcome { missed: missed as f64 / f64::from(flow.packets), cost, bench }
}

/// Checks that each packet came at most once and unchanged, and counts those not in time.
fn count_missed(bench: &Bench, sent_at: &[Timestamp], flow: Flow) -> usize {
    let mut in_time = BTreeMap::new();
    for (at, inbound) in &bench.ends[1].received {
        let seq = inbound.header.seq.0;
        let expected = [&seq.to_be_bytes()[..], &vec![seq as u8; flow.len - 4]].concat();
        assert_eq!(inbound.payload, expected);
        let age = at.since(sent_at[seq as usize]);
        assert_eq!(in_time.insert(seq, age <= flow.deadline), None, "packet {seq} came twice");
    }
    sent_at.len() - in_time.values().filter(|&&in_time| in_time).count()
}

#[test]
fn a_clean_link_carries_everything_once_and_adds_next_to_nothing() {
    for seed in 0..6 {
        let Outcome { missed, cost, bench } = run(Channel::lossy(0.0), VIDEO, seed);
        assert_eq!((missed, cost), (0.0, 1.0), "seed {seed}");
        let plain = f64::from(VIDEO.packets) * VIDEO.len as f64;
        let bytes = (bench.counters(0).bytes_tx + bench.counters(1).bytes_tx) as f64;
        assert!(bytes / plain < 1.06, "seed {seed}: {}", bytes / plain);
    }
}

/// The most that may be missed and spent on average over some seeds.
struct Limit {
    loss: f64,
    /// Mean burst in datagrams; 0 for independent losses.
    burst: f64,
    missed: f64,
    cost: f64,
}

const fn limit(loss: f64, burst: f64, missed: f64, cost: f64) -> Limit {
    Limit { loss, burst, missed, cost }
}

fn assert_within(limits: &[Limit], flow: Flow, seeds: u64) {
    for &Limit { loss, burst, missed, cost } in limits {
        let channel = Channel { burst, ..Channel::lossy(loss) };
        let runs: Vec<Outcome> = (0..seeds).map(|seed| run(channel, flow, seed)).collect();
        let mean = |of: fn(&Outcome) -> f64| runs.iter().map(of).sum::<f64>() / seeds as f64;
        let (was_missed, did_cost) = (mean(|run| run.missed), mean(|run| run.cost));
        let name = format!("loss {loss}, burst {burst}: missed {was_missed}, cost {did_cost}");
        assert!(was_missed <= missed, "{name}");
        assert!(did_cost <= cost, "{name}");
    }
}

#[test]
fn independent_losses_are_repaired_in_time_for_little() {
    let limits = [
        limit(0.01, 0.0, 1e-4, 1.03),
        limit(0.02, 0.0, 1e-4, 1.05),
        limit(0.05, 0.0, 1e-4, 1.12),
        limit(0.10, 0.0, 2e-4, 1.20),
        limit(0.20, 0.0, 2e-4, 1.40),
        limit(0.30, 0.0, 1e-3, 1.63),
        limit(0.50, 0.0, 3e-3, 2.36),
    ];
    assert_within(&limits, VIDEO, 2);
}

#[test]
fn bursts_are_ridden_out() {
    let limits = [limit(0.02, 3.0, 5e-4, 1.06), limit(0.05, 5.0, 1e-3, 1.16)];
    assert_within(&limits, VIDEO, 2);
}

#[test]
fn a_lone_slow_flow_waits_for_no_group() {
    let audio = Flow { packets: 1500, gap: Duration::from_millis(20), len: 160, ..VIDEO };
    let limits =
        [limit(0.0, 0.0, 0.0, 1.0), limit(0.10, 0.0, 2e-3, 1.5), limit(0.30, 0.0, 3e-3, 2.9)];
    assert_within(&limits, audio, 3);
}

#[test]
fn without_time_for_a_round_trip_parity_does_it_alone() {
    let short = Flow { deadline: Duration::from_millis(45), ..VIDEO };
    let limits = [limit(0.02, 0.0, 1e-3, 1.3), limit(0.10, 0.0, 1e-3, 1.65)];
    assert_within(&limits, short, 2);
}

#[test]
fn time_that_hardly_makes_another_round_does_no_harm() {
    // A round is some 44 ms here, and 20 ms is propagation.
    for (loss, most) in [(0.1, 5e-4), (0.3, 2e-3)] {
        let of = |millis| {
            let deadline = Duration::from_millis(millis);
            let runs =
                (0..2).map(|seed| run(Channel::lossy(loss), Flow { deadline, ..VIDEO }, seed));
            runs.fold((0.0, 0.0), |sum, run| (sum.0 + run.missed / 2.0, sum.1 + run.cost / 2.0))
        };
        let (_, without) = of(60);
        for millis in [64, 66, 68, 70, 73] {
            let (missed, cost) = of(millis);
            assert!(missed < most, "{loss} {millis} ms: missed {missed}");
            assert!(cost < without * 1.04, "{loss} {millis} ms: {cost}, without {without}");
        }
    }
}

#[test]
fn a_step_of_loss_is_met_within_half_a_second() {
    for seed in 0..3 {
        let mut bench = Bench::new(Channel::lossy(0.0), seed);
        let mut missed = [0, 0];
        for seq in 0..6000u32 {
            if seq == 2000 {
                bench.channels.iter_mut().for_each(|channel| channel.loss = 0.3);
            }
            let _ = bench.send(seq, 1200, VIDEO.deadline);
            bench.run_until(bench.now + VIDEO.gap);
        }
        bench.run_for(QUIET);
        assert_balance(&bench);
        let came: Vec<u32> = bench.ends[1].received.iter().map(|(_, p)| p.header.seq.0).collect();
        let mut there = vec![false; 6000];
        came.into_iter().for_each(|seq| there[seq as usize] = true);
        missed[0] = there[2000..3000].iter().filter(|&&there| !there).count();
        missed[1] = there[3000..].iter().filter(|&&there| !there).count();
        assert!(missed[0] <= 40 && missed[1] <= 5, "seed {seed}: {missed:?}");
    }
}

#[test]
fn many_classes_at_once_add_up_over_many_seeds() {
    for seed in 0..20 {
        let loss = f64::from(seed as u32 % 5) * 0.1;
        let channel = Channel { jitter: Duration::from_millis(seed % 4), ..Channel::lossy(loss) };
        let mut bench = Bench::new(channel, seed);
        for seq in 0..1500u32 {
            let class = Class::ALL[seq as usize % 3];
            let _ = bench.send_as(seq, 60 + seq as usize % 1100, class.default_deadline(), class);
            bench.run_for(Duration::from_micros(300 + u64::from(seq % 7) * 400));
        }
        bench.run_for(QUIET);
        assert_balance(&bench);
        let received = bench.ends[1].received.len() as u64;
        let counters = bench.counters(1);
        let delivered = counters.data_first_rx + counters.repeated_rx + counters.decoded_rx;
        assert_eq!(received, delivered - counters.late_rx, "seed {seed}");
    }
}

#[test]
fn a_constrained_link_repairs_by_what_it_is_left_with() {
    let flow = Flow { packets: 10_000, ..VIDEO };
    let run = |recovery, seed| {
        let bench = Bench::with_recovery(Channel::lossy(0.1), recovery, seed);
        let Outcome { missed, cost, bench } = run_on(bench, flow);
        let counters = bench.counters(0);
        (missed, cost, counters.parity_tx, counters.repeat_tx)
    };
    for seed in 0..6 {
        let (missed, cost, ..) = run(Recovery::None, seed);
        assert!((missed - 0.1).abs() < 0.02 && cost == 1.0, "none, seed {seed}: {missed}, {cost}");

        let (missed, cost, parity, _) = run(Recovery::ArqOnly, seed);
        assert_eq!(parity, 0, "arq, seed {seed}");
        assert!(missed > 0.0 && missed < 0.003, "three chances, seed {seed}: {missed}");
        assert!((cost - 1.1).abs() < 0.02, "arq, seed {seed}: {cost}");

        let (missed, cost, parity, repeats) = run(Recovery::FixedFec { parity: 0.25 }, seed);
        assert_eq!(repeats, 0, "fec, seed {seed}");
        assert!(parity > 0 && missed < 0.03, "fec, seed {seed}: {missed}");
        assert!((cost - 1.25).abs() < 0.02, "fec, seed {seed}: {cost}");
    }
}

#[test]
fn what_a_link_says_of_its_recovery_is_what_it_does() {
    let mut bench = Bench::new(Channel::lossy(0.1), 1);
    for end in 0..2 {
        let now = bench.clock(end);
        bench.ends[end].link.set_heat(Heat::Hot, now);
    }
    let mut before = *bench.counters(0);
    for seq in 0..8_000 {
        if seq == 6_000 {
            before = *bench.counters(0);
        }
        let _ = bench.send(seq, VIDEO.len, VIDEO.deadline);
        bench.run_until(bench.now + VIDEO.gap);
    }
    // The last second: 2,000 packets.
    let now = bench.counters(0);
    let redundant = now.repeat_tx + now.parity_tx - before.repeat_tx - before.parity_tx;
    let spent = redundant as f32 / (now.data_tx - before.data_tx) as f32;
    let quality = bench.ends[0].link.quality();
    assert!((quality.redundancy_tx - spent).abs() < 0.02, "{} {spent}", quality.redundancy_tx);
    assert!((0.08..0.13).contains(&quality.loss_tx), "{}", quality.loss_tx);
    assert!((1.0..1.4).contains(&quality.burst_tx), "{}", quality.burst_tx);
    let plan = quality.protection_tx.expect("groups were sent");
    assert!((20..=40).contains(&plan.packets) && plan.parity <= 2, "{plan:?}");
    assert_eq!(plan.rounds, 3, "100 ms beyond propagation, 45 ms a round");
    assert!(quality.queueing_tx < Duration::from_millis(1), "{:?}", quality.queueing_tx);
    assert!(quality.rate_bps > 20_000_000, "{}", quality.rate_bps);

    // A queue of 30 ms, in which a deadline of 70 ms leaves no time for a repeat.
    bench.channels[0].delay += Duration::from_millis(30);
    for seq in 8_000..9_000 {
        let _ = bench.send(seq, VIDEO.len, Duration::from_millis(70));
        bench.run_until(bench.now + VIDEO.gap);
    }
    let quality = bench.ends[0].link.quality();
    let queueing = quality.queueing_tx.as_millis();
    assert!((29..=31).contains(&queueing), "{queueing}");
    let plan = quality.protection_tx.expect("groups were sent");
    assert!(plan.rounds == 1 && plan.parity >= 3, "{plan:?}");
}
