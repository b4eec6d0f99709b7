//! Pings through the overlay: the packets that ask and answer.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tradewind_proto::packet::{Fragment, Header, PacketKind, Path, Signal};
use tradewind_proto::units::{
    Budget, Class, FlowId, FlowSeq, Incarnation, PolicyId, PopKey, Timestamp, WireTime,
};

/// How long a ping may travel, each way.
const BUDGET: Duration = Duration::from_secs(2);

/// A ping came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pong {
    /// The number given to [`ask`].
    pub id: u32,
    /// There and back.
    pub round_trip: Duration,
    /// The answerer's clock when the ping came, less ours when it left: one-way delay plus the
    /// difference of the two clocks, in microseconds.
    pub raw_delay_micros: i64,
    /// The way back, the answerer first.
    pub path: Path,
}

/// A ping along `path`, which stands at `own`.
pub fn ask(
    own: PopKey,
    incarnation: Incarnation,
    path: Path,
    policy: PolicyId,
    id: u32,
    now: Timestamp,
) -> (Header, Bytes) {
    let header = Header {
        kind: PacketKind::Signal,
        class: Class::Audio,
        reverse: false,
        key_epoch: 0,
        policy,
        flow: FlowId { ingress: own, incarnation: incarnation.short(), number: 0 },
        seq: FlowSeq(id),
        fragment: Fragment::WHOLE,
        sent_at: WireTime::default(),
        budget: Budget::new(BUDGET),
        path,
        open: None,
    };
    (header, encoded(Signal::Ping { id, sent_at: now.wire() }))
}

/// What a signal that ended here is to the echo: an answer to send, or one that came.
pub enum Echo {
    /// Send this back.
    Answer(Header, Bytes),
    /// Ours came back.
    Pong(Pong),
}

/// Takes pings and pongs out of the signals that end here.
pub fn handle(header: &Header, payload: &[u8], now: Timestamp) -> Option<Echo> {
    match Signal::decode(payload).ok()? {
        Signal::Ping { id, sent_at } => {
            let answer = Header {
                reverse: true,
                budget: Budget::new(BUDGET),
                path: header.path.reversed(),
                open: None,
                ..header.clone()
            };
            let signal = Signal::Pong { id, sent_at, received_at: now.wire() };
            Some(Echo::Answer(answer, encoded(signal)))
        }
        Signal::Pong { id, sent_at, received_at } => {
            let sent_at = sent_at.near(now);
            Some(Echo::Pong(Pong {
                id,
                round_trip: now.since(sent_at),
                raw_delay_micros: received_at.near(now).micros_after(sent_at),
                path: header.path,
            }))
        }
        Signal::Accept | Signal::Refuse(_) | Signal::Reset => None,
    }
}

fn encoded(signal: Signal) -> Bytes {
    let mut bytes = BytesMut::with_capacity(16);
    signal.encode(&mut bytes);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: PopKey = PopKey(1);
    const B: PopKey = PopKey(2);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_700_000_000_000_000 + millis * 1000)
    }

    #[test]
    fn a_ping_comes_back_along_its_path_with_both_delays() {
        let path = Path::new(&[A, B]).unwrap();
        let (mut header, payload) = ask(A, Incarnation(9), path, PolicyId(3), 7, at(0));
        header.path = path.advanced().unwrap();
        // B's clock is a minute ahead, the way there takes 30 ms and the way back 50.
        let Some(Echo::Answer(mut header, payload)) = handle(&header, &payload, at(60_030)) else {
            panic!("a ping is answered");
        };
        assert_eq!((header.policy, header.path.next()), (PolicyId(3), Some(A)));
        header.path = header.path.advanced().unwrap();
        let Some(Echo::Pong(pong)) = handle(&header, &payload, at(80)) else {
            panic!("a pong is taken");
        };
        assert_eq!((pong.id, pong.round_trip), (7, Duration::from_millis(80)));
        assert_eq!(pong.raw_delay_micros, 60_030_000);
        assert_eq!(pong.path.pops(), [B, A]);
    }

    #[test]
    fn other_signals_and_garbage_are_no_echo() {
        let path = Path::new(&[A]).unwrap();
        let (header, _) = ask(A, Incarnation(9), path, PolicyId::NONE, 7, at(0));
        for payload in [encoded(Signal::Accept), encoded(Signal::Reset), Bytes::from_static(b"?")] {
            assert!(handle(&header, &payload, at(0)).is_none(), "{payload:?}");
        }
    }
}
