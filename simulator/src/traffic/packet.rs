//! The packets that generators send and meters read: numbered, time-stamped, and filled so that
//! any damage shows.
//!
//! ```text
//!  0        4        8                16               24
//!  | check  | stream | number         | sent at, us    | filling …
//! ```
//!
//! Big endian. `check` covers the three numbers; the filling follows from the packet's number.

use tradewind_proto::units::Timestamp;

use crate::world::Traffic;

/// What a packet says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which flow and which way.
    pub stream: u32,
    /// Counted from 0 within the stream.
    pub number: u64,
    /// When it was sent.
    pub sent_at: Timestamp,
}

impl Stamp {
    /// Fills `packet`, which has at least [`Traffic::MIN_SIZE`] bytes.
    pub fn write(&self, packet: &mut [u8]) {
        let (head, body) = packet.split_at_mut(Traffic::MIN_SIZE);
        head[..4].copy_from_slice(&self.check().to_be_bytes());
        head[4..8].copy_from_slice(&self.stream.to_be_bytes());
        head[8..16].copy_from_slice(&self.number.to_be_bytes());
        head[16..].copy_from_slice(&self.sent_at.as_micros().to_be_bytes());
        for (i, chunk) in body.chunks_mut(8).enumerate() {
            chunk.copy_from_slice(&self.filling(i)[..chunk.len()]);
        }
    }

    /// Reads a packet; `None` if it is not as it was sent.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let (head, body) = packet.split_first_chunk::<{ Traffic::MIN_SIZE }>()?;
        let number =
            |at: usize| head[at..at + 8].iter().fold(0, |n, &byte| n << 8 | u64::from(byte));
        let first = number(0);
        let sent_at = Timestamp::from_micros(number(16));
        let stamp = Self { stream: first as u32, number: number(8), sent_at };
        let body_holds = || {
            let mut chunks = body.chunks(8).enumerate();
            chunks.all(|(i, chunk)| *chunk == stamp.filling(i)[..chunk.len()])
        };
        ((first >> 32) as u32 == stamp.check() && body_holds()).then_some(stamp)
    }

    fn check(&self) -> u32 {
        let mixed = mix(mix(self.number) ^ u64::from(self.stream));
        let mixed = mix(mixed ^ self.sent_at.as_micros());
        (mixed >> 32) as u32
    }

    fn filling(&self, index: usize) -> [u8; 8] {
        mix(self.number.wrapping_mul(0x1_0001) ^ index as u64).to_be_bytes()
    }
}

/// Spreads the bits of `x` (the finisher of SplitMix64, Steele, Lea and Flood, OOPSLA 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn packets_are_read_as_written_and_damage_shows(
            number: u64, stream: u32, sent: u64, size in 24..300usize, bit: usize,
        ) {
            let stamp = Stamp { stream, number, sent_at: Timestamp::from_micros(sent) };
            let mut packet = vec![0; size];
            stamp.write(&mut packet);
            prop_assert_eq!(Stamp::read(&packet), Some(stamp));
            let bit = bit % (size * 8);
            packet[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Stamp::read(&packet), None);
            prop_assert_eq!(Stamp::read(&packet[..23]), None);
        }
    }
}
