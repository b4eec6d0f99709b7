//! What a link counted, and what must add up.

use crate::units::Class;

/// Plain counters of one link, from its start. `tx` shards are ours, `rx` the neighbour's.
///
/// After two quiet seconds, on every link: `data_tx` of one end = `data_first_rx + repeated_rx + decoded_rx + lost_rx` of the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Data shards sent for the first time.
    pub data_tx: u64,
    /// Parity shards sent.
    pub parity_tx: u64,
    /// Data shards sent again.
    pub repeat_tx: u64,
    /// Reports sent.
    pub report_tx: u64,
    /// Heartbeats and probes sent.
    pub probe_tx: u64,
    /// Datagrams sent.
    pub datagram_tx: u64,
    /// Bytes of those datagrams.
    pub bytes_tx: u64,
    /// Payload bytes of first-time data shards (inner headers left out).
    pub payload_tx: u64,
    /// Audio packets dropped before sending because they could not arrive in time.
    pub expired_audio_tx: u64,
    /// Video packets dropped so.
    pub expired_video_tx: u64,
    /// Bulk packets dropped so.
    pub expired_bulk_tx: u64,
    /// Packets refused because the queue was full.
    pub overflow_tx: u64,
    /// Data shards that could not be repaired because their group had to make room for newer ones.
    pub forgotten_tx: u64,
    /// Data shards that arrived by their first sending.
    pub data_first_rx: u64,
    /// Data shards that arrived by a repeat first.
    pub repeated_rx: u64,
    /// Data shards rebuilt by decoding.
    pub decoded_rx: u64,
    /// Data shards that never came and can't come any more.
    pub lost_rx: u64,
    /// Of the data shards that came, those too late for their deadline (dropped here).
    pub late_rx: u64,
    /// Shards that were there already.
    pub duplicate_rx: u64,
    /// Parity shards received.
    pub parity_rx: u64,
    /// Reports received.
    pub report_rx: u64,
    /// Heartbeats and probes received.
    pub probe_rx: u64,
    /// Datagrams received.
    pub datagram_rx: u64,
    /// Bytes of those datagrams.
    pub bytes_rx: u64,
    /// Frames or packets that could not be read.
    pub malformed_rx: u64,
    /// Shards of groups that are gone or beyond the limits.
    pub stale_rx: u64,
    /// Times that the outgoing direction became suspect.
    pub suspects: u64,
    /// Times that it went down.
    pub downs: u64,
}

impl Counters {
    /// Packets of all classes dropped before sending because they could not arrive in time.
    pub fn expired_tx(&self) -> u64 {
        self.expired_audio_tx + self.expired_video_tx + self.expired_bulk_tx
    }

    pub(super) fn note_expired(&mut self, class: Class, packets: u64) {
        *match class {
            Class::Audio => &mut self.expired_audio_tx,
            Class::Video => &mut self.expired_video_tx,
            Class::Bulk => &mut self.expired_bulk_tx,
        } += packets;
    }
}
