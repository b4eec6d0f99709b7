use std::sync::Arc;

use super::*;

const GAP: Duration = Duration::from_micros(500);

/// Offers `count` packets of `bytes` every `gap`; the arrivals (`None`: dropped).
fn run(link: &mut LinkModel, count: usize, bytes: usize, gap: Duration) -> Vec<Option<Timestamp>> {
    let start = Timestamp::from_micros(1_000_000);
    let sent_at = |i: usize| start + gap * u32::try_from(i).unwrap();
    let fate = |i| link.offer(bytes, sent_at(i)).deliveries().next().map(|d| d.at);
    (0..count).map(fate).collect()
}

fn lossy(loss: Loss, seed: u64) -> LinkModel {
    LinkModel::new(LinkSpec { loss, ..LinkSpec::default() }, seed)
}

/// Loss rate and mean run of losses.
fn statistics(arrivals: &[Option<Timestamp>]) -> (f64, f64) {
    let lost = arrivals.iter().filter(|a| a.is_none()).count();
    let starts = arrivals.windows(2).filter(|w| w[0].is_some() && w[1].is_none()).count();
    (lost as f64 / arrivals.len() as f64, lost as f64 / starts.max(1) as f64)
}

fn near(got: f64, wanted: f64, share: f64, what: &str) {
    assert!((got - wanted).abs() <= wanted * share + 1e-9, "{what}: {got}, wanted {wanted}");
}

#[test]
fn what_is_only_counted_takes_no_room() {
    let rate = Some(Rate { bits_per_second: 8_000, queue: 1_000 });
    let mut link = LinkModel::new(LinkSpec { rate, ..LinkSpec::default() }, 1);
    link.count_in(1, 900);
    link.count_in(0, 90);
    assert_eq!(link.waiting(Timestamp::ZERO), Duration::ZERO);
    assert!(link.offer(1_000, Timestamp::ZERO).deliveries().count() == 1, "{:?}", link.counters());
    link.set_up(false);
    link.count_in(1, 60);
    let LinkCounters { offered, offered_bytes, delivered, delivered_bytes, down, .. } =
        *link.counters();
    assert_eq!((offered, offered_bytes), (3, 2_050));
    assert_eq!((delivered, delivered_bytes, down), (2, 1_990, 1));
}

#[test]
fn losses_have_the_rate_and_the_runs_asked_for() {
    for (rate, burst) in [(0.01, 1.0), (0.05, 5.0), (0.3, 3.0), (0.5, 10.0), (0.02, 25.0)] {
        let loss = Loss::in_bursts(rate, burst).unwrap();
        near(loss.rate(), rate, 1e-9, "stated");
        let (got, run_length) = statistics(&run(&mut lossy(loss, 7), 400_000, 1000, GAP));
        near(got, rate, 0.1, "loss in bursts");
        near(run_length, burst, 0.1, "burst");
    }
    for rate in [0.01, 0.3, 0.5] {
        let loss = Loss::independent(rate).unwrap();
        let (got, run_length) = statistics(&run(&mut lossy(loss, 7), 200_000, 1000, GAP));
        near(got, rate, 0.05, "independent loss");
        near(run_length, 1.0 / (1.0 - rate), 0.05, "run by chance");
    }
    let chain = Loss::Chain(Chain { p: 0.02, r: 0.2, bad: 0.5, good: 0.01 });
    let (got, _) = statistics(&run(&mut lossy(chain, 7), 400_000, 1000, GAP));
    near(got, chain.rate(), 0.05, "gemodel");
}

#[test]
fn outages_last_a_time_whatever_the_packet_rate() {
    let loss = Loss::outages(0.05, Duration::from_millis(5)).unwrap();
    for gap in [Duration::from_micros(100), Duration::from_micros(500)] {
        let count = (200.0 / gap.as_secs_f64()) as usize / 2;
        let (rate, run_length) = statistics(&run(&mut lossy(loss, 3), count, 1000, gap));
        near(rate, 0.05, 0.1, "share");
        near(run_length * gap.as_secs_f64(), 0.005, 0.12, "outage in seconds");
    }
}

#[test]
fn impossible_losses_are_refused() {
    assert!(Loss::independent(1.01).is_err() && Loss::independent(f64::NAN).is_err());
    assert!(
        Loss::in_bursts(0.5, 0.9).is_err()
            && Loss::in_bursts(0.75, 1.0).is_err()
            && Loss::in_bursts(1.0, 9.0).is_err()
    );
    assert!(Loss::outages(1.0, GAP).is_err() && Loss::outages(0.1, Duration::ZERO).is_err());
}

#[test]
fn a_bottleneck_passes_its_rate_and_queues_no_more_than_its_queue() {
    let rate = Rate { bits_per_second: 8_000_000, queue: 10_000 };
    let delay = Duration::from_millis(20);
    let spec = LinkSpec { delay, rate: Some(rate), ..LinkSpec::default() };
    let mut link = LinkModel::new(spec, 1);
    // 1,000 bytes every 500 us are 16 Mbit/s: half of them pass, one a millisecond.
    let arrivals = run(&mut link, 10_000, 1000, GAP);
    let passed = arrivals.iter().flatten().count();
    near(passed as f64, 5_000.0, 0.01, "passed");
    assert_eq!(link.counters().queue_full, 10_000 - passed as u64);
    let start = Timestamp::from_micros(1_000_000);
    for (i, at) in arrivals.iter().enumerate().filter_map(|(i, at)| Some((i, (*at)?))) {
        let took = at.since(start + GAP * u32::try_from(i).unwrap());
        let most = delay + Duration::from_millis(10);
        assert!((delay + Duration::from_millis(1)..=most).contains(&took), "packet {i}: {took:?}");
    }
}

#[test]
fn the_order_is_kept_unless_reordering_is_asked_for() {
    let spec = LinkSpec {
        delay: Duration::from_millis(30),
        jitter: Duration::from_millis(5),
        ..LinkSpec::default()
    };
    let overtaken = |spec| {
        let arrivals = run(&mut LinkModel::new(spec, 5), 50_000, 1000, GAP);
        arrivals.windows(2).filter(|w| w[1] < w[0]).count()
    };
    assert_eq!(overtaken(spec.clone()), 0);
    let shuffled = LinkSpec { reorder: 0.02, ..spec };
    assert!((500..1100).contains(&overtaken(shuffled)));
}

#[test]
fn jitter_has_the_deviation_asked_for_and_keeps_the_mean() {
    let (delay, jitter) = (Duration::from_millis(50), Duration::from_millis(4));
    let spec = LinkSpec { delay, jitter, ..LinkSpec::default() };
    // Far enough apart that order does not matter.
    let gap = Duration::from_millis(25);
    let arrivals = run(&mut LinkModel::new(spec, 11), 40_000, 1000, gap);
    let start = Timestamp::from_micros(1_000_000);
    let took: Vec<f64> = (0u32..)
        .zip(arrivals.iter().flatten())
        .map(|(i, at)| at.since(start + gap * i).as_secs_f64() * 1e3)
        .collect();
    let mean = took.iter().sum::<f64>() / took.len() as f64;
    let deviation =
        (took.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / took.len() as f64).sqrt();
    near(mean, 50.0, 0.01, "mean");
    near(deviation, 4.0, 0.05, "deviation");
}

#[test]
fn copies_damage_and_size_are_counted() {
    let spec = LinkSpec { duplicate: 0.1, corrupt: 0.2, mtu: 1400, ..LinkSpec::default() };
    let mut link = LinkModel::new(spec, 2);
    let arrivals = run(&mut link, 10_000, 1400, GAP);
    assert!(arrivals.iter().all(Option::is_some));
    let counters = *link.counters();
    near(counters.duplicated as f64, 1_000.0, 0.1, "copies");
    near(counters.corrupted as f64, 2_000.0, 0.1, "damaged");
    assert_eq!(counters.delivered, 10_000 + counters.duplicated);
    assert_eq!(counters.delivered_bytes, counters.delivered * 1400);
    assert_eq!(link.offer(1401, Timestamp::NEVER), Fate::Dropped(DropReason::TooBig));
}

#[test]
fn a_cut_link_carries_nothing_until_it_is_restored() {
    let mut link = LinkModel::new(LinkSpec::default(), 1);
    link.set_up(false);
    assert_eq!(link.offer(100, Timestamp::ZERO), Fate::Dropped(DropReason::Down));
    link.set_up(true);
    assert!(matches!(link.offer(100, Timestamp::ZERO), Fate::Once(_)));
    assert_eq!((link.counters().down, link.counters().dropped()), (1, 1));
}

#[test]
fn a_degraded_link_does_not_let_new_packets_overtake_old_ones() {
    let mut link = LinkModel::new(LinkSpec::with_delay(Duration::from_millis(100)), 1);
    let first = link.offer(100, Timestamp::ZERO).deliveries().next().unwrap();
    link.set(LinkSpec::with_delay(Duration::from_millis(10)));
    let second = link.offer(100, Timestamp::from_micros(1)).deliveries().next().unwrap();
    assert!(second.at >= first.at);
}

#[test]
fn the_seed_decides_and_each_effect_has_its_own_stream() {
    let spec = LinkSpec { loss: Loss::Independent(0.1), ..LinkSpec::default() };
    let lost = |spec: LinkSpec, seed| -> Vec<bool> {
        run(&mut LinkModel::new(spec, seed), 2_000, 1000, GAP).iter().map(Option::is_none).collect()
    };
    assert_eq!(lost(spec.clone(), 1), lost(spec.clone(), 1));
    assert_ne!(lost(spec.clone(), 1), lost(spec.clone(), 2));
    let noisy = LinkSpec { duplicate: 0.5, jitter: GAP, ..spec.clone() };
    assert_eq!(lost(spec, 1), lost(noisy, 1));
    assert_ne!(stream_seed(1, "a>b"), stream_seed(1, "b>a"));
}

#[test]
fn more_loss_adds_to_every_process() {
    let chain = Loss::in_bursts(0.2, 4.0).unwrap();
    let outages = Loss::outages(0.2, Duration::from_millis(5)).unwrap();
    for before in [Loss::Independent(0.2), chain, outages] {
        assert!((before.and_independent(0.5).rate() - 0.6).abs() < 1e-9, "{before:?}");
        assert_eq!(before.and_independent(0.0), before);
    }
    assert_eq!(Loss::None.and_independent(0.5), Loss::Independent(0.5));
    assert_eq!(Loss::None.and_independent(0.0), Loss::None);
}

fn traced(rate: RateTrace, queue: usize) -> LinkModel {
    let bits_per_second = rate.mean();
    let rate_trace = Some(Arc::new(rate));
    let rate = Some(Rate { bits_per_second, queue });
    let mut link = LinkModel::new(LinkSpec { rate, rate_trace, ..LinkSpec::default() }, 1);
    link.start_traces(Timestamp::from_micros(1_000_000));
    link
}

#[test]
fn a_mahimahi_link_sends_1500_bytes_at_each_chance_and_drops_what_its_queue_does_not_hold() {
    // Two chances at 5 ms, one at 10 ms, and again.
    let trace = || RateTrace::of_chances(&[5, 5, 10]).unwrap();
    let millis = |arrivals: &[Option<Timestamp>]| -> Vec<Option<u64>> {
        arrivals.iter().map(|at| at.map(|at| at.as_micros() / 1000 - 1000)).collect()
    };
    let whole = run(&mut traced(trace(), 15_000), 5, 1500, Duration::from_micros(1));
    assert_eq!(millis(&whole), [5, 5, 10, 15, 15].map(Some));
    // Three of 500 bytes share a chance; the fourth waits for the next.
    let shared = run(&mut traced(trace(), 15_000), 7, 500, Duration::from_micros(1));
    assert_eq!(millis(&shared), [5, 5, 5, 5, 5, 5, 10].map(Some));
    // The queue holds two.
    let full = run(&mut traced(trace(), 3_000), 4, 1500, Duration::from_micros(1));
    assert_eq!(millis(&full), [Some(5), Some(5), None, None]);
    // A chance that finds the queue empty is gone.
    let late = run(&mut traced(trace(), 15_000), 2, 1500, Duration::from_millis(6));
    assert_eq!(millis(&late), [5, 10].map(Some));
    // A large packet takes several.
    let large = LinkSpec { mtu: 9000, ..traced(trace(), 15_000).spec().clone() };
    let mut link = traced(trace(), 15_000);
    link.set(large);
    assert_eq!(millis(&run(&mut link, 1, 4000, GAP)), [Some(10)]);
}

#[test]
fn a_link_carries_its_traced_rate_and_what_waits_survives_a_change_of_it() {
    let steps = [(0, 12_000_000), (100_000, 1_200_000)];
    let mut link = traced(RateTrace::of_steps(&steps).unwrap(), 1_000_000);
    let arrivals = run(&mut link, 440, 1500, Duration::from_micros(1));
    let by = |millis: u64| {
        let until = Timestamp::from_micros(1_000_000 + millis * 1000);
        arrivals.iter().flatten().filter(|at| **at <= until).count()
    };
    // A packet a millisecond, then one in ten, then again.
    for (millis, wanted) in [(50, 50), (100, 100), (150, 105), (200, 110), (210, 120)] {
        assert_eq!(by(millis), wanted, "{millis} ms");
    }
    let now = Timestamp::from_micros(1_000_440);
    let busy_for = link.waiting(now);
    link.set(LinkSpec {
        rate_trace: Some(Arc::new(RateTrace::of_chances(&[10]).unwrap())),
        ..link.spec().clone()
    });
    let next = link.offer(1500, now).deliveries().next().unwrap().at;
    assert!(next >= now + busy_for && next <= now + busy_for + Duration::from_millis(20));
}

#[test]
fn a_link_delays_and_loses_as_its_trace_says() {
    let trace = DelayTrace::new(&[(0, 10_000, 0.0), (100_000, 30_000, 0.5)]).unwrap();
    let spec = LinkSpec {
        delay: Duration::from_millis(5),
        delay_trace: Some(Arc::new(trace)),
        ..LinkSpec::default()
    };
    let mut link = LinkModel::new(spec, 3);
    link.start_traces(Timestamp::from_micros(1_000_000));
    let arrivals = run(&mut link, 200_000, 100, Duration::from_millis(1));
    let (mut early, mut late, mut lost) = (0, 0, 0);
    for (at, arrival) in arrivals.iter().enumerate() {
        let sent = 1_000_000 + at as u64 * 1_000;
        match arrival.map(|arrival| arrival.as_micros() - sent) {
            None => lost += 1,
            Some(15_000) => early += 1,
            Some(35_000) => late += 1,
            // The last slow ones are not overtaken.
            Some(took) => assert!(at % 200 < 20 && took > 15_000, "{at} {took}"),
        }
    }
    assert!(early > 75_000);
    near(f64::from(late), 50_000.0, 0.02, "slow ones");
    near(f64::from(lost), 50_000.0, 0.02, "lost ones");
    assert_eq!(link.counters().lost, lost as u64);
}
