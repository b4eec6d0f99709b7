//! The blocks of a pcapng file that a capture has (draft-ietf-opsawg-pcapng), as bytes: little
//! endian, times in microseconds, packets that begin with an IP header.

use std::net::Ipv4Addr;
use std::time::Duration;

/// `LINKTYPE_RAW`: a packet begins with its IP header.
const RAW_IP: u16 = 101;
/// Options that any block may have.
const END_OF_OPTIONS: u16 = 0;
const COMMENT: u16 = 1;

/// A block under construction.
struct Block(Vec<u8>);

impl Block {
    fn new(kind: u32) -> Self {
        // Room for the length, known at the end.
        Self(kind.to_le_bytes().into_iter().chain([0; 4]).collect())
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Followed by zeros up to a multiple of four.
    fn padded(mut self, bytes: &[&[u8]]) -> Self {
        bytes.iter().for_each(|part| self.0.extend_from_slice(part));
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// An option of a block, or a record of a list of names. What is too long for one is cut.
    fn option(self, code: u16, value: &[&[u8]]) -> Self {
        let length: usize = value.iter().map(|part| part.len()).sum();
        self.u16(code).u16(u16::try_from(length).unwrap_or(u16::MAX)).padded(value)
    }

    fn end(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() + 4).unwrap_or(u32::MAX).to_le_bytes();
        self.0[4..8].copy_from_slice(&length);
        self.0.extend(length);
        self.0
    }
}

/// What a file begins with: who wrote it, and what a reader should know.
pub(super) fn section(comment: &str) -> Vec<u8> {
    const APPLICATION: u16 = 4;
    let writer = concat!("tradewind-sim ", env!("CARGO_PKG_VERSION"));
    let block = Block::new(0x0a0d_0d0a).u32(0x1a2b_3c4d).u16(1).u16(0);
    // The section's length is not said.
    let block = block.u32(u32::MAX).u32(u32::MAX);
    let block = block.option(COMMENT, &[comment.as_bytes()]);
    block.option(APPLICATION, &[writer.as_bytes()]).option(END_OF_OPTIONS, &[]).end()
}

/// An interface. They are numbered in the order in which they stand in the file, from 0.
pub(super) fn interface(name: &str, description: &str) -> Vec<u8> {
    const NAME: u16 = 2;
    const DESCRIPTION: u16 = 3;
    // Packets of any length are kept whole; microseconds are the default.
    let block = Block::new(1).u16(RAW_IP).u16(0).u32(0).option(NAME, &[name.as_bytes()]);
    block.option(DESCRIPTION, &[description.as_bytes()]).option(END_OF_OPTIONS, &[]).end()
}

/// Which address is whose.
pub(super) fn names<'a>(known: impl Iterator<Item = (Ipv4Addr, &'a str)>) -> Vec<u8> {
    const END: u16 = 0;
    const IPV4: u16 = 1;
    let named = |block: Block, (address, name): (Ipv4Addr, &str)| {
        block.option(IPV4, &[&address.octets(), name.as_bytes(), &[0]])
    };
    known.fold(Block::new(4), named).option(END, &[]).end()
}

/// A packet of `length` bytes of which `headers` and `payload` are kept.
pub(super) fn packet(
    interface: u32,
    at: Duration,
    length: u32,
    [headers, payload]: [&[u8]; 2],
    comment: &str,
) -> Vec<u8> {
    let micros = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
    let [low, high] = [micros, micros >> 32].map(|part| part as u32);
    let kept = u32::try_from(headers.len() + payload.len()).unwrap_or(u32::MAX);
    let block = Block::new(6).u32(interface).u32(high).u32(low).u32(kept).u32(length);
    let block = block.padded(&[headers, payload]);
    match comment.is_empty() {
        true => block.end(),
        false => block.option(COMMENT, &[comment.as_bytes()]).option(END_OF_OPTIONS, &[]).end(),
    }
}
