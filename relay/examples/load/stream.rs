//! What goes in and what comes out: numbered, timed packets over plain UDP.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes of a packet that say what it is: sent when (ns since the start), and a number.
pub const STAMP: usize = 16;
const SINK_BUFFER: usize = 4 << 20;

/// Writes the stamp of a packet.
pub fn stamp(packet: &mut [u8], start: Instant, number: u64) {
    let now = start.elapsed().as_nanos() as u64;
    packet[..8].copy_from_slice(&now.to_be_bytes());
    packet[8..16].copy_from_slice(&number.to_be_bytes());
}

fn read(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_be_bytes)
}

/// What a sink has seen.
#[derive(Default)]
pub struct Seen {
    pub packets: AtomicU64,
    /// Packets with the number 0: the first ones of their flows.
    pub firsts: AtomicU64,
    stop: AtomicBool,
}

/// Counts what arrives, and answers a share of it.
pub struct Sink {
    pub address: SocketAddr,
    pub seen: Arc<Seen>,
    /// Of the packets that came, in microseconds, if they are timed.
    pub delays: Arc<Mutex<Vec<u32>>>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Answers every `answer`th packet (0: none) and notes the delays of all if `timed`.
    pub fn start(start: Instant, answer: u64, timed: bool) -> anyhow::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
        let _ = socket.set_recv_buffer_size(SINK_BUFFER);
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        let socket: UdpSocket = socket.into();
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let seen = Arc::new(Seen::default());
        let delays = Arc::<Mutex<Vec<u32>>>::default();
        let (noted, timings) = (seen.clone(), delays.clone());
        let receive = move || {
            let mut packet = vec![0; 65_536];
            while !noted.stop.load(Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut packet) else { continue };
                if len < STAMP {
                    continue;
                }
                let total = noted.packets.fetch_add(1, Relaxed);
                noted.firsts.fetch_add(u64::from(read(&packet[8..16]) == 0), Relaxed);
                if timed {
                    let now = start.elapsed().as_nanos() as u64;
                    let delay = (now.saturating_sub(read(&packet[..8])) / 1000) as u32;
                    timings.lock().unwrap_or_else(PoisonError::into_inner).push(delay);
                }
                if answer > 0 && total.is_multiple_of(answer) {
                    let _ = socket.send_to(&packet[..len], from);
                }
            }
        };
        Ok(Self { address, seen, delays, thread: Some(std::thread::spawn(receive)) })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.seen.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends packets of `size` bytes to `to`, `pps` evenly spaced ones a second, for `duration`; how many.
pub fn send(
    to: SocketAddr,
    size: usize,
    pps: f64,
    duration: Duration,
    start: Instant,
) -> anyhow::Result<u64> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(to)?;
    let mut packet = vec![0; size.max(STAMP)];
    let (begun, mut sent) = (Instant::now(), 0u64);
    while begun.elapsed() < duration {
        let due = (begun.elapsed().as_secs_f64() * pps) as u64;
        while sent < due {
            stamp(&mut packet, start, sent);
            let _ = socket.send(&packet);
            sent += 1;
        }
        let next = begun + Duration::from_secs_f64((sent + 1) as f64 / pps);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(sent)
}
