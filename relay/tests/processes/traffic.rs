//! The programs at both ends of the overlay: services that answer, clients that send.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::harness::PATIENCE;

/// A socket on loopback whose reads end after a while. It has room for several of the largest
/// packets: on a busy machine its thread may be late.
pub fn socket(like: &str) -> UdpSocket {
    let socket = UdpSocket::bind(like).unwrap();
    SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    socket
}

/// `len` bytes that differ by `seed`.
pub fn payload(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(31) ^ (at >> 8) ^ seed.wrapping_mul(97)) as u8).collect()
}

/// The next packet, which is to come within [`PATIENCE`]; `what` it is, should it not.
#[track_caller]
pub fn receive(socket: &UdpSocket, what: &str) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 65_536];
    let start = Instant::now();
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => return (buffer[..len].to_vec(), from),
            Err(error) if is_timeout(&error) => {
                assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_timeout(error: &std::io::Error) -> bool {
    // Refusals are ICMP's answers to packets sent while nobody listened.
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused
    )
}

/// A packet that a service got.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When.
    pub at: Instant,
    /// From which of the egress's sockets.
    pub from: SocketAddr,
    /// What.
    pub payload: Vec<u8>,
}

/// A service that answers every packet with the same bytes, and remembers what came.
pub struct Echo {
    /// Where it listens.
    pub address: SocketAddr,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Listens on `address`, such as `127.0.0.1:0`.
    pub fn listen(address: &str) -> Self {
        let socket = socket(address);
        let address = socket.local_addr().unwrap();
        let (arrivals, ended) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let (kept, stop) = (arrivals.clone(), ended.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                let payload = buffer[..len].to_vec();
                // Noted first: whoever has the answer finds the packet among the arrivals.
                let arrival = Arrival { at: Instant::now(), from, payload: payload.clone() };
                kept.lock().unwrap().push(arrival);
                let _ = socket.send_to(&payload, from);
            }
        });
        Self { address, arrivals, ended, thread: Some(thread) }
    }

    /// A `[[service]]` of this name that leads here.
    pub fn service(&self, name: &str) -> String {
        format!("[[service]]\nname = \"{name}\"\ntarget = \"{}\"\n", self.address)
    }

    /// What came so far.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.arrivals.lock().unwrap().clone()
    }

    /// How much came so far.
    pub fn count(&self) -> usize {
        self.arrivals.lock().unwrap().len()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A `[[tunnel]]` whose packets have long enough on a busy machine.
pub fn tunnel(listen: impl std::fmt::Display, service: &str) -> String {
    format!("[[tunnel]]\nlisten = \"{listen}\"\nservice = \"{service}\"\ndeadline = \"10s\"\n")
}

/// A client that sends a numbered packet every so often until it is dropped, and counts answers.
pub struct Stream {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    answers: Arc<Mutex<Vec<Instant>>>,
}

impl Stream {
    /// Sends to `tunnel` from now on.
    pub fn start(tunnel: SocketAddr, every: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let (ended, answers) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (stop, kept) = (ended.clone(), answers.clone());
        let thread = std::thread::spawn(move || {
            let (start, mut buffer) = (Instant::now(), vec![0; 2048]);
            for number in 0u32.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let mut packet = payload(200, 0);
                packet[..4].copy_from_slice(&number.to_be_bytes());
                let _ = socket.send_to(&packet, tunnel);
                while socket.recv(&mut buffer).is_ok() {
                    kept.lock().unwrap().push(Instant::now());
                }
                std::thread::sleep(
                    (start + every * number).saturating_duration_since(Instant::now()),
                );
            }
        });
        Self { ended, thread: Some(thread), answers }
    }

    /// How many answers came.
    pub fn answers(&self) -> usize {
        self.answers.lock().unwrap().len()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
