//! What must hold for any bytes that reach a parser: no panic, and what was accepted can be
//! written and read again without loss.
//!
//! The fuzz targets and `proto/tests/corpus.rs` share these functions.

use bytes::{Bytes, BytesMut};
use tradewind_proto::control::Message;
use tradewind_proto::frame::Frame;
use tradewind_proto::packet::{Header, Signal};
use tradewind_proto::statement::{Body, Policy, Statement};
use tradewind_proto::units::PolicyId;
use tradewind_proto::wire::WireError;

/// An overlay packet.
pub fn packet(bytes: &[u8]) -> Result<(), WireError> {
    let (header, payload) = Header::decode(bytes)?;
    let mut again = Vec::new();
    header.encode(&mut again);
    assert_eq!(again.len(), header.encoded_len());
    again.extend_from_slice(payload);
    assert_eq!(Header::decode(&again), Ok((header, payload)));
    Ok(())
}

/// The payload of a signal.
pub fn signal(bytes: &[u8]) -> Result<(), WireError> {
    let signal = Signal::decode(bytes)?;
    let mut again = Vec::new();
    signal.encode(&mut again);
    assert_eq!(again, bytes);
    Ok(())
}

/// A datagram of frames. Its length is bounded as that of a UDP payload.
pub fn datagram(bytes: &[u8]) -> Result<(), WireError> {
    let bytes = &bytes[..bytes.len().min(65_535)];
    let frames = frames(Bytes::copy_from_slice(bytes))?;
    let mut again = BytesMut::new();
    for (at, frame) in frames.iter().enumerate() {
        let (before, last) = (again.len(), at + 1 == frames.len());
        frame.encode(last, &mut again);
        assert_eq!(again.len() - before, frame.encoded_len(last));
    }
    assert_eq!(self::frames(again.freeze()), Ok(frames));
    Ok(())
}

fn frames(mut datagram: Bytes) -> Result<Vec<Frame>, WireError> {
    let mut frames = Vec::new();
    while let Some(frame) = Frame::decode(&mut datagram)? {
        frames.push(frame);
    }
    Ok(frames)
}

/// What a control stream has brought so far.
pub fn message(bytes: &[u8]) -> Result<(), WireError> {
    let messages = messages(bytes.into())?;
    let mut again = BytesMut::new();
    messages.iter().for_each(|message| message.encode(&mut again));
    assert_eq!(self::messages(again), Ok(messages));
    Ok(())
}

fn messages(mut stream: BytesMut) -> Result<Vec<Message>, WireError> {
    let mut messages = Vec::new();
    while let Some(message) = Message::decode(&mut stream)? {
        messages.push(message);
    }
    Ok(messages)
}

/// The body of a statement, which has one encoding only.
pub fn statement(bytes: &[u8]) -> Result<(), WireError> {
    let statement = Statement::decode(bytes)?;
    assert_eq!(statement.encode(), bytes);
    assert!(policies(&statement).iter().all(|policy| policy.id() != PolicyId::NONE));
    Ok(())
}

fn policies(statement: &Statement) -> &[Policy] {
    match &statement.body {
        Body::Full(state) => &state.policies,
        Body::Delta { .. } => &[],
    }
}
