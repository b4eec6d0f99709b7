//! When the packets of a flow leave, and how large each is: a machine without clock or socket, the
//! same for the overlay, for the direct path beside it, and for real sockets.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::link::normal;
use crate::world::Traffic;

/// The pattern of a flow's packets.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Shape {
    /// Equal packets at an even pace.
    #[default]
    Constant,
    /// Equal packets that come independently of each other (a Poisson process).
    Poisson,
    /// The frames of a video, each cut into packets.
    Video(Video),
    /// As somebody recorded them, again and again.
    Recorded(Arc<Recording>),
}

/// A video as an encoder and its pacer make it: a frame every so often, each so many-th a key frame
/// that is larger than the others, sizes that vary lognormally (Krunz and Tripathi, "On the
/// characterization of VBR MPEG streams", SIGMETRICS 1997), cut into near-equal packets that leave as
/// a short burst. The mean rate is the flow's. RFC 8593 describes the encoder's side the same way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Video {
    /// Frames a second.
    pub fps: f64,
    /// Every so many-th frame is a key frame; the first is one.
    pub key_every: u32,
    /// How many times as large as others a key frame is.
    pub key_size: f64,
    /// The standard deviation of the logarithm of a frame's size; drawn within three of them.
    pub spread: f64,
    /// A burst leaves at so many times the mean rate.
    pub pace: f64,
}

impl Default for Video {
    /// 30 frames a second, a key frame every two seconds, and the 2.5-fold rate at which WebRTC's
    /// pacer sends (`kDefaultPaceMultiplier`).
    fn default() -> Self {
        Self { fps: 30.0, key_every: 60, key_size: 5.0, spread: 0.2, pace: 2.5 }
    }
}

/// Packets that somebody recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// When each left, in order, and its bytes; at least one.
    pub packets: Vec<(Duration, usize)>,
    /// After so long it begins again; above zero, and not before its last packet.
    pub length: Duration,
}

/// A packet that is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Departure {
    /// When, after the flow's beginning.
    pub at: Duration,
    /// Its bytes, [`Traffic::MIN_SIZE`] at least.
    pub size: usize,
}

/// The packets of a flow without end, in order. Two of the same seed are the same.
#[derive(Clone, Debug)]
pub struct Schedule {
    size: usize,
    interval: Duration,
    shape: Shape,
    rng: SmallRng,
    /// How many packets have been told.
    told: u64,
    /// When the last one leaves, or in a video when the next one can.
    at: Duration,
    frame: Frame,
}

/// The frame of a video that is being sent.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    /// How many frames have begun.
    begun: u64,
    /// When it came from the encoder.
    at: Duration,
    /// What is left of it.
    bytes: usize,
    packets: usize,
}

impl Schedule {
    /// So that halves of it still are packets.
    pub const MIN_VIDEO_SIZE: usize = 2 * Traffic::MIN_SIZE;

    /// Packets of `shape`, at `size` bytes every `interval` on average. In a video no packet is
    /// larger than `size`, which is [`Self::MIN_VIDEO_SIZE`] at least, and more are smaller; a
    /// recording has its own sizes and times.
    pub fn new(size: usize, interval: Duration, shape: Shape, seed: u64) -> Self {
        let rng = SmallRng::seed_from_u64(seed);
        let (at, frame) = (Duration::ZERO, Frame::default());
        Self { size, interval, shape, rng, told: 0, at, frame }
    }

    fn video(&mut self, video: Video) -> Departure {
        let rate = self.size as f64 / self.interval.as_secs_f64();
        if self.frame.packets == 0 {
            self.begin_frame(video, rate);
        }
        let Frame { at, bytes, packets, .. } = self.frame;
        let size = bytes.div_ceil(packets);
        self.frame.bytes -= size;
        self.frame.packets -= 1;
        let at = self.at.max(at);
        self.at = at + Duration::from_secs_f64(size as f64 / (video.pace * rate));
        Departure { at, size }
    }

    fn begin_frame(&mut self, video: Video, rate: f64) {
        let key_every = u64::from(video.key_every.max(1));
        let kind = if self.frame.begun.is_multiple_of(key_every) { video.key_size } else { 1.0 };
        // The mean of all kinds is one frame's share of the rate, and the mean of the noise is 1.
        let mean_kind = (key_every as f64 - 1.0 + video.key_size) / key_every as f64;
        let deviation = normal(&mut self.rng).clamp(-3.0, 3.0);
        let noise = (video.spread * deviation - video.spread * video.spread / 2.0).exp();
        let bytes = (rate / video.fps * kind / mean_kind * noise).round() as usize;
        let bytes = bytes.max(Traffic::MIN_SIZE);
        let packets = bytes.div_ceil(self.size);
        let at = Duration::from_secs_f64(self.frame.begun as f64 / video.fps);
        self.frame = Frame { begun: self.frame.begun + 1, at, bytes, packets };
    }
}

impl Iterator for Schedule {
    type Item = Departure;

    fn next(&mut self) -> Option<Departure> {
        let number = self.told;
        self.told += 1;
        let size = self.size;
        Some(match &self.shape {
            Shape::Constant => Departure { at: times(self.interval, number), size },
            Shape::Poisson => {
                let mean = self.interval.as_secs_f64();
                let gap = -mean * (1.0 - self.rng.random::<f64>()).ln();
                self.at += Duration::from_secs_f64(gap);
                Departure { at: self.at, size }
            }
            Shape::Video(video) => self.video(*video),
            Shape::Recorded(recording) => {
                let count = recording.packets.len() as u64;
                let (at, size) = recording.packets[(number % count) as usize];
                Departure { at: times(recording.length, number / count) + at, size }
            }
        })
    }
}

/// Counted anew each time, as intervals need not be whole microseconds.
fn times(interval: Duration, number: u64) -> Duration {
    let nanos = interval.as_nanos() * u128::from(number);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: f64 = 250_000.0;

    /// Packets of 1,000 bytes at 2 Mbit/s.
    fn schedule(shape: Shape, seed: u64) -> Schedule {
        Schedule::new(1000, Duration::from_millis(4), shape, seed)
    }

    fn before(schedule: Schedule, end: Duration) -> Vec<Departure> {
        schedule.take_while(|departure| departure.at < end).collect()
    }

    fn video(fps: f64, key_every: u32, key_size: f64, spread: f64) -> Video {
        Video { fps, key_every, key_size, spread, ..Video::default() }
    }

    fn shapes() -> impl Strategy<Value = Shape> {
        prop_oneof![
            Just(Shape::Constant),
            Just(Shape::Poisson),
            (5.0..120.0f64, 1..100u32, 1.0..10.0f64, 0.0..0.3f64).prop_map(
                |(fps, every, size, spread)| Shape::Video(video(fps, every, size, spread))
            ),
        ]
    }

    proptest! {
        #[test]
        fn packets_come_in_order_within_bounds_and_the_seed_decides(shape in shapes(), seed: u64) {
            let packets: Vec<_> = schedule(shape.clone(), seed).take(2_000).collect();
            prop_assert!(packets.is_sorted_by_key(|packet| packet.at));
            let sizes = Traffic::MIN_SIZE..=1000;
            prop_assert!(packets.iter().all(|packet| sizes.contains(&packet.size)));
            prop_assert!(schedule(shape, seed).take(2_000).eq(packets));
        }

        #[test]
        fn the_mean_rate_is_that_of_the_flow(shape in shapes(), seed: u64) {
            // Whole periods of key frames, of 20 s at most.
            let span = match &shape {
                Shape::Video(video) => {
                    let period = f64::from(video.key_every) / video.fps;
                    period * (300.0 / period).ceil()
                }
                _ => 300.0,
            };
            let packets = before(schedule(shape, seed), Duration::from_secs_f64(span));
            let bytes: usize = packets.iter().map(|packet| packet.size).sum();
            let ratio = bytes as f64 / (RATE * span);
            prop_assert!((0.94..1.06).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn a_constant_flow_is_even_and_a_poisson_one_is_as_random_as_it_should_be() {
        let packets: Vec<_> = schedule(Shape::Constant, 1).take(3).collect();
        let at = |millis| Departure { at: Duration::from_millis(millis), size: 1000 };
        assert_eq!(packets, [at(0), at(4), at(8)]);
        // The number of packets in a window has a variance equal to its mean.
        let packets = before(schedule(Shape::Poisson, 1), Duration::from_secs(400));
        let mut counts = vec![0.0; 4_000];
        packets.iter().for_each(|packet| counts[(packet.at.as_secs_f64() * 10.0) as usize] += 1.0);
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let squares = counts.iter().map(|count| (count - mean) * (count - mean));
        let dispersion = squares.sum::<f64>() / counts.len() as f64 / mean;
        assert!((24.0..26.0).contains(&mean) && (0.9..1.1).contains(&dispersion), "{dispersion}");
    }

    #[test]
    fn a_frame_is_a_short_burst_of_near_equal_packets_and_key_frames_are_larger() {
        let packets = before(schedule(Shape::Video(video(10.0, 10, 4.0, 0.0)), 1), SECOND);
        // A tenth of 250,000 bytes a second, on average over one key frame and nine others.
        let frame = |number: u64| {
            let window = number * 100..(number + 1) * 100;
            let in_it = |packet: &&Departure| window.contains(&(packet.at.as_millis() as u64));
            packets.iter().filter(in_it).collect::<Vec<_>>()
        };
        let bytes = |number| frame(number).iter().map(|packet| packet.size).sum::<usize>();
        let [key, next, last] = [0, 2, 9].map(bytes);
        assert_eq!((next, last), (19_231, 19_231));
        // The key frame of 76,923 bytes takes more than its own 100 ms at 2.5 times the rate.
        assert!((62_000..63_000).contains(&key), "{key}");
        assert_eq!(bytes(1), 76_923 - key + 19_231);
        let burst = frame(2);
        assert_eq!(burst.len(), 20);
        assert!(burst.iter().all(|packet| (961..=962).contains(&packet.size)));
        let took = burst[19].at - burst[0].at;
        assert!((29..30).contains(&took.as_millis()), "{took:?}");
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_recording_is_repeated() {
        let millis = Duration::from_millis;
        let packets = vec![(millis(1), 100), (millis(3), 50)];
        let recording = Shape::Recorded(Arc::new(Recording { packets, length: millis(10) }));
        let got: Vec<_> = schedule(recording, 1).take(3).collect();
        let packet = |at, size| Departure { at: millis(at), size };
        assert_eq!(got, [packet(1, 100), packet(3, 50), packet(11, 100)]);
    }
}
