//! Numbers with units, as world files write them: `150ms`, `3%` or `0.03`, `2.5Mbit`, `64kB`.

use std::fmt;
use std::time::Duration;

use serde::de::value::{Error as ValueError, F64Deserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

/// A share of packets or of time: `0.03` or `"3%"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(pub f64);

/// A rate: `"2.5Mbit"`, with `bit`, `kbit`, `Mbit`, `Gbit` (powers of 1000, per second), or a plain
/// number of bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitRate(pub u64);

/// A number of bytes: `"64kB"`, with `B`, `kB`, `MB` (powers of 1000) or `KiB`, `MiB`, or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub usize);

/// A mean run of losses: in packets (`5`) or in time (`"5ms"`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Burst {
    /// So many packets in a row.
    Packets(f64),
    /// So long.
    Time(Duration),
}

/// A span of time: `"150ms"`, as humantime has it (`2s`, `1m 30s`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Span(#[serde(with = "humantime_serde")] pub Duration);

const BIT_UNITS: [(&str, f64); 4] = [("Gbit", 1e9), ("Mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)];
const BYTE_UNITS: [(&str, f64); 5] =
    [("MiB", 1048576.0), ("KiB", 1024.0), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)];

/// `text` as a number followed by one of `units`.
fn scaled(text: &str, units: &[(&str, f64)]) -> Option<f64> {
    let (number, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))?;
    let number: f64 = number.trim_end().parse().ok()?;
    Some(number * factor).filter(|value| value.is_finite() && *value >= 0.0)
}

/// A quantity as a command line has it: like a world file, without quotes. `None` if it is none.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Option<T> {
    let number = text.parse::<f64>().ok();
    let number = number.and_then(|n| T::deserialize(F64Deserializer::<ValueError>::new(n)).ok());
    number.or_else(|| T::deserialize(StrDeserializer::<ValueError>::new(text)).ok())
}

/// Accepts a TOML number or text, each with a reading of its own.
struct NumberOr<T> {
    expected: &'static str,
    number: fn(f64) -> Option<T>,
    text: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for NumberOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        (self.number)(number).ok_or_else(|| E::invalid_value(Unexpected::Float(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        (self.number)(number as f64)
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.text)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn share(number: f64) -> Option<Share> {
            (0.0..=1.0).contains(&number).then_some(Share(number))
        }
        deserializer.deserialize_any(NumberOr {
            expected: "a share, such as 0.03 or \"3%\"",
            number: share,
            text: |text| share(scaled(text, &[("%", 0.01)])?),
        })
    }
}

impl<'de> Deserialize<'de> for BitRate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn rate(number: f64) -> Option<BitRate> {
            (1.0..=1e15).contains(&number).then_some(BitRate(number as u64))
        }
        deserializer.deserialize_any(NumberOr {
            expected: "a rate, such as \"2.5Mbit\"",
            number: rate,
            text: |text| rate(scaled(text, &BIT_UNITS)?),
        })
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        fn bytes(number: f64) -> Option<Bytes> {
            (0.0..=1e12).contains(&number).then_some(Bytes(number as usize))
        }
        deserializer.deserialize_any(NumberOr {
            expected: "a number of bytes, such as \"64kB\"",
            number: bytes,
            text: |text| bytes(scaled(text, &BYTE_UNITS)?),
        })
    }
}

impl<'de> Deserialize<'de> for Burst {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOr {
            expected: "a mean run of losses, such as 5 (packets) or \"5ms\"",
            number: |number| (number >= 1.0).then_some(Self::Packets(number)),
            text: |text| {
                let Span(span) =
                    Span::deserialize(StrDeserializer::<ValueError>::new(text)).ok()?;
                Some(Self::Time(span))
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Value<T> {
        x: T,
    }

    fn read<T: for<'de> Deserialize<'de>>(text: &str) -> Option<T> {
        toml::from_str::<Value<T>>(&format!("x = {text}")).ok().map(|value| value.x)
    }

    #[test]
    fn quantities_are_read_with_their_units() {
        assert_eq!(read("0.03"), Some(Share(0.03)));
        assert_eq!(read("\"3%\""), Some(Share(0.03)));
        assert_eq!(read("1"), Some(Share(1.0)));
        assert_eq!(read("\"2.5Mbit\""), Some(BitRate(2_500_000)));
        assert_eq!(read("\"100 kbit\""), Some(BitRate(100_000)));
        assert_eq!(read("9600"), Some(BitRate(9_600)));
        assert_eq!(read("\"64kB\""), Some(Bytes(64_000)));
        assert_eq!(read("\"2KiB\""), Some(Bytes(2_048)));
        assert_eq!(read("5"), Some(Burst::Packets(5.0)));
        assert_eq!(read("\"5ms\""), Some(Burst::Time(Duration::from_millis(5))));
        assert_eq!(read("\"1m 30s\""), Some(Span(Duration::from_secs(90))));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["1.5", "-0.1", "\"120%\"", "\"3\"", "\"x%\"", "true", "nan"] {
            assert_eq!(read::<Share>(text), None, "{text}");
        }
        for text in ["0", "\"5\"", "\"5MB\"", "-1", "\"inf Mbit\""] {
            assert_eq!(read::<BitRate>(text), None, "{text}");
        }
        for text in ["0.5", "\"5\"", "\"soon\""] {
            assert_eq!(read::<Burst>(text), None, "{text}");
        }
        assert_eq!(read::<Bytes>("\"64kbit\""), None);
        assert_eq!(read::<Span>("5"), None);
    }
}
