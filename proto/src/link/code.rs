//! The erasure code of a group: any `k` of its shards rebuild its `k` packets.
//!
//! Systematic Reed-Solomon on a Cauchy matrix (Blömer et al., "An XOR-Based Erasure-Resilient
//! Coding Scheme", ICSI TR-95-048) over the field and kernels of `reed-solomon-erasure`. The
//! crate's own codec makes all parity rows at once, wants equal lengths and inverts a matrix when
//! built; here any row is made alone, does not depend on how many there are, and packets of
//! different lengths cost what they weigh: a packet stands in the code as its length (two bytes)
//! followed by its bytes, with zeros to the length of the longest, which are never written down.
//!
//! With the default feature `simd-accel` the kernels are compiled for AVX2 on x86-64 *without
//! detection at run time*: on a processor that lacks it the first parity shard would end the
//! process. Call [`cpu_supported`] at start. Without the feature all is plain Rust.
//!
//! This module knows nothing of loss or time; [`super::plan`] says how many rows to make.

use bytes::{Bytes, BytesMut};
use reed_solomon_erasure::galois_8;

/// The most packets in one group: data rows are 0 to 63.
pub const MAX_DATA: usize = 64;
/// The first parity row; the last is 255.
pub const FIRST_PARITY: u8 = 64;
/// The most parity rows of one group.
pub const MAX_PARITY: usize = 256 - FIRST_PARITY as usize;
/// What a parity symbol has more than the longest packet of its group: the packet's length.
pub const SYMBOL_OVERHEAD: usize = 2;

/// The processor lacks what this build needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this build needs AVX2 and the processor has none; build it with `--no-default-features` (slower, plain Rust)"
)]
pub struct UnsupportedCpu;

/// Whether the code's kernels can run on this processor.
pub fn cpu_supported() -> Result<(), UnsupportedCpu> {
    #[cfg(all(feature = "simd-accel", target_arch = "x86_64"))]
    if !std::is_x86_feature_detected!("avx2") {
        return Err(UnsupportedCpu);
    }
    Ok(())
}

/// Why shards could not be combined: they can't be of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// Fewer shards than the group has packets.
    #[error("{have} parity shards can't replace {lacking} packets")]
    TooFew {
        /// Packets that are missing.
        lacking: usize,
        /// Parity shards given.
        have: usize,
    },
    /// A row outside its range, or twice.
    #[error("row {0} is out of place")]
    Row(u8),
    /// Parity symbols of different lengths, or shorter than a packet of the group.
    #[error("a symbol of {got} bytes among symbols of {expected}")]
    Length {
        /// The length of the group's symbols.
        expected: usize,
        /// The length found.
        got: usize,
    },
}

/// The Cauchy matrix: no square part of it is singular, because rows and columns are disjoint.
fn coefficient(parity_row: u8, data_row: u8) -> u8 {
    galois_8::div(1, parity_row ^ data_row)
}

/// Adds `factor` times `input` to the front of `sum`.
fn add_scaled(factor: u8, input: &[u8], sum: &mut [u8]) {
    // The crate's accelerated kernels panic on nothing.
    if !input.is_empty() {
        galois_8::mul_slice_xor(factor, input, &mut sum[..input.len()]);
    }
}

/// Adds `factor` times the symbol of `packet` to `sum`, which is at least as long.
fn add_packet(factor: u8, packet: &[u8], sum: &mut [u8]) {
    let len = (packet.len() as u16).to_be_bytes();
    sum[0] ^= galois_8::mul(factor, len[0]);
    sum[1] ^= galois_8::mul(factor, len[1]);
    add_scaled(factor, packet, &mut sum[SYMBOL_OVERHEAD..]);
}

/// The length of the parity symbols of these packets.
pub fn symbol_len<'a>(packets: impl IntoIterator<Item = &'a [u8]>) -> usize {
    SYMBOL_OVERHEAD + packets.into_iter().map(<[u8]>::len).max().unwrap_or(0)
}

/// Appends parity row `row` of a group to `out`. Packets count from data row 0.
///
/// # Panics
///
/// If `row` is a data row, or there are more than [`MAX_DATA`] packets, or one has over 65,535 bytes.
pub fn append_parity<'a, P>(row: u8, packets: P, out: &mut BytesMut)
where
    P: IntoIterator<Item = &'a [u8]> + Clone,
{
    assert!(row >= FIRST_PARITY, "row {row} is a data row");
    let start = out.len();
    out.resize(start + symbol_len(packets.clone()), 0);
    let sum = &mut out[start..];
    for (data_row, packet) in packets.into_iter().enumerate() {
        assert!(data_row < MAX_DATA && packet.len() <= usize::from(u16::MAX));
        add_packet(coefficient(row, data_row as u8), packet, sum);
    }
}

/// Rebuilds the packets missing from `data` (one place per packet of the group) out of parity
/// rows. Gives each rebuilt packet with its row; one whose length makes no sense is left out,
/// because then the shards did not belong together.
pub fn rebuild(
    data: &[Option<Bytes>],
    parity: &[(u8, Bytes)],
) -> Result<Vec<(u8, Bytes)>, CodeError> {
    let missing: Vec<u8> =
        (0u8..).zip(data).filter(|(_, packet)| packet.is_none()).map(|(row, _)| row).collect();
    let lacking = missing.len();
    let parity = parity.get(..lacking).ok_or(CodeError::TooFew { lacking, have: parity.len() })?;
    let Some((_, first)) = parity.first() else { return Ok(Vec::new()) };
    let len = first.len();
    check(data, parity, len)?;
    let sums = subtract_known(data, parity, len);
    let rows: Vec<u8> = parity.iter().map(|&(row, _)| row).collect();
    let inverse = CauchyInverse::new(&rows, &missing);
    let mut solved = BytesMut::zeroed(len * lacking);
    let mut packets = Vec::with_capacity(lacking);
    for (at, &row) in missing.iter().enumerate() {
        let mut symbol = solved.split_to(len);
        for (from, sum) in sums.chunks_exact(len).enumerate() {
            add_scaled(inverse.at(at, from), sum, &mut symbol);
        }
        if let Some(packet) = packet_of(symbol.freeze()) {
            packets.push((row, packet));
        }
    }
    Ok(packets)
}

fn check(data: &[Option<Bytes>], parity: &[(u8, Bytes)], len: usize) -> Result<(), CodeError> {
    if data.len() > MAX_DATA {
        return Err(CodeError::Row(MAX_DATA as u8));
    }
    for (at, (row, symbol)) in parity.iter().enumerate() {
        if *row < FIRST_PARITY || parity[..at].iter().any(|(other, _)| other == row) {
            return Err(CodeError::Row(*row));
        }
        if symbol.len() != len || len < SYMBOL_OVERHEAD {
            return Err(CodeError::Length {
                expected: len.max(SYMBOL_OVERHEAD),
                got: symbol.len(),
            });
        }
    }
    match data.iter().flatten().map(|packet| packet.len() + SYMBOL_OVERHEAD).max() {
        Some(longest) if longest > len => Err(CodeError::Length { expected: len, got: longest }),
        _ => Ok(()),
    }
}

/// Parity less what the packets at hand contributed to it: the missing packets' part, one row
/// after the other.
fn subtract_known(data: &[Option<Bytes>], parity: &[(u8, Bytes)], len: usize) -> Vec<u8> {
    let mut sums = Vec::with_capacity(parity.len() * len);
    for (row, symbol) in parity {
        let start = sums.len();
        sums.extend_from_slice(symbol);
        for (data_row, packet) in (0u8..).zip(data) {
            if let Some(packet) = packet {
                add_packet(coefficient(*row, data_row), packet, &mut sums[start..]);
            }
        }
    }
    sums
}

fn packet_of(symbol: Bytes) -> Option<Bytes> {
    let (&[high, low], rest) = symbol.split_first_chunk::<SYMBOL_OVERHEAD>()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    (len <= rest.len()).then(|| symbol.slice(SYMBOL_OVERHEAD..SYMBOL_OVERHEAD + len))
}

/// The inverse of a square part of the Cauchy matrix, by its closed form (Schechter, "On the
/// Inversion of Certain Matrices", 1959): quadratic work, and no pivot that could be zero.
struct CauchyInverse<'a> {
    parity: &'a [u8],
    data: &'a [u8],
    /// For each parity row x: the product of (x - y) over data rows, over that of (x - x') over other parity rows.
    of_parity: Vec<u8>,
    /// The same for each data row, the roles exchanged.
    of_data: Vec<u8>,
}

impl<'a> CauchyInverse<'a> {
    fn new(parity: &'a [u8], data: &'a [u8]) -> Self {
        let of_parity = parity.iter().map(|&x| ratio(x, data, parity)).collect();
        let of_data = data.iter().map(|&y| ratio(y, parity, data)).collect();
        Self { parity, data, of_parity, of_data }
    }

    /// What parity sum `from` contributes to missing packet `to`.
    fn at(&self, to: usize, from: usize) -> u8 {
        let product = galois_8::mul(self.of_parity[from], self.of_data[to]);
        galois_8::div(product, self.parity[from] ^ self.data[to])
    }
}

fn ratio(of: u8, across: &[u8], among: &[u8]) -> u8 {
    let product = |rows: &[u8]| {
        rows.iter()
            .filter(|&&row| row != of)
            .fold(1, |product, &row| galois_8::mul(product, of ^ row))
    };
    galois_8::div(product(across), product(among))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, subsequence};

    use super::*;

    fn slices(packets: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> + Clone {
        packets.iter().map(Vec::as_slice)
    }

    fn parity(row: u8, packets: &[Vec<u8>]) -> Bytes {
        let mut out = BytesMut::new();
        append_parity(row, slices(packets), &mut out);
        out.freeze()
    }

    fn without(packets: &[Vec<u8>], lost: &[usize]) -> Vec<Option<Bytes>> {
        let keep = |(at, packet): (usize, &Vec<u8>)| {
            (!lost.contains(&at)).then(|| Bytes::copy_from_slice(packet))
        };
        packets.iter().enumerate().map(keep).collect()
    }

    /// Multiplication in GF(2^8) bit by bit, polynomial 0x11d: nothing shared with the crate.
    fn slow_mul(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            if b & 1 != 0 {
                product ^= a;
            }
            a = (a << 1) ^ if a & 0x80 != 0 { 0x1d } else { 0 };
            b >>= 1;
        }
        product
    }

    fn padded(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let len = symbol_len(slices(packets));
        let pad = |packet: &Vec<u8>| {
            let mut symbol = (packet.len() as u16).to_be_bytes().to_vec();
            symbol.extend(packet);
            symbol.resize(len, 0);
            symbol
        };
        packets.iter().map(pad).collect()
    }

    fn group() -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<usize>, Vec<u8>)> {
        vec(vec(any::<u8>(), 0..1400), 1..=MAX_DATA).prop_flat_map(|packets| {
            let k = packets.len();
            (1..=k).prop_flat_map(move |lost| {
                (
                    Just(packets.clone()),
                    subsequence((0..k).collect::<Vec<_>>(), lost),
                    subsequence((FIRST_PARITY..=255).collect::<Vec<_>>(), lost),
                )
            })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_k_of_n_shards_rebuild_the_group((packets, lost, rows) in group()) {
            let shards: Vec<_> = rows.iter().map(|&row| (row, parity(row, &packets))).collect();
            let rebuilt = rebuild(&without(&packets, &lost), &shards).unwrap();
            prop_assert_eq!(rebuilt.len(), lost.len());
            for (row, packet) in rebuilt {
                prop_assert!(lost.contains(&usize::from(row)));
                prop_assert_eq!(&packet[..], &packets[usize::from(row)][..]);
            }
        }

        #[test]
        fn parity_is_the_cauchy_sum(packets in vec(vec(any::<u8>(), 0..40), 1..=MAX_DATA), row in 64..=255u8) {
            let mut sum = vec![0; symbol_len(slices(&packets))];
            for (column, symbol) in (0u8..).zip(padded(&packets)) {
                let factor = (1..=255).find(|&c| slow_mul(c, row ^ column) == 1).unwrap();
                sum.iter_mut().zip(symbol).for_each(|(sum, byte)| *sum ^= slow_mul(factor, byte));
            }
            prop_assert_eq!(&parity(row, &packets)[..], &sum[..]);
        }

        /// Each repairs from its own parity; the packets must come out the same.
        #[test]
        fn agrees_with_the_crates_codec(packets in vec(vec(any::<u8>(), 1..200), 2..20), picks in vec(any::<Index>(), 1..5)) {
            let mut lost: Vec<usize> = picks.iter().map(|pick| pick.index(packets.len())).collect();
            lost.sort_unstable();
            lost.dedup();
            let codec = galois_8::ReedSolomon::new(packets.len(), lost.len()).unwrap();
            let mut theirs = padded(&packets);
            theirs.resize(packets.len() + lost.len(), vec![0; theirs[0].len()]);
            codec.encode(&mut theirs).unwrap();
            let mut theirs: Vec<_> = theirs.into_iter().map(Some).collect();
            lost.iter().for_each(|&at| theirs[at] = None);
            codec.reconstruct_data(&mut theirs).unwrap();
            let shards: Vec<_> = (64..).take(lost.len()).map(|row| (row, parity(row, &packets))).collect();
            for (row, packet) in rebuild(&without(&packets, &lost), &shards).unwrap() {
                let symbol = theirs[usize::from(row)].clone().unwrap();
                prop_assert_eq!(Some(packet), packet_of(symbol.into()));
            }
        }

        #[test]
        fn shards_that_do_not_belong_together_do_no_harm(
            data in vec(proptest::option::of(vec(any::<u8>(), 0..50)), 0..70),
            shards in vec((any::<u8>(), vec(any::<u8>(), 0..60)), 0..20),
            len in proptest::option::of(0..60usize),
        ) {
            let data: Vec<_> = data.into_iter().map(|packet| packet.map(Bytes::from)).collect();
            let resize = |(row, mut symbol): (u8, Vec<u8>)| {
                symbol.resize(len.unwrap_or(symbol.len()), 7);
                (row, Bytes::from(symbol))
            };
            let shards: Vec<_> = shards.into_iter().map(resize).collect();
            let _ = rebuild(&data, &shards);
        }
    }

    #[test]
    fn refuses_what_it_cannot_use() {
        let data = [Some(Bytes::from_static(b"abc")), None];
        let symbol = |len: usize| Bytes::from(vec![1; len]);
        for (name, shards, error) in [
            ("nothing", vec![], CodeError::TooFew { lacking: 1, have: 0 }),
            ("a data row", vec![(3, symbol(9))], CodeError::Row(3)),
            (
                "shorter than a packet",
                vec![(64, symbol(4))],
                CodeError::Length { expected: 4, got: 5 },
            ),
            ("no symbol at all", vec![(64, symbol(0))], CodeError::Length { expected: 2, got: 0 }),
        ] {
            assert_eq!(rebuild(&data, &shards), Err(error), "{name}");
        }
    }

    #[test]
    fn a_rebuilt_length_beyond_the_symbol_is_left_out() {
        let wrong = Bytes::from_static(&[0xff, 0xff, 0, 0]);
        assert_eq!(rebuild(&[None], &[(64, wrong)]), Ok(vec![]));
    }

    #[test]
    fn this_machine_can_run_its_own_tests() {
        assert_eq!(cpu_supported(), Ok(()));
    }
}
