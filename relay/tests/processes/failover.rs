//! How long packets stay out when the relay in the middle is killed.
//!
//! A measurement and no test: `scripts/bench-failover processes` runs it.

use std::time::{Duration, Instant};

use crate::diamond::{between, diamond};
use crate::harness::wait_for;
use crate::traffic::{Arrival, Echo, Stream};

/// 200 packets a second.
const EVERY: Duration = Duration::from_millis(5);
/// How much traffic there is before and after the relay dies: this many packets arrive.
const PACKETS: usize = 300;

/// What one run showed.
struct Run {
    /// The longest time between two arrivals before the relay died: what this machine adds.
    before: Duration,
    /// The longest time between two arrivals from then on.
    gap: Duration,
    /// Packets that never arrived.
    lost: usize,
}

#[test]
#[ignore = "a measurement: scripts/bench-failover"]
fn gaps_when_the_relay_between_is_killed() {
    let runs = std::env::var("RUNS").map_or(Ok(20), |text| text.parse());
    let Ok(runs @ 1..=1_000) = runs else { panic!("RUNS is a number from 1 to 1000") };
    println!(
        "{runs} runs: relays a-b-d and a-c-d, 200 packets/s from a to d, SIGKILL of the one between"
    );
    println!("{:>4}  {:>18}  {:>9}  {:>5}", "run", "before (ms)", "gap (ms)", "lost");
    let mut gaps = Vec::new();
    for number in 1..=runs {
        let Run { before, gap, lost } = run();
        println!("{number:>4}  {:>18.1}  {:>9.1}  {lost:>5}", ms(before), ms(gap));
        gaps.push(gap);
    }
    gaps.sort_unstable();
    let (median, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    println!("gap: median {:.1} ms, worst {:.1} ms", ms(median), ms(worst));
}

fn run() -> Run {
    let echo = Echo::listen("127.0.0.1:0");
    let (mut overlay, listen) = diamond(&echo, "");
    let stream = Stream::start(listen.parse().expect("an address"), EVERY);
    wait_for("traffic before", || echo.count() > PACKETS);
    let middle = between(&overlay);
    let killed = Instant::now();
    overlay.kill(&middle);
    let so_far = echo.count();
    wait_for("traffic after", || echo.count() > so_far + PACKETS);
    drop(stream);
    let arrivals = echo.arrivals();
    let after = arrivals.partition_point(|arrival| arrival.at < killed);
    Run {
        before: longest_pause(&arrivals[..after]),
        gap: longest_pause(&arrivals[after.saturating_sub(1)..]),
        lost: missing(&arrivals),
    }
}

fn longest_pause(arrivals: &[Arrival]) -> Duration {
    let pauses = arrivals.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at));
    pauses.max().unwrap_or_default()
}

/// How many numbers up to the highest that arrived are not there.
fn missing(arrivals: &[Arrival]) -> usize {
    let number = |arrival: &Arrival| {
        let bytes = arrival.payload.first_chunk::<4>().expect("packets are numbered");
        u32::from_be_bytes(*bytes) as usize
    };
    let mut numbers: Vec<_> = arrivals.iter().map(number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.last().map_or(0, |last| last + 1 - numbers.len())
}

fn ms(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
