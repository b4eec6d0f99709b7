//! Reading and writing bytes without panicking: the cursor that all codecs share, and its errors.
//!
//! Every format of this crate is big endian. A parser takes what it needs from a `Reader`, which
//! runs dry with an error and never panics, and allocates only for what has arrived. What the
//! fields mean is the business of the module that reads them.

#[cfg(test)]
pub(crate) mod mutation;

use bytes::BufMut;

use crate::packet::PathError;

/// Why bytes from the network were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the format needs.
    #[error("{need} more bytes are needed, {got} are left")]
    Truncated {
        /// Bytes that the next field needs.
        need: usize,
        /// Bytes that are left.
        got: usize,
    },
    /// Bytes after the end of what was to be read.
    #[error("{0} bytes follow where nothing should")]
    TrailingBytes(usize),
    /// Bits that this version must send as zero.
    #[error("bits {bits:#04x} of the {what} are reserved")]
    ReservedBits {
        /// Which flags.
        what: &'static str,
        /// The reserved bits that were set.
        bits: u8,
    },

    /// A packet that is neither data nor a signal.
    #[error("unknown kind of packet {0}")]
    UnknownPacketKind(u8),
    /// A packet of no known class.
    #[error("unknown class {0}")]
    UnknownClass(u8),
    /// A list of PoPs that is no path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A fragment beyond the last one.
    #[error("fragment {index} of {count}")]
    Fragment {
        /// The index given.
        index: u8,
        /// The number of fragments given.
        count: u8,
    },
    /// A flow opened with an unknown redundancy.
    #[error("unknown redundancy {0}")]
    UnknownRedundancy(u8),
    /// A signal of no known kind.
    #[error("unknown signal {0}")]
    UnknownSignal(u8),
    /// A refusal for no known reason.
    #[error("unknown reason of a refusal {0}")]
    UnknownRefusal(u8),

    /// A link frame of no known kind.
    #[error("unknown kind of frame {0}")]
    UnknownFrame(u8),
    /// A row of parity in a data frame, or the reverse.
    #[error("row {0} does not belong in this kind of frame")]
    ShardIndex(u8),
    /// A group of no packets, or of more than a code covers.
    #[error("a group of {0} packets")]
    GroupSize(u8),
    /// A shard too short to hold anything.
    #[error("a shard of {0} bytes")]
    ShardLength(usize),

    /// A control message that is empty or too long.
    #[error("a control message of {0} bytes")]
    MessageLength(u32),
    /// A control message of no known type.
    #[error("unknown type of control message {0}")]
    UnknownMessage(u8),

    /// Not a statement of this version.
    #[error("these bytes are no statement of this version")]
    NotAStatement,
    /// A statement that is neither full nor a delta.
    #[error("unknown type of statement {0}")]
    UnknownBody(u8),

    /// A list with more entries than allowed.
    #[error("{count} {what}, at most {limit} are allowed")]
    TooMany {
        /// What is listed.
        what: &'static str,
        /// Entries announced.
        count: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// A text or block of bytes that is empty or too long.
    #[error("{what}: {len} bytes, 1 to {limit} are allowed")]
    Length {
        /// What it is.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The most that is allowed.
        limit: usize,
    },
    /// A text with characters that do not belong in it.
    #[error("{0}: contains characters that are not allowed")]
    Text(&'static str),
    /// A list that is not in ascending order, or names something twice.
    #[error("{0}: not in ascending order, or something stands there twice")]
    Order(&'static str),
    /// A number outside its range.
    #[error("{0}: out of range")]
    Range(&'static str),
}

impl WireError {
    /// The reason as a short label: one per variant, fit for a counter's name.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::TrailingBytes(_) => "trailing_bytes",
            Self::ReservedBits { .. } => "reserved_bits",
            Self::UnknownPacketKind(_) => "unknown_packet_kind",
            Self::UnknownClass(_) => "unknown_class",
            Self::Path(PathError::Length(_)) => "path_length",
            Self::Path(PathError::Loop(_)) => "path_loop",
            Self::Path(PathError::Cursor { .. }) => "path_cursor",
            Self::Fragment { .. } => "fragment",
            Self::UnknownRedundancy(_) => "unknown_redundancy",
            Self::UnknownSignal(_) => "unknown_signal",
            Self::UnknownRefusal(_) => "unknown_refusal",
            Self::UnknownFrame(_) => "unknown_frame",
            Self::ShardIndex(_) => "shard_index",
            Self::GroupSize(_) => "group_size",
            Self::ShardLength(_) => "shard_length",
            Self::MessageLength(_) => "message_length",
            Self::UnknownMessage(_) => "unknown_message",
            Self::NotAStatement => "not_a_statement",
            Self::UnknownBody(_) => "unknown_body",
            Self::TooMany { .. } => "too_many",
            Self::Length { .. } => "length",
            Self::Text(_) => "text",
            Self::Order(_) => "order",
            Self::Range(_) => "range",
        }
    }
}

/// What is left to read of some bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// All that is left.
    pub(crate) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// Refuses bytes that were left unread.
    pub(crate) const fn finish(self) -> Result<(), WireError> {
        match self.len() {
            0 => Ok(()),
            left => Err(WireError::TrailingBytes(left)),
        }
    }

    /// The next `N` bytes.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let truncated = WireError::Truncated { need: N, got: self.len() };
        let (taken, rest) = self.0.split_first_chunk().ok_or(truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// The next `len` bytes.
    #[inline]
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let truncated = WireError::Truncated { need: len, got: self.len() };
        let (taken, rest) = self.0.split_at_checked(len).ok_or(truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u24(&mut self) -> Result<u32, WireError> {
        self.array().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, WireError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, WireError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A byte of flags, of which only those in `known` may be set.
    pub(crate) fn flags(&mut self, what: &'static str, known: u8) -> Result<u8, WireError> {
        match self.u8()? {
            bits if bits & !known == 0 => Ok(bits),
            bits => Err(WireError::ReservedBits { what, bits: bits & !known }),
        }
    }

    /// A text behind its length in one byte: 1 to `limit` bytes of UTF-8 without control
    /// characters (it may end up in a log).
    pub(crate) fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, WireError> {
        let len = usize::from(self.u8()?);
        if len == 0 || len > limit {
            return Err(WireError::Length { what, len, limit });
        }
        let text = str::from_utf8(self.take(len)?).map_err(|_| WireError::Text(what))?;
        check_text(what, text, limit)?;
        Ok(text)
    }

    /// A name behind its length in one byte.
    pub(crate) fn name<T: std::str::FromStr>(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<T, WireError> {
        self.text(what, limit)?.parse().map_err(|_| WireError::Text(what))
    }

    /// A list behind the number of its entries in two bytes: at most `limit` entries of at least
    /// `least` bytes each, so that what is allocated is in proportion to what has arrived.
    pub(crate) fn list<T>(
        &mut self,
        what: &'static str,
        limit: usize,
        least: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, WireError>,
    ) -> Result<Vec<T>, WireError> {
        let count = usize::from(self.u16()?);
        if count > limit {
            return Err(WireError::TooMany { what, count, limit });
        }
        if count * least > self.len() {
            return Err(WireError::Truncated { need: count * least, got: self.len() });
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            entries.push(read(self)?);
        }
        Ok(entries)
    }
}

/// Refuses a text that [`Reader::text`] would refuse.
pub(crate) fn check_text(what: &'static str, text: &str, limit: usize) -> Result<(), WireError> {
    if text.is_empty() || text.len() > limit {
        return Err(WireError::Length { what, len: text.len(), limit });
    }
    match text.chars().any(char::is_control) {
        true => Err(WireError::Text(what)),
        false => Ok(()),
    }
}

/// Refuses entries that do not ascend strictly by `key`: a list has one encoding only.
pub(crate) fn check_order<T, K: Ord + ?Sized>(
    what: &'static str,
    entries: &[T],
    key: impl Fn(&T) -> &K,
) -> Result<(), WireError> {
    match entries.is_sorted_by(|a, b| key(a) < key(b)) {
        true => Ok(()),
        false => Err(WireError::Order(what)),
    }
}

/// `bit` if it is to be set.
pub(crate) const fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

/// Writes a text as [`Reader::text`] reads it. Its limits keep it below 256 bytes.
pub(crate) fn put_text(out: &mut impl BufMut, text: &str) {
    let len = u8::try_from(text.len()).expect("texts have limits of at most 255 bytes");
    out.put_u8(len);
    out.put_slice(text.as_bytes());
}

/// Writes the number of a list's entries as [`Reader::list`] reads it.
pub(crate) fn put_count(out: &mut impl BufMut, count: usize) {
    out.put_u16(u16::try_from(count).expect("lists have limits of at most 65,535 entries"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_big_endian() {
        let mut reader = Reader::new(&[1, 0, 2, 0, 0, 3, 0, 0, 0, 4, 9]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u24(), Ok(3));
        assert_eq!(reader.u32(), Ok(4));
        assert_eq!(reader.finish(), Err(WireError::TrailingBytes(1)));
        assert_eq!(reader.u64(), Err(WireError::Truncated { need: 8, got: 1 }));
        assert_eq!(reader.rest(), [9], "an error takes nothing");
    }

    #[test]
    fn texts_are_bounded_and_clean() {
        for (name, bytes, expected) in [
            ("good", &[2, b'E', b'U'][..], Ok("EU")),
            ("empty", &[0], Err(WireError::Length { what: "label", len: 0, limit: 4 })),
            ("long", &[5; 6], Err(WireError::Length { what: "label", len: 5, limit: 4 })),
            ("cut off", &[3, b'E'], Err(WireError::Truncated { need: 3, got: 1 })),
            ("not UTF-8", &[1, 0xff], Err(WireError::Text("label"))),
            ("a control character", &[1, b'\n'], Err(WireError::Text("label"))),
        ] {
            assert_eq!(Reader::new(bytes).text("label", 4), expected, "{name}");
        }
    }

    #[test]
    fn lists_allocate_for_what_arrived_only() {
        let read = |bytes: &[u8]| Reader::new(bytes).list("numbers", 3, 2, Reader::u16);
        assert_eq!(read(&[0, 2, 0, 1, 0, 2]), Ok(vec![1, 2]));
        let too_many = WireError::TooMany { what: "numbers", count: 4, limit: 3 };
        assert_eq!(read(&[0, 4]), Err(too_many));
        assert_eq!(read(&[0, 3, 0, 1]), Err(WireError::Truncated { need: 6, got: 2 }));
    }

    #[test]
    fn order_is_strict() {
        let check = |entries: &[u8]| check_order("numbers", entries, |entry| entry);
        assert_eq!(check(&[1, 2, 9]), Ok(()));
        assert_eq!(check(&[1, 1]), Err(WireError::Order("numbers")));
        assert_eq!(check(&[2, 1]), Err(WireError::Order("numbers")));
    }

    #[test]
    fn flags_beyond_the_known_are_refused() {
        assert_eq!(Reader::new(&[3]).flags("flags", 3), Ok(3));
        let reserved = WireError::ReservedBits { what: "flags", bits: 4 };
        assert_eq!(Reader::new(&[5]).flags("flags", 3), Err(reserved));
    }
}
