use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

/// Relays with clocks of their own, fully meshed, each keeping a coordinate.
struct Mesh {
    /// Microseconds ahead of true time, and parts per million too fast.
    clocks: Vec<(i64, i64)>,
    /// True one-way delays.
    delays: Vec<Vec<i64>>,
    keepers: Vec<ClockEstimator>,
    stated: Vec<ClockCoordinate>,
    seconds: i64,
}

fn sample(theirs: ClockCoordinate, raw_tx: i64, raw_rx: i64) -> ClockSample {
    ClockSample { peer: PopKey(1), theirs, raw_tx, raw_rx, rtt: Duration::from_millis(40) }
}

const START: i64 = 1_700_000_000_000_000;

impl Mesh {
    fn new(seed: u64, len: usize, spread: i64, ppm: i64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let clocks = (0..len)
            .map(|_| (rng.random_range(-spread..=spread), rng.random_range(-ppm..=ppm)))
            .collect();
        let row = |_| (0..len).map(|_| rng.random_range(1_000..100_000)).collect();
        let delays = (0..len).map(row).collect();
        let keepers = vec![ClockEstimator::new(); len];
        Self { clocks, delays, keepers, stated: vec![ClockCoordinate::default(); len], seconds: 0 }
    }

    fn clock(&self, relay: usize) -> Timestamp {
        let (offset, ppm) = self.clocks[relay];
        let reading = START + self.seconds * 1_000_000 + offset + self.seconds * ppm;
        Timestamp::from_micros(u64::try_from(reading).unwrap())
    }

    fn raw(&self, from: usize, to: usize) -> i64 {
        self.delays[from][to] + self.clock(to).micros_after(self.clock(from))
    }

    fn normalised(&self, from: usize, to: usize) -> i64 {
        let [own, theirs] =
            [from, to].map(|relay| self.keepers[relay].coordinate(self.clock(relay)));
        i64::from(normalised(self.raw(from, to), &own, &theirs, self.clock(from)))
    }

    /// One second: relays `among` update one after the other, and state what came out.
    fn step(&mut self, among: std::ops::Range<usize>) {
        self.seconds += 1;
        for own in among.clone() {
            let others = among.clone().filter(|&other| other != own);
            let samples: Vec<ClockSample> = others
                .map(|other| ClockSample {
                    peer: PopKey(other as u32),
                    theirs: self.stated[other],
                    raw_tx: self.raw(own, other),
                    raw_rx: self.raw(other, own),
                    rtt: Duration::from_millis(50),
                })
                .collect();
            let now = self.clock(own);
            self.keepers[own].update(&samples, now);
            self.stated[own] = self.keepers[own].coordinate(now);
        }
    }

    /// How far the normalised delays are from RTT/2, at worst. Asymmetry of the delays remains.
    fn worst(&self, among: std::ops::Range<usize>) -> i64 {
        let pairs =
            among.clone().flat_map(|a| among.clone().map(move |b| (a, b))).filter(|(a, b)| a != b);
        let error = |(a, b): (usize, usize)| {
            let half = (self.delays[a][b] + self.delays[b][a]) / 2;
            (self.normalised(a, b) - half).abs()
        };
        pairs.map(error).max().unwrap_or(0)
    }

    fn asymmetry(&self) -> i64 {
        let len = self.clocks.len();
        let pairs = (0..len).flat_map(|a| (0..len).map(move |b| (a, b)));
        pairs.map(|(a, b)| (self.delays[a][b] - self.delays[b][a]).abs() / 2).max().unwrap_or(0)
    }
}

#[test]
fn a_cluster_started_at_once_agrees_within_seconds_whatever_its_clocks() {
    for seed in 0..20 {
        for spread in [0, 5_000, 10_000_000] {
            let mut mesh = Mesh::new(seed, 6, spread, 0);
            (0..30).for_each(|_| mesh.step(0..6));
            // Least squares can't be worse than twice the worst asymmetry.
            assert!(mesh.worst(0..6) <= 2 * mesh.asymmetry() + 1_000, "seed {seed}, {spread} us");
        }
    }
}

#[test]
fn a_relay_that_joins_is_in_step_with_its_first_statement() {
    for seed in 0..20 {
        let mut mesh = Mesh::new(seed, 6, 10_000_000, 0);
        (0..30).for_each(|_| mesh.step(0..5));
        let before = mesh.stated[..5].to_vec();
        mesh.step(0..6);
        assert!(mesh.worst(0..6) <= 3 * mesh.asymmetry() + 1_000, "seed {seed}");
        for (old, new) in before.iter().zip(&mesh.stated) {
            let moved = (offset_at(old, new.at) - new.offset_micros).abs();
            assert!(moved <= 1_001, "seed {seed}: the others moved by {moved} us in a second");
        }
    }
}

#[test]
fn clocks_that_drift_are_followed_and_the_drift_is_stated() {
    for seed in 0..5 {
        let mut mesh = Mesh::new(seed, 5, 1_000, 50);
        (0..600).for_each(|_| mesh.step(0..5));
        assert!(mesh.worst(0..5) <= 2 * mesh.asymmetry() + 1_000, "seed {seed}");
        // A minute without statements costs little: what drifts is extrapolated.
        let own = mesh.clocks[0].1 - mesh.clocks[1].1;
        let stated = i64::from(mesh.stated[0].drift_ppb - mesh.stated[1].drift_ppb) / 1_000;
        assert!((own - stated).abs() <= 10, "seed {seed}: {stated} ppm stated, {own} ppm true");
    }
}

proptest! {
    #[test]
    fn normalised_delays_rank_paths_as_true_delays_do(
        seed in any::<u64>(),
        spread in prop_oneof![Just(1_000i64), Just(1_000_000_000)],
        seconds in 0..20,
    ) {
        let mut mesh = Mesh::new(seed, 5, spread, 0);
        (0..seconds).for_each(|_| mesh.step(0..5));
        let paths: [&[usize]; 5] = [&[0, 4], &[0, 1, 4], &[0, 2, 4], &[0, 1, 2, 4], &[0, 3, 1, 4]];
        let sum = |path: &[usize], delay: &dyn Fn(usize, usize) -> i64| -> i64 {
            path.windows(2).map(|ends| delay(ends[0], ends[1])).sum()
        };
        let by = |delay: &dyn Fn(usize, usize) -> i64| {
            let mut order = paths;
            order.sort_by_key(|path| (sum(path, delay), path.len()));
            order
        };
        let truth = by(&|a, b| mesh.delays[a][b]);
        prop_assert_eq!(by(&|a, b| mesh.raw(a, b)), truth);
        prop_assert_eq!(by(&|a, b| mesh.normalised(a, b)), truth);
    }
}

#[test]
fn a_settled_relay_slews_small_errors_and_steps_over_a_wrong_clock() {
    let at = |seconds: u64| Timestamp::from_micros(START as u64 + seconds * 1_000_000);
    let pull = |keeper: &mut ClockEstimator, target: i64, seconds: u64| {
        let theirs = ClockCoordinate { at: at(seconds), offset_micros: target, drift_ppb: 0 };
        let sample = sample(theirs, 20_000, 20_000);
        let before = keeper.coordinate(at(seconds)).offset_micros;
        keeper.update(&[sample], at(seconds));
        keeper.coordinate(at(seconds)).offset_micros - before
    };
    let mut keeper = ClockEstimator::new();
    for second in 0..=20 {
        assert_eq!(pull(&mut keeper, 0, second), 0);
    }
    assert_eq!(pull(&mut keeper, 50_000, 21), 1_000, "1 ms in a second");
    assert_eq!(pull(&mut keeper, 50_000, 23), 2_000, "and 2 ms in two");
    assert_eq!(pull(&mut keeper, -50_000, 24), -1_000);
    assert_eq!(pull(&mut keeper, 10_002_000, 25), 5_000_000, "half way to the other clock");
}

#[test]
fn clocks_disagree_when_they_are_apart_by_more_than_half_a_round_trip() {
    let now = Timestamp::from_micros(START as u64);
    let theirs = |offset_micros| ClockCoordinate { at: now, offset_micros, drift_ppb: 0 };
    let mut keeper = ClockEstimator::new();
    let far = sample(theirs(1_000_000), 20_000, 20_000);
    assert!(keeper.agrees(&far, now), "no time of our own yet");
    keeper.update(&[], now);
    // A round trip of 40 ms, and 25 ms for statements that are not quite new.
    assert!(keeper.agrees(&sample(theirs(44_000), 20_000, 20_000), now));
    assert!(!keeper.agrees(&sample(theirs(46_000), 20_000, 20_000), now));
    assert!(keeper.agrees(&sample(theirs(1_000_000), 1_020_000, -980_000), now));
    assert!(!keeper.agrees(&far, now));
    keeper.adopt(&far, now);
    assert!(keeper.agrees(&far, now));
    assert_eq!(keeper.coordinate(now).offset_micros, 1_000_000);
}

#[test]
fn absurd_readings_do_not_overflow() {
    let wild = [i64::MIN, i64::MAX, 0];
    for raw_tx in wild {
        for raw_rx in wild {
            for offset_micros in wild {
                let theirs = ClockCoordinate {
                    at: Timestamp::from_micros(1),
                    offset_micros,
                    drift_ppb: i32::MAX,
                };
                let mut keeper = ClockEstimator::new();
                for now in [Timestamp::from_micros(5), Timestamp::NEVER] {
                    let sample = sample(theirs, raw_tx, raw_rx);
                    keeper.agrees(&sample, now);
                    keeper.update(&[sample], now);
                    keeper.adopt(&sample, now);
                    normalised(raw_tx, &keeper.coordinate(now), &theirs, now);
                    normalised(raw_tx, &theirs, &theirs, now);
                }
            }
        }
    }
}
