//! A world's traffic on real sockets: every flow is sent over the overlay and, at the same moments,
//! over the direct path, and what arrives is metered at both ends.

mod delays;
mod meter;
mod packet;
mod schedule;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tradewind_proto::units::Timestamp;

pub use delays::Delays;
pub use meter::{Departures, FlowReport, Meter};
pub use packet::Stamp;
pub use schedule::{Departure, Recording, Schedule, Shape, Video};

use crate::clock::Clock;
use crate::emulator::open_socket;
use crate::world::Traffic;

/// Receives one stream on a socket of its own.
pub struct Receiver {
    address: SocketAddr,
    meter: Arc<Mutex<Meter>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Begins to listen for `stream`, the packets of `traffic`.
    ///
    /// # Errors
    ///
    /// A socket or thread that the system refuses.
    pub fn start(stream: u32, traffic: &Traffic, clock: Clock) -> io::Result<Self> {
        let socket = open_socket()?;
        let address = socket.local_addr()?;
        let meter = Arc::new(Mutex::new(Meter::new(stream, traffic.deadline)));
        let stopping = Arc::new(AtomicBool::new(false));
        let (metered, stop) = (meter.clone(), stopping.clone());
        let body = move || listen(&socket, &metered, &stop, clock);
        let thread = thread::Builder::new().name("receiver".into()).spawn(body)?;
        Ok(Self { address, meter, stopping, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Packets that met the deadline so far.
    pub fn in_time(&self) -> u64 {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner).in_time()
    }

    /// The figures, given what was sent.
    pub fn report(&self, sent: &Sent) -> FlowReport {
        let meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.report(sent.packets(), sent.bytes.load(Ordering::Relaxed), sent.first_and_last())
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has printed its message already.
            let _ = thread.join();
        }
    }
}

fn listen(socket: &UdpSocket, meter: &Mutex<Meter>, stopping: &AtomicBool, clock: Clock) {
    let mut buffer = vec![0; 1 << 16];
    while !stopping.load(Ordering::Relaxed) {
        if let Ok((len, _)) = socket.recv_from(&mut buffer) {
            let now = clock.now();
            meter.lock().unwrap_or_else(PoisonError::into_inner).record(&buffer[..len], now);
        }
    }
}

/// What was sent of a flow so far, the same number over each way.
#[derive(Debug)]
pub struct Sent {
    packets: AtomicU64,
    bytes: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
}

impl Sent {
    fn new() -> Self {
        let [packets, bytes, first, last] = [0; 4].map(AtomicU64::new);
        Self { packets, bytes, first, last }
    }

    fn record(&self, size: usize, now: Timestamp) {
        self.last.store(now.as_micros(), Ordering::Relaxed);
        self.bytes.fetch_add(size as u64, Ordering::Relaxed);
        if self.packets.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.store(now.as_micros(), Ordering::Relaxed);
        }
    }

    /// How many packets.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    fn first_and_last(&self) -> Option<(Timestamp, Timestamp)> {
        let read = |at: &AtomicU64| Timestamp::from_micros(at.load(Ordering::Relaxed));
        (self.packets() > 0).then(|| (read(&self.first), read(&self.last)))
    }
}

/// Where a flow's packets go.
#[derive(Clone, Debug)]
pub struct Ways {
    /// The stream's number and address over the overlay.
    pub overlay: (u32, SocketAddr),
    /// The same over the direct path, if there is one.
    pub direct: Option<(u32, SocketAddr)>,
}

/// Sends all flows from one thread.
pub struct Sender {
    sent: Vec<Arc<Sent>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A flow that is being sent.
struct Outgoing {
    traffic: Traffic,
    ways: Ways,
    departures: Departures,
    sent: Arc<Sent>,
    socket: UdpSocket,
    packet: Vec<u8>,
}

impl Sender {
    /// Sends the flows' packets, as they follow from the world's `seed`, their times counted from
    /// `start`.
    ///
    /// # Errors
    ///
    /// A socket or thread that the system refuses.
    pub fn start(
        flows: Vec<(Traffic, Ways)>,
        seed: u64,
        start: Timestamp,
        clock: Clock,
    ) -> io::Result<Self> {
        let mut outgoing = Vec::with_capacity(flows.len());
        for (traffic, ways) in flows {
            let departures = Departures::new(traffic.schedule(seed), start + traffic.start);
            let (sent, socket) = (Arc::new(Sent::new()), open_socket()?);
            let packet = Vec::new();
            outgoing.push(Outgoing { traffic, ways, departures, sent, socket, packet });
        }
        let sent = outgoing.iter().map(|flow| flow.sent.clone()).collect();
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let body = move || send_all(outgoing, start, clock, &stop);
        let thread = thread::Builder::new().name("sender".into()).spawn(body)?;
        Ok(Self { sent, stopping, thread: Some(thread) })
    }

    /// What was sent so far, flow by flow.
    pub fn sent(&self) -> &[Arc<Sent>] {
        &self.sent
    }

    /// Sends nothing more.
    pub fn stop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic has printed its message already.
            let _ = thread.join();
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop();
    }
}

fn send_all(mut flows: Vec<Outgoing>, start: Timestamp, clock: Clock, stopping: &AtomicBool) {
    let first = |(index, flow): (usize, &Outgoing)| Reverse((flow.departures.due(), index));
    let mut due: BinaryHeap<_> = flows.iter().enumerate().map(first).collect();
    while let Some(Reverse((at, index))) = due.pop() {
        if at >= start + flows[index].traffic.stop {
            continue;
        }
        // A packet that is due is sent, even if the thread woke too late to be in time with it.
        while clock.now() < at {
            if stopping.load(Ordering::Relaxed) {
                return;
            }
            clock.sleep_until(at.min(clock.now() + Duration::from_millis(100)));
        }
        let flow = &mut flows[index];
        flow.send(at, clock);
        due.push(Reverse((flow.departures.due(), index)));
    }
}

impl Outgoing {
    /// The packet due at `at` both ways, the second a few microseconds later and stamped so.
    fn send(&mut self, at: Timestamp, clock: Clock) {
        let (number, size) = self.departures.leave(at);
        self.packet.resize(size, 0);
        self.sent.record(self.packet.len(), clock.now());
        for (stream, to) in [Some(self.ways.overlay), self.ways.direct].into_iter().flatten() {
            Stamp { stream, number, sent_at: clock.now() }.write(&mut self.packet);
            // A packet that the kernel refuses is a packet that does not arrive.
            let _ = self.socket.send_to(&self.packet, to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_sent_whole_over_both_ways_and_metered() {
        let clock = Clock::start();
        let text = "[run]\nduration='200ms'\n[[pop]]\nid='a'\n[[pop]]\nid='b'\n\
                    [[traffic]]\nfrom='a'\nto='b'\npps=500\nsize=100\ndeadline='10s'";
        let world = crate::world::World::parse("test", text).unwrap();
        let traffic = &world.traffic[0];
        let [over, direct] = [1, 2].map(|stream| Receiver::start(stream, traffic, clock).unwrap());
        let ways = Ways { overlay: (1, over.address()), direct: Some((2, direct.address())) };
        let sender = Sender::start(vec![(traffic.clone(), ways)], 1, clock.now(), clock).unwrap();
        let patience = clock.now() + Duration::from_secs(20);
        while over.in_time() + direct.in_time() < 200 && clock.now() < patience {
            thread::sleep(Duration::from_millis(10));
        }
        for receiver in [&over, &direct] {
            let report = receiver.report(&sender.sent()[0]);
            let FlowReport { sent, sent_bytes, delivered, in_time, damaged, .. } = report;
            assert_eq!((sent, sent_bytes, delivered, in_time), (100, 10_000, 100, 100));
            assert_eq!((damaged, report.duplicates), (0, 0));
        }
    }
}
