//! Packs frames into datagrams. The last frame has no length, so each waits here until it is known
//! whether another follows.

use bytes::{Bytes, BytesMut};

use crate::frame::{Frame, LENGTH_OVERHEAD};
use crate::packet::Header;

/// Datagrams are cut from pieces of memory of this size.
const SLAB: usize = 64 << 10;

/// Where datagrams are written.
#[derive(Debug)]
pub(super) struct Packer {
    /// The largest datagram.
    limit: usize,
    memory: BytesMut,
    waiting: Option<Frame>,
}

impl Packer {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, memory: BytesMut::new(), waiting: None }
    }

    /// Bytes that a further frame may take as the last one.
    pub(super) fn room(&self) -> usize {
        let waiting = self.waiting.as_ref().map_or(0, |frame| frame.encoded_len(false));
        self.limit.saturating_sub(self.memory.len() + waiting)
    }

    /// Bytes that one more frame may take after a frame of `len` bytes (as a last one).
    pub(super) fn room_after(&self, len: usize) -> usize {
        self.room().saturating_sub(len + LENGTH_OVERHEAD)
    }

    /// Whether nothing was added yet.
    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.waiting.is_none()
    }

    /// Adds a frame, for which there must be room.
    pub(super) fn push(&mut self, frame: Frame) {
        self.flush(false);
        self.waiting = Some(frame);
    }

    /// Ends the datagram; `None` if nothing was added.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        self.flush(true);
        (!self.memory.is_empty()).then(|| self.memory.split().freeze())
    }

    /// Ends the datagram with a data frame, whose packet is written in place. Gives the datagram
    /// and the packet, which is a part of it. `frame` is that data frame without its packet.
    pub(super) fn finish_with(
        &mut self,
        frame: &Frame,
        header: &Header,
        payload: &[u8],
    ) -> (Bytes, Bytes) {
        self.flush(false);
        self.reserve();
        frame.encode(true, &mut self.memory);
        let start = self.memory.len();
        header.encode(&mut self.memory);
        self.memory.extend_from_slice(payload);
        let datagram = self.memory.split().freeze();
        let packet = datagram.slice(start..);
        (datagram, packet)
    }

    fn flush(&mut self, last: bool) {
        if let Some(frame) = self.waiting.take() {
            self.reserve();
            frame.encode(last, &mut self.memory);
        }
    }

    fn reserve(&mut self) {
        if self.memory.is_empty() && self.memory.capacity() < self.limit {
            self.memory.reserve(SLAB.max(self.limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Heartbeat;
    use crate::units::{LinkSeq, WireTime};

    fn beat(seq: u32) -> Frame {
        Frame::Heartbeat(Heartbeat { seq: LinkSeq(seq), sent_at: WireTime(7), data_sent: 3 })
    }

    #[test]
    fn frames_come_out_as_they_went_in_and_the_last_has_no_length() {
        let mut packer = Packer::new(1000);
        assert_eq!(packer.finish(), None);
        for count in 1..5 {
            (0..count).for_each(|seq| packer.push(beat(seq)));
            assert!(!packer.is_empty());
            let mut datagram = packer.finish().unwrap();
            let lengths = (count as usize - 1) * beat(0).encoded_len(false);
            assert_eq!(datagram.len(), lengths + beat(0).encoded_len(true));
            for seq in 0..count {
                assert_eq!(Frame::decode(&mut datagram), Ok(Some(beat(seq))));
            }
            assert_eq!(Frame::decode(&mut datagram), Ok(None));
        }
    }

    #[test]
    fn room_is_what_is_left() {
        let mut packer = Packer::new(30);
        assert_eq!(packer.room(), 30);
        packer.push(beat(0));
        assert_eq!(packer.room(), 30 - beat(0).encoded_len(false));
        assert_eq!(packer.room_after(13), 0);
        packer.push(beat(1));
        assert!(packer.finish().unwrap().len() <= 30);
    }
}
