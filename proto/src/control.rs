//! Control messages: what neighbours say to each other over a QUIC stream, in order and reliably.
//!
//! Each message is a length (u32, big endian, at most [`MAX_MESSAGE`]) and that many bytes. What to
//! answer, and when to hang up, is the business of whoever owns the connection.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::statement::SignedStatement;
use crate::units::{Incarnation, PopId, PopKey, Timestamp};
use crate::wire::{Reader, WireError, put_count, put_text};

/// The longest message.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// The most entries of one digest.
pub const MAX_DIGEST: usize = 4096;
/// The version of everything in this crate: in the hello, and in the ALPN name.
pub const VERSION: u16 = 1;
/// The ALPN protocol name of [`VERSION`].
pub const ALPN: &[u8] = b"tradewind/1";

/// One control message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// First on each connection, from both sides.
    Hello(Hello),
    /// A statement of any relay.
    Statement(SignedStatement),
    /// What the sender has: all of it at first, then once a second what changed since. Most
    /// neighbours are told the same.
    Digest(Arc<[DigestEntry]>),
    /// The sender leaves now.
    Bye,
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// [`VERSION`] of the speaker.
    pub version: u16,
    /// Its name: must equal the one in its certificate.
    pub id: PopId,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// Its clock now, so that the neighbour can tell the offset to within a round trip.
    pub now: Timestamp,
    /// The largest datagram that the link may carry.
    pub mtu: u16,
}

/// The newest that somebody has of one origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestEntry {
    /// The origin.
    pub origin: PopKey,
    /// Which start of it.
    pub incarnation: Incarnation,
    /// The full statement held.
    pub full: u32,
    /// The newest delta on it, or `full` if none.
    pub newest: u32,
}

const HELLO: u8 = 1;
const STATEMENT: u8 = 2;
const DIGEST: u8 = 3;
const BYE: u8 = 4;

/// Bytes of the length before a message.
const LENGTH: usize = 4;
/// Bytes of a [`DigestEntry`].
const ENTRY: usize = 20;
const SIGNATURE: usize = 64;

impl Message {
    /// Appends the message with its length.
    ///
    /// A digest of more than [`MAX_DIGEST`] entries becomes several messages: each says something
    /// of its own entries only.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Hello(hello) => framed(HELLO, out, |out| hello.encode(out)),
            Self::Statement(signed) => framed(STATEMENT, out, |out| {
                out.put_slice(signed.signature());
                out.put_slice(signed.body());
            }),
            Self::Digest(entries) if entries.is_empty() => encode_digest(&[], out),
            Self::Digest(entries) => {
                entries.chunks(MAX_DIGEST).for_each(|chunk| encode_digest(chunk, out));
            }
            Self::Bye => framed(BYE, out, |_| ()),
        }
    }

    /// How many bytes [`Self::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        let contents = |len| LENGTH + 1 + len;
        match self {
            Self::Hello(hello) => contents(2 + 1 + hello.id.as_str().len() + 8 + 8 + 2),
            Self::Statement(signed) => contents(SIGNATURE + signed.body().len()),
            Self::Digest(entries) => {
                let messages = entries.len().div_ceil(MAX_DIGEST).max(1);
                messages * contents(2) + entries.len() * ENTRY
            }
            Self::Bye => contents(0),
        }
    }

    /// Takes a whole message off the front of what a stream has brought; `None` while it is
    /// incomplete. After an error the stream can't be read any further.
    pub fn decode(stream: &mut BytesMut) -> Result<Option<Self>, WireError> {
        let Some(prefix) = stream.first_chunk::<LENGTH>() else { return Ok(None) };
        let len = u32::from_be_bytes(*prefix);
        let bytes = len as usize;
        if bytes == 0 || bytes > MAX_MESSAGE {
            return Err(WireError::MessageLength(len));
        }
        if stream.len() - LENGTH < bytes {
            return Ok(None);
        }
        stream.advance(LENGTH);
        Self::decode_whole(stream.split_to(bytes).freeze()).map(Some)
    }

    fn decode_whole(mut message: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(&message);
        match reader.u8()? {
            HELLO => Hello::decode(&mut reader).map(Self::Hello),
            STATEMENT => {
                let signature = reader.array()?;
                message.advance(1 + SIGNATURE);
                Ok(Self::Statement(SignedStatement::new(message, signature)))
            }
            DIGEST => decode_digest(reader).map(Self::Digest),
            BYE => reader.finish().map(|()| Self::Bye),
            unknown => Err(WireError::UnknownMessage(unknown)),
        }
    }
}

/// Writes a message of type `kind` and fills in its length afterwards.
fn framed(kind: u8, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    out.put_u8(kind);
    write(out);
    let len = out.len() - start - LENGTH;
    debug_assert!(len <= MAX_MESSAGE, "a message of {len} bytes");
    out[start..start + LENGTH].copy_from_slice(&(len as u32).to_be_bytes());
}

fn encode_digest(entries: &[DigestEntry], out: &mut BytesMut) {
    framed(DIGEST, out, |out| {
        put_count(out, entries.len());
        for entry in entries {
            out.put_u32(entry.origin.0);
            out.put_u64(entry.incarnation.0);
            out.put_u32(entry.full);
            out.put_u32(entry.newest);
        }
    });
}

fn decode_digest(mut reader: Reader<'_>) -> Result<Arc<[DigestEntry]>, WireError> {
    let entries = reader.list("entries of a digest", MAX_DIGEST, ENTRY, |reader| {
        Ok(DigestEntry {
            origin: PopKey(reader.u32()?),
            incarnation: Incarnation(reader.u64()?),
            full: reader.u32()?,
            newest: reader.u32()?,
        })
    })?;
    reader.finish()?;
    Ok(entries.into())
}

impl Hello {
    fn encode(&self, out: &mut impl BufMut) {
        out.put_u16(self.version);
        put_text(out, self.id.as_str());
        out.put_u64(self.incarnation.0);
        out.put_u64(self.now.as_micros());
        out.put_u16(self.mtu);
    }

    /// Reads a hello; what a later version appended to it is skipped.
    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            version: reader.u16()?,
            id: reader.name("id", PopId::MAX_LEN)?,
            incarnation: Incarnation(reader.u64()?),
            now: Timestamp::from_micros(reader.u64()?),
            mtu: reader.u16()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::mutation::mutated;

    fn encoded(messages: &[Message]) -> BytesMut {
        let mut out = BytesMut::new();
        messages.iter().for_each(|message| message.encode(&mut out));
        out
    }

    fn all_of(mut stream: BytesMut) -> Result<Vec<Message>, WireError> {
        let mut messages = Vec::new();
        while let Some(message) = Message::decode(&mut stream)? {
            messages.push(message);
        }
        Ok(messages)
    }

    fn hello() -> Message {
        Message::Hello(Hello {
            version: 1,
            id: "fra".parse().unwrap(),
            incarnation: Incarnation(2),
            now: Timestamp::from_micros(3),
            mtu: 1414,
        })
    }

    fn entry(number: u32) -> DigestEntry {
        let (origin, incarnation) = (PopKey(number), Incarnation(2));
        DigestEntry { origin, incarnation, full: 3, newest: 4 }
    }

    const HELLO_BYTES: &[u8] = b"\0\0\0\x19\x01\0\x01\x03fra\0\0\0\0\0\0\0\x02\
        \0\0\0\0\0\0\0\x03\x05\x86";
    const DIGEST_BYTES: &[u8] = b"\0\0\0\x17\x03\0\x01\0\0\0\x01\0\0\0\0\0\0\0\x02\
        \0\0\0\x03\0\0\0\x04";

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let body = Bytes::from_static(b"body");
        let signed = SignedStatement::new(body, [7; 64]);
        let statement = [b"\0\0\0\x45\x02", &[7; 64][..], b"body"].concat();
        for (message, bytes) in [
            (hello(), HELLO_BYTES),
            (Message::Statement(signed), &statement),
            (Message::Digest([entry(1)].into()), DIGEST_BYTES),
            (Message::Digest([].into()), b"\0\0\0\x03\x03\0\0"),
            (Message::Bye, b"\0\0\0\x01\x04"),
        ] {
            assert_eq!(encoded(std::slice::from_ref(&message)), bytes, "{message:?}");
            assert_eq!(all_of(bytes.into()), Ok(vec![message]));
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let hello_with = |at: usize, byte: u8| {
            let mut bytes = HELLO_BYTES.to_vec();
            bytes[at] = byte;
            bytes
        };
        let cut = |need, got| WireError::Truncated { need, got };
        let too_many = WireError::TooMany { what: "entries of a digest", count: 4097, limit: 4096 };
        for (name, stream, error) in [
            ("empty", b"\0\0\0\0".to_vec(), WireError::MessageLength(0)),
            ("too long, at once", b"\0\x04\0\x01".to_vec(), WireError::MessageLength(0x4_0001)),
            ("of unknown type", b"\0\0\0\x01\x05".to_vec(), WireError::UnknownMessage(5)),
            ("bad name", hello_with(8, b'F'), WireError::Text("id")),
            ("short hello", b"\0\0\0\x03\x01\0\x01".to_vec(), cut(1, 0)),
            ("short signature", b"\0\0\0\x02\x02\0".to_vec(), cut(64, 1)),
            ("short digest", b"\0\0\0\x04\x03\0\x01\0".to_vec(), cut(20, 1)),
            ("long digest", b"\0\0\0\x03\x03\x10\x01".to_vec(), too_many),
            ("more than a digest", b"\0\0\0\x04\x03\0\0\0".to_vec(), WireError::TrailingBytes(1)),
            ("more than a bye", b"\0\0\0\x02\x04\0".to_vec(), WireError::TrailingBytes(1)),
        ] {
            assert_eq!(all_of(stream[..].into()), Err(error), "{name}");
        }
    }

    #[test]
    fn what_later_versions_append_to_a_hello_is_skipped() {
        let mut bytes = HELLO_BYTES.to_vec();
        bytes[3] += 1;
        bytes.push(0xff);
        assert_eq!(all_of(bytes[..].into()), Ok(vec![hello()]));
    }

    #[test]
    fn a_message_is_awaited_without_room_being_made_for_it() {
        let mut stream = BytesMut::from(&b"\0\x04\0\0\x02"[..]);
        let capacity = stream.capacity();
        assert_eq!(Message::decode(&mut stream), Ok(None));
        assert_eq!((stream.len(), stream.capacity()), (5, capacity));
    }

    #[test]
    fn a_long_digest_becomes_several() {
        let entries: Arc<[_]> = (0..10_000).map(entry).collect();
        let read = all_of(encoded(&[Message::Digest(entries.clone())])).unwrap();
        let parts: Vec<_> = read
            .into_iter()
            .map(|message| match message {
                Message::Digest(part) => part,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [4096, 4096, 1808]);
        assert_eq!(parts.concat(), &entries[..]);
    }

    fn any_message() -> impl Strategy<Value = Message> {
        let hello = ("[a-z0-9-]{1,32}", any::<[u64; 2]>(), any::<[u16; 2]>()).prop_map(
            |(id, [incarnation, now], [version, mtu])| {
                let id = id.parse().unwrap();
                let incarnation = Incarnation(incarnation);
                let now = Timestamp::from_micros(now);
                Message::Hello(Hello { version, id, incarnation, now, mtu })
            },
        );
        let statement = (vec(any::<u8>(), 0..64), any::<[u8; 32]>()).prop_map(|(body, half)| {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&half);
            Message::Statement(SignedStatement::new(body.into(), signature))
        });
        let entry = (any::<[u32; 3]>(), any::<u64>()).prop_map(|([origin, full, newest], inc)| {
            DigestEntry { origin: PopKey(origin), incarnation: Incarnation(inc), full, newest }
        });
        let digest = vec(entry, 0..10).prop_map(|entries| Message::Digest(entries.into()));
        prop_oneof![hello, statement, digest, Just(Message::Bye)]
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in(messages in vec(any_message(), 0..5)) {
            prop_assert_eq!(all_of(encoded(&messages)), Ok(messages));
        }

        #[test]
        fn a_stream_may_come_in_any_pieces(
            messages in vec(any_message(), 1..4),
            pieces in vec(1usize..40, 1..200),
        ) {
            let (mut coming, mut stream) = (encoded(&messages), BytesMut::new());
            let mut read = Vec::new();
            for piece in pieces.into_iter().chain([usize::MAX]) {
                stream.extend_from_slice(&coming.split_to(piece.min(coming.len())));
                while let Some(message) = Message::decode(&mut stream).unwrap() {
                    read.push(message);
                }
            }
            prop_assert_eq!(read, messages);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn no_bytes_panic(kind in 0u8..6, stream in vec(any::<u8>(), 0..128)) {
            let _ = all_of(stream[..].into());
            let len = (stream.len() as u32 + 1).to_be_bytes();
            let _ = all_of([&len[..], &[kind], &stream].concat()[..].into());
        }

        #[test]
        fn what_is_accepted_is_understood(
            stream in mutated(vec(any_message(), 1..4).prop_map(|all| encoded(&all).to_vec())),
        ) {
            if let Ok(messages) = all_of(stream[..].into()) {
                prop_assert_eq!(all_of(encoded(&messages)), Ok(messages));
            }
        }
    }
}
