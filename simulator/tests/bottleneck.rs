//! What rate control promises at a bottleneck, over real relays in virtual time. The scenarios are
//! those of `scripts/bench-bottleneck`, which prints the figures.

#[path = "../examples/bottleneck/rival.rs"]
mod rival;
#[path = "../examples/bottleneck/scenario.rs"]
mod scenario;

use std::time::Duration;

use scenario::{Bottleneck, SPAN, drop_to_a_fifth, narrow, wide};
use tradewind_proto::units::Class;
use tradewind_simulator::link::LinkSpec;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Runs `SPAN` and a little more, so that all has come that comes.
fn run(seed: u64, link: LinkSpec, mbps: f64) -> Bottleneck {
    let mut link = Bottleneck::new(seed, link, mbps);
    link.run_until(SPAN + ms(500));
    link
}

const ALL: std::ops::Range<Duration> = Duration::ZERO..SPAN;

#[test]
fn what_fits_arrives_in_time_despite_random_loss() {
    let (mut sent, mut missed) = (0, 0);
    for seed in 1..=20 {
        let link = run(seed, narrow(10, 0.05), 7.0);
        let (audio, video) = (link.tally(Class::Audio, ALL), link.tally(Class::Video, ALL));
        (sent, missed) = (sent + audio.sent, missed + audio.sent - audio.in_time());
        assert!(video.percent_in_time() >= 99.9, "seed {seed}: {}", video.percent_in_time());
        assert!(link.queue(ALL, 0.95) <= ms(10), "seed {seed}: {:?}", link.queue(ALL, 0.95));
    }
    // One in 100,000 may be lost for good.
    assert!(missed <= 1, "{missed} of {sent} audio packets");
}

#[test]
fn what_does_not_fit_is_shed_and_the_queue_stays_short() {
    for (loss, least) in [(0.0, 8.6), (0.05, 8.1)] {
        for seed in 1..=3 {
            let link = run(seed, narrow(10, loss), 12.0);
            let (audio, video) = (link.tally(Class::Audio, ALL), link.tally(Class::Video, ALL));
            let mbps = 12.0 * video.percent_in_time() / 100.0;
            let what = format!("loss {loss}, seed {seed}");
            assert!(audio.percent_in_time() >= 99.5, "{what}: {}", audio.percent_in_time());
            assert!(mbps >= least, "{what}: {mbps} Mbit/s");
            assert!(video.delivered() - video.in_time() <= 5, "{what}");
            assert!(link.queue(ALL, 0.95) <= ms(22), "{what}: {:?}", link.queue(ALL, 0.95));
            assert!(link.link().counters().expired_audio_tx <= 5, "{what}");
            assert!(link.link().counters().expired_video_tx > 1000, "{what}");
        }
    }
}

#[test]
fn a_bloated_buffer_is_kept_empty_although_packets_are_lost_at_random() {
    for seed in 1..=3 {
        let mut spec = narrow(10, 0.05);
        spec.rate.iter_mut().for_each(|rate| rate.queue = 1_000_000);
        let link = run(seed, spec, 12.0);
        let steady = Duration::from_secs(2)..SPAN;
        assert!(link.rates(steady.clone()).max() <= Some(12_000_000), "seed {seed}");
        let p95 = link.queue(steady, 0.95);
        assert!(p95 <= ms(22), "seed {seed}: {p95:?}");
    }
}

#[test]
fn loss_and_jitter_alone_never_lower_the_rate_below_what_is_offered() {
    for seed in 1..=16 {
        let jitter = Duration::from_micros(seed % 4 * 1_000);
        let mut link = Bottleneck::new(seed, LinkSpec { jitter, ..wide(0.3) }, 8.0);
        link.run_until(Duration::from_secs(12));
        let least = link.rates(Duration::ZERO..Duration::from_secs(12)).min();
        assert!(least >= Some(20_000_000), "seed {seed}, {jitter:?}: {least:?}");
    }
}

#[test]
fn a_link_that_narrows_sheds_video_and_keeps_audio() {
    for seed in 1..=6 {
        let drop = drop_to_a_fifth(seed, 0.0);
        let of = |class| drop.link.tally(class, drop.narrow_for.clone());
        let (audio, video) = (of(Class::Audio), of(Class::Video));
        assert!(audio.percent_in_time() >= 99.9, "seed {seed}: {}", audio.percent_in_time());
        assert_eq!(video.delivered(), video.in_time(), "seed {seed}: delayed, not shed");
        let mbps = 8.0 * video.percent_in_time() / 100.0;
        assert!(mbps >= 1.5, "seed {seed}: {mbps} Mbit/s of 2");
        let expired = drop.link.link().counters().expired_video_tx;
        assert!(expired as usize >= (video.sent - video.delivered()) * 9 / 10, "seed {seed}");
        assert!(drop.back_after < Some(ms(2000)), "seed {seed}: {:?}", drop.back_after);
        assert!(drop.back_after.is_some(), "seed {seed}");
    }
}

#[test]
fn neither_we_nor_cubic_starve() {
    for queue in [32_000, 64_000, 100_000, 250_000] {
        for rival_first in [false, true] {
            let shares = rival::share_with_rival(1, queue, rival_first).expect("quinn runs");
            let what = format!("queue of {queue}, Cubic first: {rival_first}: {shares:?}");
            assert!(shares.iter().all(|&share| share >= 20.0 / 6.0), "{what}");
        }
    }
}
