//! The bytes of statements.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Body, ClockCoordinate, LEAST_PACKET, LinkStatement, MAX_ADDRESS, MAX_ADDRESSES,
    MAX_CERTIFICATE, MAX_LINKS, MAX_POLICIES, MAX_SERVICES, NodeState, PREFIX, Policy,
    ServiceStatement, Statement,
};
use crate::units::{Incarnation, PopId, PopKey, ServiceName, Timestamp};
use crate::wire::{Reader, WireError, check_order, flag, put_count, put_text};

const FULL: u8 = 0;
const DELTA: u8 = 1;

const DRAINING: u8 = 1;
const LOCATED: u8 = 2;
const SEALING: u8 = 4;
const UP: u8 = 1;

const KEY: usize = 4;
const LINK: usize = 35;
/// The fewest bytes of a service: a name of one character, and the number of its ports.
const SERVICE: usize = 4;
/// The fewest bytes of an address.
const ADDRESS: usize = 2;

const MAX_LOAD: u16 = 1000;
/// Steps of a loss of 1. A power of two, so that conversions are exact.
const LOSS_STEPS: f32 = 65_536.0;
/// Steps of a burst of one packet.
const BURST_STEPS: f32 = 16.0;

impl Statement {
    /// The bytes to sign.
    ///
    /// Lists are brought into order. What exceeds a limit of this module is left out or cut (of
    /// entries of the same name, the last stays), so that no receiver has to refuse the whole.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(512);
        out.put_slice(PREFIX);
        put_text(&mut out, self.origin.as_str());
        out.put_u64(self.incarnation.0);
        out.put_u32(self.seq);
        match &self.body {
            Body::Full(state) => {
                out.put_u8(FULL);
                state.encode(&mut out);
            }
            Body::Delta { base, clock, links, removed } => {
                out.put_u8(DELTA);
                out.put_u32(*base);
                clock.encode(&mut out);
                put_links(&mut out, links);
                let removed = ascending(removed, MAX_LINKS, |key| *key);
                put_count(&mut out, removed.len());
                removed.iter().for_each(|key| out.put_u32(key.0));
            }
        }
        out.freeze()
    }

    /// Reads a body; lists longer than their limits are refused, and so is every encoding but the
    /// one that [`Self::encode`] makes.
    pub fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(body);
        if reader.take(PREFIX.len())? != PREFIX {
            return Err(WireError::NotAStatement);
        }
        let origin = reader.name("origin", PopId::MAX_LEN)?;
        let incarnation = Incarnation(reader.u64()?);
        let seq = reader.u32()?;
        if seq == 0 {
            return Err(WireError::Range("number of a statement"));
        }
        let body = match reader.u8()? {
            FULL => Body::Full(NodeState::decode(&mut reader)?),
            DELTA => decode_delta(&mut reader, seq)?,
            unknown => return Err(WireError::UnknownBody(unknown)),
        };
        reader.finish()?;
        Ok(Self { origin, incarnation, seq, body })
    }
}

/// The first `limit` entries by key, the last one of each key.
fn ascending<'a, T, K: Ord>(
    entries: &'a [T],
    limit: usize,
    key: impl Fn(&'a T) -> K,
) -> Vec<&'a T> {
    let by_key: BTreeMap<K, &T> = entries.iter().map(|entry| (key(entry), entry)).collect();
    by_key.into_values().take(limit).collect()
}

fn decode_delta(reader: &mut Reader<'_>, seq: u32) -> Result<Body, WireError> {
    let base = reader.u32()?;
    if base == 0 || base >= seq {
        return Err(WireError::Range("base of a delta"));
    }
    let clock = ClockCoordinate::decode(reader)?;
    let links = decode_links(reader)?;
    let removed = reader.list("removed links", MAX_LINKS, KEY, |r| r.u32().map(PopKey))?;
    check_order("removed links", &removed, |key| key)?;
    Ok(Body::Delta { base, clock, links, removed })
}

impl NodeState {
    fn encode(&self, out: &mut BytesMut) {
        let location = self.location.filter(|&place| is_on_earth(place));
        let located = flag(location.is_some(), LOCATED);
        let sealing = flag(self.sealing_key.is_some(), SEALING);
        out.put_u8(flag(self.draining, DRAINING) | located | sealing);
        out.put_u16(self.load_permille.min(MAX_LOAD));
        self.clock.encode(out);
        if let Some((north, east)) = location {
            out.put_f32(north);
            out.put_f32(east);
        }
        if let Some(key) = &self.sealing_key {
            out.put_slice(key);
        }
        let certificate = &self.certificate[..self.certificate.len().min(MAX_CERTIFICATE)];
        put_count(out, certificate.len());
        out.put_slice(certificate);
        self.encode_lists(out);
    }

    fn encode_lists(&self, out: &mut BytesMut) {
        let addresses = self.addresses.iter().filter(|address| is_address(address));
        let addresses: Vec<&String> = addresses.take(MAX_ADDRESSES).collect();
        put_count(out, addresses.len());
        addresses.iter().for_each(|address| put_text(out, address));

        let services = ascending(&self.services, MAX_SERVICES, |service| &service.name);
        put_count(out, services.len());
        for service in services {
            put_text(out, service.name.as_str());
            out.put_u16(service.ports.max(1));
        }

        let policies = ascending(&self.policies, MAX_POLICIES, Policy::name);
        put_count(out, policies.len());
        policies.iter().for_each(|policy| policy.encode(out));

        put_links(out, &self.links);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let flags = reader.flags("flags of a statement", DRAINING | LOCATED | SEALING)?;
        let load_permille = in_range("load", reader.u16()?, |&load| load <= MAX_LOAD)?;
        let clock = ClockCoordinate::decode(reader)?;
        let location = (flags & LOCATED != 0).then(|| decode_location(reader)).transpose()?;
        let sealing_key = (flags & SEALING != 0).then(|| reader.array()).transpose()?;
        Ok(Self {
            certificate: decode_certificate(reader)?,
            addresses: reader.list("addresses", MAX_ADDRESSES, ADDRESS, decode_address)?,
            location,
            services: decode_services(reader)?,
            policies: decode_policies(reader)?,
            draining: flags & DRAINING != 0,
            load_permille,
            clock,
            sealing_key,
            links: decode_links(reader)?,
        })
    }
}

fn in_range<T>(what: &'static str, value: T, allowed: impl Fn(&T) -> bool) -> Result<T, WireError> {
    Some(value).filter(allowed).ok_or(WireError::Range(what))
}

/// Not so for what is no number.
fn is_on_earth((north, east): (f32, f32)) -> bool {
    (-90.0..=90.0).contains(&north) && (-180.0..=180.0).contains(&east)
}

fn decode_location(reader: &mut Reader<'_>) -> Result<(f32, f32), WireError> {
    let place = (f32::from_bits(reader.u32()?), f32::from_bits(reader.u32()?));
    in_range("location", place, |&place| is_on_earth(place))
}

fn decode_certificate(reader: &mut Reader<'_>) -> Result<Bytes, WireError> {
    let (len, limit) = (usize::from(reader.u16()?), MAX_CERTIFICATE);
    match len <= limit {
        true => reader.take(len).map(Bytes::copy_from_slice),
        false => Err(WireError::Length { what: "certificate", len, limit }),
    }
}

fn is_address(text: &str) -> bool {
    (1..=MAX_ADDRESS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn decode_address(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let text = reader.text("address", MAX_ADDRESS)?;
    match is_address(text) {
        true => Ok(text.into()),
        false => Err(WireError::Text("address")),
    }
}

fn decode_services(reader: &mut Reader<'_>) -> Result<Vec<ServiceStatement>, WireError> {
    let services = reader.list("services", MAX_SERVICES, SERVICE, |reader| {
        let name = reader.name("service", ServiceName::MAX_LEN)?;
        let ports = in_range("ports of a service", reader.u16()?, |&ports| ports >= 1)?;
        Ok(ServiceStatement { name, ports })
    })?;
    check_order("services", &services, |service| &service.name)?;
    Ok(services)
}

fn decode_policies(reader: &mut Reader<'_>) -> Result<Vec<Policy>, WireError> {
    let policies = reader.list("policies", MAX_POLICIES, Policy::LEAST, Policy::decode)?;
    check_order("policies", &policies, Policy::name)?;
    Ok(policies)
}

fn put_links(out: &mut BytesMut, links: &[LinkStatement]) {
    let links = ascending(links, MAX_LINKS, |link| link.to);
    put_count(out, links.len());
    links.iter().for_each(|link| link.encode(out));
}

fn decode_links(reader: &mut Reader<'_>) -> Result<Vec<LinkStatement>, WireError> {
    let links = reader.list("links", MAX_LINKS, LINK, LinkStatement::decode)?;
    check_order("links", &links, |link| &link.to)?;
    Ok(links)
}

impl ClockCoordinate {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u64(self.at.as_micros());
        out.put_i64(self.offset_micros);
        out.put_i32(self.drift_ppb);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            at: Timestamp::from_micros(reader.u64()?),
            offset_micros: reader.i64()?,
            drift_ppb: reader.i32()?,
        })
    }
}

impl LinkStatement {
    fn encode(&self, out: &mut BytesMut) {
        out.put_u32(self.to.0);
        out.put_u8(flag(self.up, UP));
        out.put_i32(self.delay_micros);
        put_span(out, self.jitter);
        put_span(out, self.rtt);
        // Conversions to integers saturate, and make zero of what is no number. A loss is rounded
        // up, so that a link which loses something is never taken for one which loses nothing.
        out.put_u16((self.loss * LOSS_STEPS).ceil() as u16);
        out.put_u16((self.burst.max(1.0) * BURST_STEPS).round() as u16);
        out.put_u32(self.capacity_kbps);
        out.put_u32(self.load_kbps);
        put_span(out, self.cost);
        out.put_u16(self.max_packet.max(LEAST_PACKET));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            to: PopKey(reader.u32()?),
            up: reader.flags("flags of a link", UP)? == UP,
            delay_micros: reader.i32()?,
            jitter: span(reader)?,
            rtt: span(reader)?,
            loss: f32::from(reader.u16()?) / LOSS_STEPS,
            burst: in_range("burst", f32::from(reader.u16()?) / BURST_STEPS, |&b| b >= 1.0)?,
            capacity_kbps: reader.u32()?,
            load_kbps: reader.u32()?,
            cost: span(reader)?,
            max_packet: in_range("largest packet", reader.u16()?, |&b| b >= LEAST_PACKET)?,
        })
    }
}

/// Writes microseconds, at most 71 minutes.
fn put_span(out: &mut BytesMut, span: Duration) {
    out.put_u32(u32::try_from(span.as_micros()).unwrap_or(u32::MAX));
}

fn span(reader: &mut Reader<'_>) -> Result<Duration, WireError> {
    reader.u32().map(|micros| Duration::from_micros(micros.into()))
}
