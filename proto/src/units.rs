//! The words of the overlay as types: points and spans of time, names, numbers.
//!
//! A number that crosses a module border carries its unit here, and a value that exists is valid:
//! the constructors check. Wrapping sequence numbers compare by serial-number arithmetic
//! (RFC 1982), so they must not be ordered with `<`.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Add;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time on one relay's clock: microseconds since the Unix epoch *as that relay
/// believes*, never going back.
///
/// Clocks of two relays differ by an unknown offset; only [`crate::link::meter`] and the router's clock
/// coordinates compare their readings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Before everything else.
    pub const ZERO: Self = Self(0);
    /// After everything else: "never", as an answer of `poll_timeout`.
    pub const NEVER: Self = Self(u64::MAX);

    /// The point `micros` microseconds after the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Time passed since `earlier`, zero if that lies in the future.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This reading less `other`, in microseconds; the two may be of different clocks.
    pub const fn micros_after(self, other: Self) -> i64 {
        self.0.wrapping_sub(other.0) as i64
    }

    /// The point `span` before this one, not before the epoch.
    pub fn minus(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(micros(span)))
    }

    /// This point as packets carry it.
    pub const fn wire(self) -> WireTime {
        WireTime(self.0 as u32)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(micros(span)))
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// The low 32 bits of a [`Timestamp`], as packets carry it. Wraps every 71 minutes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WireTime(pub u32);

impl WireTime {
    /// The full reading with these low bits that lies nearest to `reference`.
    pub const fn near(self, reference: Timestamp) -> Timestamp {
        let ahead = self.0.wrapping_sub(reference.0 as u32) as i32;
        Timestamp(reference.0.wrapping_add_signed(ahead as i64))
    }
}

/// What is left of a packet's deadline, as packets carry it: microseconds in 24 bits, so at most
/// 16.7 s. In memory a span is a `Duration`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Budget(u32);

impl Budget {
    /// The longest budget that a packet can carry.
    pub const MAX: Self = Self(0xff_ffff);

    /// `span`, cut to [`Self::MAX`].
    pub fn new(span: Duration) -> Self {
        Self(u32::try_from(span.as_micros()).map_or(Self::MAX.0, |us| us.min(Self::MAX.0)))
    }

    /// From the 24 bits on the wire; higher bits are cut off.
    pub const fn from_micros(micros: u32) -> Self {
        Self(micros & Self::MAX.0)
    }

    /// Microseconds, less than 2^24.
    pub const fn as_micros(self) -> u32 {
        self.0
    }

    /// The span as the rest of the program knows it.
    pub const fn span(self) -> Duration {
        Duration::from_micros(self.0 as u64)
    }

    /// What is left after `spent`; `None` when nothing is.
    pub fn after(self, spent: Duration) -> Option<Self> {
        self.span().checked_sub(spent).filter(|left| !left.is_zero()).map(Self::new)
    }
}

/// The name of a relay, such as `sgp-2`: `[a-z0-9-]`, 1 to 32 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct PopId(Arc<str>);

/// What is wrong with a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty, or longer than allowed.
    #[error("{name:?} has {len} characters, a name has 1 to {max}")]
    Length {
        /// The name as given, cut to 64 characters.
        name: String,
        /// Its length.
        len: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// A character outside the alphabet.
    #[error("{name:?} contains {found:?}; a name is made of {alphabet}")]
    Character {
        /// The name as given.
        name: String,
        /// The first character that does not belong.
        found: char,
        /// What is allowed.
        alphabet: &'static str,
    },
}

fn checked_name(
    name: &str,
    max: usize,
    alphabet: &'static str,
    allowed: fn(char) -> bool,
) -> Result<Arc<str>, NameError> {
    if name.is_empty() || name.len() > max {
        let len = name.chars().count();
        return Err(NameError::Length { name: name.chars().take(64).collect(), len, max });
    }
    match name.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(NameError::Character { name: name.into(), found, alphabet }),
        None => Ok(name.into()),
    }
}

impl PopId {
    /// The longest name.
    pub const MAX_LEN: usize = 32;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The four bytes that stand for this relay in packets: the 32-bit FNV-1a hash of the name
    /// (`draft-eastlake-fnv`). Relays whose names collide can't join the same overlay.
    pub fn key(&self) -> PopKey {
        PopKey(fnv1a(self.0.as_bytes()))
    }
}

impl TryFrom<String> for PopId {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl std::str::FromStr for PopId {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        checked_name(name, Self::MAX_LEN, "a-z, 0-9 and -", allowed).map(Self)
    }
}

impl fmt::Display for PopId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Borrow<str> for PopId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The name of a service: `[A-Za-z0-9._-]`, 1 to 64 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// The longest name.
    pub const MAX_LEN: usize = 64;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        name.parse()
    }
}

impl std::str::FromStr for ServiceName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        checked_name(name, Self::MAX_LEN, "A-Z, a-z, 0-9, '.', '_' and '-'", allowed).map(Self)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The 32-bit FNV-1a hash.
pub(crate) fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// A relay as packets name it. See [`PopId::key`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PopKey(pub u32);

impl fmt::Display for PopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:08x}", self.0)
    }
}

/// Which start of a relay: wall-clock milliseconds at that start. The newer one wins.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The low 32 bits, as flow ids carry it.
    pub const fn short(self) -> u32 {
        self.0 as u32
    }
}

/// One conversation through the overlay, both ways: unique over all ingresses and their restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId {
    /// The relay where the tunnel is.
    pub ingress: PopKey,
    /// [`Incarnation::short`] of the ingress when the flow began.
    pub incarnation: u32,
    /// Counted by the ingress.
    pub number: u32,
}

/// What a packet is to the overlay: its priority, default deadline and share of repair.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// First in every queue. Default deadline 200 ms.
    Audio,
    /// Second. Default deadline 300 ms.
    #[default]
    Video,
    /// Last. Default deadline 1 s.
    Bulk,
}

impl Class {
    /// Every class, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Audio, Self::Video, Self::Bulk];

    /// The deadline of a tunnel that names none.
    pub const fn default_deadline(self) -> Duration {
        Duration::from_millis(match self {
            Self::Audio => 200,
            Self::Video => 300,
            Self::Bulk => 1000,
        })
    }

    /// As configuration and tables write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Bulk => "bulk",
        }
    }
}

/// How many copies of a flow's packets travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Redundancy {
    /// One, on the best path.
    #[default]
    Single,
    /// Two, on the cheapest pair of node-disjoint paths.
    Disjoint,
}

/// Which policy binds a packet: a hash of the rule, 0 for none. See [`crate::statement::Policy`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyId(pub u32);

impl PolicyId {
    /// No policy.
    pub const NONE: Self = Self(0);
}

/// Makes a wrapping 32-bit sequence number.
macro_rules! serial {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.wrapping_add(1))
            }

            /// How far this one lies behind `other` (negative: ahead of it). RFC 1982.
            pub const fn behind(self, other: Self) -> i32 {
                other.0.wrapping_sub(self.0) as i32
            }

            /// Whether this one comes after `other`.
            pub const fn is_after(self, other: Self) -> bool {
                self.behind(other) < 0
            }
        }
    };
}

serial! {
    /// Counts what is sent on one direction of one link: every data, parity and repeated shard,
    /// heartbeat and probe takes the next one.
    LinkSeq
}
serial! {
    /// Counts the packets of one direction of one flow.
    FlowSeq
}

/// Which group of a link a shard belongs to; 24 bits on the wire, counted over all classes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct GroupId(u32);

impl GroupId {
    const MASK: u32 = 0xff_ffff;

    /// From the low 24 bits of `bits`.
    pub const fn new(bits: u32) -> Self {
        Self(bits & Self::MASK)
    }

    /// The 24 bits.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// The group after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self::new(self.0.wrapping_add(1))
    }

    /// How far this one lies behind `other` (negative: ahead of it). RFC 1982 over 24 bits.
    pub const fn behind(self, other: Self) -> i32 {
        (other.0.wrapping_sub(self.0) << 8) as i32 >> 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert!("sgp-2".parse::<PopId>().is_ok());
        for bad in ["", "FRA", "a_b", "fra.1", &"x".repeat(33)] {
            assert!(bad.parse::<PopId>().is_err(), "{bad:?}");
        }
        assert!("SFU_fra.1".parse::<ServiceName>().is_ok());
        for bad in ["", "a b", "sfu@mad", &"x".repeat(65)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys_are_the_published_hash() {
        // Vectors of the FNV draft, appendix C.
        assert_eq!(fnv1a(b""), 0x811c_9dc5);
        assert_eq!(fnv1a(b"a"), 0xe40c_292c);
        assert_eq!(fnv1a(b"foobar"), 0xbf9c_f968);
    }

    #[test]
    fn wire_time_survives_wrapping() {
        for start in [0u64, 0xffff_fff0, 0x1_0000_0005, 1_700_000_000_000_000] {
            let reference = Timestamp::from_micros(start + 3_000_000);
            for offset in [-2_000_000i64, -1, 0, 1, 2_000_000] {
                let at = Timestamp::from_micros(reference.as_micros().wrapping_add_signed(offset));
                assert_eq!(at.wire().near(reference), at);
            }
        }
    }

    #[test]
    fn sequence_numbers_wrap() {
        assert!(LinkSeq(0).is_after(LinkSeq(u32::MAX)));
        assert_eq!(LinkSeq(u32::MAX).behind(LinkSeq(2)), 3);
        assert_eq!(GroupId::new(0xff_ffff).next(), GroupId::new(0));
        assert_eq!(GroupId::new(0xff_ffff).behind(GroupId::new(1)), 2);
        assert_eq!(GroupId::new(1).behind(GroupId::new(0xff_ffff)), -2);
    }

    #[test]
    fn a_budget_never_goes_below_zero_nor_over_its_bits() {
        let budget = Budget::new(Duration::from_secs(60));
        assert_eq!(budget, Budget::MAX);
        assert_eq!(budget.after(Duration::from_secs(17)), None);
        let budget = Budget::new(Duration::from_millis(200));
        assert_eq!(budget.after(Duration::from_millis(50)), Some(Budget::from_micros(150_000)));
        assert_eq!(budget.after(Duration::from_millis(200)), None);
    }
}
