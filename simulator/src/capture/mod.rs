//! The packets that enter chosen links, as a pcapng file for Wireshark and its like.
//!
//! What a packet in virtual time is made of is the relays' frames, which are written as the daemon
//! would hand them to QUIC, unencrypted. The IPv4 and UDP headers around them are made up, with an
//! address for each PoP; lengths are those that the link counts, so the bytes that QUIC adds are
//! missing at the end of each packet, as if it had been cut when it was captured.

mod pcapng;

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::time::Duration;

use tradewind_proto::units::PopId;

use crate::emulator::IP_UDP_HEADERS;
use crate::link::{DropReason, Fate};
use crate::world::{Fidelity, LinkId, World, hint};

/// The port that a daemon listens at if nobody says otherwise.
const PORT: u16 = 7400;

/// Writes the packets that enter links of a world.
pub struct Capture {
    /// Interfaces of the file, each one direction of a link.
    links: Vec<Interface>,
    out: Box<dyn Write>,
    /// Bytes that the file may still take.
    room: u64,
    captured: Captured,
    /// Nothing is written any more after the first.
    error: Option<io::Error>,
}

struct Interface {
    link: LinkId,
    source: Ipv4Addr,
    destination: Ipv4Addr,
}

/// What became of a capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Packets in the file.
    pub packets: u64,
    /// Packets that came when the file was full, at [`Capture::LIMIT`].
    pub left_out: u64,
}

/// What a packet is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// A datagram: frames of the link protocol.
    Frames(&'a [u8]),
    /// A part of the control stream.
    Control(&'a [u8]),
    /// A packet of a handshake, whose content is not modelled.
    Handshake,
    /// The end of a connection, whose content is not modelled.
    Close,
    /// Somebody else's.
    Foreign,
}

impl Payload<'_> {
    /// Says what it is, unless it is what most packets are.
    fn name(self) -> &'static str {
        match self {
            Self::Frames(_) => "",
            Self::Control(_) => "control stream",
            Self::Handshake => "handshake",
            Self::Close => "close",
            Self::Foreign => "other traffic",
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::Frames(bytes) | Self::Control(bytes) => bytes,
            Self::Handshake | Self::Close | Self::Foreign => &[],
        }
    }
}

/// The links of `world` that are named, `a-b` for both directions and `a>b` for one.
///
/// # Errors
///
/// A link that does not exist, or a world that is run without packets, in a sentence.
pub fn links(world: &World, named: &[String]) -> Result<Vec<LinkId>, String> {
    if world.fidelity == Fidelity::Flow {
        return Err("fidelity \"flow\" has no packets to capture; set fidelity = \"packet\"".into());
    }
    let mut links = Vec::new();
    for name in named {
        let is_meant = |link: &&LinkId| names_of(link).contains(name);
        let meant: Vec<&LinkId> = world.links.keys().filter(is_meant).collect();
        if meant.is_empty() {
            let known: Vec<String> = world.links.keys().flat_map(names_of).collect();
            let hint = hint(name, known.iter().map(String::as_str));
            return Err(format!("there is no link \"{name}\"{hint}"));
        }
        links.extend(meant.into_iter().cloned());
    }
    links.sort();
    links.dedup();
    Ok(links)
}

fn names_of((from, to): &LinkId) -> [String; 3] {
    [format!("{from}-{to}"), format!("{to}-{from}"), format!("{from}>{to}")]
}

impl Capture {
    /// The most bytes of a file.
    pub const LIMIT: u64 = 256 << 20;

    /// A capture of these links of `world`, so far without packets.
    ///
    /// # Errors
    ///
    /// Whatever `out` refuses.
    pub fn new(world: &World, links: &[LinkId], out: impl Write + 'static) -> io::Result<Self> {
        let mut capture = Self {
            links: links.iter().map(|link| Interface::new(world, link)).collect(),
            out: Box::new(out),
            room: Self::LIMIT,
            captured: Captured::default(),
            error: None,
        };
        let known = world.pops.iter().enumerate();
        let known = known.map(|(at, pop)| (address(at), pop.id.as_str()));
        capture.write(&pcapng::section(&comment(world)))?;
        capture.write(&pcapng::names(known))?;
        for link in links {
            let (from, to) = link;
            let description = format!("what {from} sends into its link to {to}");
            capture.write(&pcapng::interface(&format!("{from}>{to}"), &description))?;
        }
        Ok(capture)
    }

    /// The links, in the order by which [`Self::packet`] counts them.
    pub(crate) fn links(&self) -> impl Iterator<Item = &LinkId> {
        self.links.iter().map(|interface| &interface.link)
    }

    /// A packet of `length` bytes, IP and UDP headers included, entered the link with that number,
    /// `at` after traffic began.
    pub(crate) fn packet(
        &mut self,
        link: usize,
        at: Duration,
        length: usize,
        payload: Payload<'_>,
        fate: Fate,
    ) {
        let remarks = [payload.name(), fate_text(fate)];
        let remarks: Vec<&str> = remarks.into_iter().filter(|text| !text.is_empty()).collect();
        let headers = self.links[link].headers(length);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        // There are no more links than a world has.
        let parts = [&headers[..], payload.bytes()];
        let block = pcapng::packet(link as u32, at, length, parts, &remarks.join("; "));
        if self.room < block.len() as u64 {
            // Nor is a smaller one written after it: a capture without gaps is easier to read.
            self.room = 0;
            self.captured.left_out += 1;
        } else if self.error.is_none() {
            self.error = self.write(&block).err();
            self.captured.packets += 1;
        }
    }

    fn write(&mut self, block: &[u8]) -> io::Result<()> {
        self.room = self.room.saturating_sub(block.len() as u64);
        self.out.write_all(block)
    }

    /// Writes the rest.
    ///
    /// # Errors
    ///
    /// The first thing that could not be written.
    pub fn finish(mut self) -> io::Result<Captured> {
        self.error.map_or(Ok(()), Err)?;
        self.out.flush()?;
        Ok(self.captured)
    }
}

impl Interface {
    fn new(world: &World, link: &LinkId) -> Self {
        let place = |id: &PopId| world.pops.iter().position(|pop| pop.id == *id);
        let address = |id| place(id).map_or(Ipv4Addr::UNSPECIFIED, address);
        Self { link: link.clone(), source: address(&link.0), destination: address(&link.1) }
    }

    /// IPv4 (RFC 791) and UDP (RFC 768) headers of a packet of `length` bytes: whole, not to be
    /// fragmented, the latter without a checksum.
    fn headers(&self, length: usize) -> [u8; IP_UDP_HEADERS] {
        let [ip_length, udp_length] =
            [length, length - 20].map(|length| u16::try_from(length).unwrap_or(u16::MAX));
        let mut headers = [0; IP_UDP_HEADERS];
        let mut put =
            |at: usize, bytes: &[u8]| headers[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0x45, 0]);
        put(2, &ip_length.to_be_bytes());
        put(6, &[0x40, 0, 64, 17]);
        put(12, &self.source.octets());
        put(16, &self.destination.octets());
        put(20, &PORT.to_be_bytes());
        put(22, &PORT.to_be_bytes());
        put(24, &udp_length.to_be_bytes());
        let checksum = internet_checksum(&headers[..20]);
        headers[10..12].copy_from_slice(&checksum.to_be_bytes());
        headers
    }
}

/// RFC 1071.
fn internet_checksum(header: &[u8]) -> u16 {
    let words =
        header.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

/// `10.0.0.1` and on, in the order of the world.
fn address(pop: usize) -> Ipv4Addr {
    // There are no more PoPs than `World::MAX_POPS`.
    Ipv4Addr::from_bits(0x0a00_0001 + pop as u32)
}

fn comment(world: &World) -> String {
    format!(
        "Simulated by tradewind-sim: world \"{}\", seed {}. Time 0 is when traffic begins. Packets as they \
         enter a link; those that don't arrive, or not unharmed, have a comment. IPv4 and UDP headers are \
         made up; the payload is Tradewind's frames without QUIC, whose bytes only count in the lengths.",
        world.name, world.seed
    )
}

/// Nothing for a packet that arrives once and whole.
fn fate_text(fate: Fate) -> &'static str {
    match fate {
        Fate::Dropped(DropReason::Down) => "dropped: the link is down",
        Fate::Dropped(DropReason::TooBig) => "dropped: larger than the link's MTU",
        Fate::Dropped(DropReason::QueueFull) => "dropped: the queue is full",
        Fate::Dropped(DropReason::Loss) => "dropped: lost on the way",
        Fate::Once(delivery) if delivery.flipped.is_some() => "damaged on the way",
        Fate::Once(_) => "",
        Fate::Twice(first, _) if first.flipped.is_some() => "arrives twice, once damaged",
        Fate::Twice(..) => "arrives twice",
    }
}

#[cfg(test)]
mod tests;
