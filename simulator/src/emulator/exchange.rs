//! Where the emulator's threads meet: the models, what is under way, and who is where.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tradewind_proto::units::{PopId, Timestamp};

use super::{EmulatorHealth, EmulatorReport, IP_UDP_HEADERS, LinkReport};
use crate::clock::Clock;
use crate::link::{Delivery, LinkModel, stream_seed};
use crate::world::{LinkId, World};

/// Bytes that may be under way at once; beyond, packets are dropped and counted.
const MAX_UNDER_WAY: usize = 256 << 20;

/// Packets that leave under one look at the queue.
const BATCH: usize = 64;

/// Which way packets came in.
pub(super) enum Entrance {
    /// Over the socket that this PoP advertises.
    Relay { pop: usize },
    /// Over a direct path.
    Direct { model: usize, socket: Arc<UdpSocket>, target: SocketAddr },
}

/// Where a packet goes when its time has come.
#[derive(Clone)]
enum Exit {
    /// To this relay, from the socket of that PoP.
    Relay { pop: usize, from: usize },
    /// To the end of a direct path.
    Direct { socket: Arc<UdpSocket>, target: SocketAddr },
}

/// A packet under way. Ordered by time, then by when it was taken in.
struct Due {
    at: Timestamp,
    order: u64,
    exit: Exit,
    bytes: Vec<u8>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(super) struct Exchange {
    clock: Clock,
    sockets: Vec<Arc<UdpSocket>>,
    pops: BTreeMap<PopId, usize>,
    links: BTreeMap<LinkId, usize>,
    /// The same by numbers, for packets.
    link_of: HashMap<(usize, usize), usize>,
    state: Mutex<State>,
    changed: Condvar,
    stopping: AtomicBool,
}

struct State {
    /// The overlay's links, then their twins for direct paths.
    models: Vec<LinkModel>,
    /// Where each relay is.
    relays: Vec<Option<SocketAddr>>,
    relay_at: HashMap<SocketAddr, usize>,
    due: BinaryHeap<Reverse<Due>>,
    next_order: u64,
    under_way: usize,
    health: EmulatorHealth,
    /// Microseconds.
    lateness: Histogram<u64>,
}

impl Exchange {
    pub(super) fn new(world: &World, sockets: Vec<Arc<UdpSocket>>, clock: Clock) -> Self {
        let pops: BTreeMap<PopId, usize> =
            world.pops.iter().enumerate().map(|(i, pop)| (pop.id.clone(), i)).collect();
        let links: BTreeMap<LinkId, usize> = world.links.keys().cloned().zip(0..).collect();
        let link_of = links.iter().map(|((a, b), i)| ((pops[a], pops[b]), *i)).collect();
        let model = |(link, spec): (&LinkId, &crate::link::LinkSpec)| {
            let seed = stream_seed(world.seed, &format!("{}>{}", link.0, link.1));
            LinkModel::new(spec.clone(), seed)
        };
        let models = world.links.iter().chain(&world.links).map(model).collect();
        let state = State {
            models,
            relays: vec![None; world.pops.len()],
            relay_at: HashMap::new(),
            due: BinaryHeap::new(),
            next_order: 0,
            under_way: 0,
            health: EmulatorHealth::default(),
            lateness: micros_histogram(),
        };
        let (state, changed, stopping) =
            (Mutex::new(state), Condvar::new(), AtomicBool::new(false));
        Self { clock, sockets, pops, links, link_of, state, changed, stopping }
    }

    /// A thread that panicked holding the lock has left numbers behind that are whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn attach(&self, pop: &PopId, socket: Option<SocketAddr>) {
        let Some(&pop) = self.pops.get(pop) else { return };
        let mut state = self.lock();
        if let Some(old) = std::mem::replace(&mut state.relays[pop], socket) {
            state.relay_at.remove(&old);
        }
        if let Some(new) = socket {
            state.relay_at.insert(new, pop);
        }
    }

    pub(super) fn direct_model(&self, link: &LinkId) -> Option<usize> {
        self.links.get(link).map(|index| index + self.links.len())
    }

    pub(super) fn with_models(&self, link: &LinkId, change: impl Fn(&mut LinkModel)) {
        let Some(&index) = self.links.get(link) else { return };
        let state = &mut *self.lock();
        change(&mut state.models[index]);
        change(&mut state.models[index + self.links.len()]);
    }

    pub(super) fn with_all_models(&self, change: impl Fn(&mut LinkModel)) {
        self.lock().models.iter_mut().for_each(change);
    }

    pub(super) fn report(&self) -> EmulatorReport {
        let state = self.lock();
        let links = self.links.iter().map(|(link, &index)| LinkReport {
            link: link.clone(),
            counters: *state.models[index].counters(),
        });
        let late = &state.lateness;
        let lateness = [late.value_at_quantile(0.5), late.value_at_quantile(0.99), late.max()];
        let health = EmulatorHealth {
            lateness: lateness.map(Duration::from_micros),
            ..state.health.clone()
        };
        EmulatorReport { links: links.collect(), health }
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // Under the lock, so that the sender is either asleep and woken or has yet to look.
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// The life of a thread that receives.
    pub(super) fn receive(&self, socket: &UdpSocket, entrance: &Entrance) {
        let mut buffer = vec![0; 1 << 16];
        while !self.stopping.load(Ordering::Relaxed) {
            // Errors are timeouts, or ICMP answers to packets for dead relays: both mean nothing here.
            if let Ok((len, source)) = socket.recv_from(&mut buffer) {
                self.take(&buffer[..len], source, entrance);
            }
        }
    }

    fn take(&self, packet: &[u8], source: SocketAddr, entrance: &Entrance) {
        let now = self.clock.now();
        let mut state = self.lock();
        let Some((model, exit)) = self.way(&mut state, source, entrance) else { return };
        if state.under_way > MAX_UNDER_WAY {
            state.health.overflow += 1;
            return;
        }
        let fate = state.models[model].offer(packet.len() + IP_UDP_HEADERS, now);
        let mut wake = false;
        for delivery in fate.deliveries() {
            wake |= state.enqueue(packet, delivery, exit.clone());
        }
        drop(state);
        if wake {
            self.changed.notify_one();
        }
    }

    fn way(
        &self,
        state: &mut State,
        source: SocketAddr,
        entrance: &Entrance,
    ) -> Option<(usize, Exit)> {
        match entrance {
            Entrance::Direct { model, socket, target } => {
                Some((*model, Exit::Direct { socket: socket.clone(), target: *target }))
            }
            &Entrance::Relay { pop } => {
                let Some(&from) = state.relay_at.get(&source) else {
                    state.health.strays += 1;
                    return None;
                };
                let Some(&model) = self.link_of.get(&(from, pop)) else {
                    state.health.no_link += 1;
                    return None;
                };
                Some((model, Exit::Relay { pop, from }))
            }
        }
    }

    /// The life of the thread that sends.
    pub(super) fn send_what_is_due(&self) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut state = self.lock();
        while !self.stopping.load(Ordering::Relaxed) {
            state.take_due(self.clock.now(), &mut batch);
            if !batch.is_empty() {
                drop(state);
                for (due, target) in batch.drain(..) {
                    self.send(&due, target);
                }
                state = self.lock();
                continue;
            }
            let next = state.due.peek().map_or(Timestamp::NEVER, |Reverse(due)| due.at);
            let wait = self.clock.until(next).min(Duration::from_secs(1));
            state = match self.changed.wait_timeout(state, wait) {
                Ok((guard, _)) => guard,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// An error here (no buffer, a refused packet) is a packet lost, as on any network.
    fn send(&self, due: &Due, target: SocketAddr) {
        let _ = match &due.exit {
            Exit::Relay { from, .. } => self.sockets[*from].send_to(&due.bytes, target),
            Exit::Direct { socket, .. } => socket.send_to(&due.bytes, target),
        };
    }
}

impl State {
    /// Whether it is now the first to leave.
    fn enqueue(&mut self, packet: &[u8], delivery: Delivery, exit: Exit) -> bool {
        let mut bytes = packet.to_vec();
        if let Some(bit) = delivery.flipped
            && !bytes.is_empty()
        {
            let bit = bit as usize % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.under_way += bytes.len();
        let due = Due { at: delivery.at, order: self.next_order, exit, bytes };
        self.next_order += 1;
        let first = self.due.peek().is_none_or(|Reverse(first)| due < *first);
        self.due.push(Reverse(due));
        first
    }

    /// Takes what should have left by `now`, with where to send it.
    fn take_due(&mut self, now: Timestamp, batch: &mut Vec<(Due, SocketAddr)>) {
        while batch.len() < BATCH && self.due.peek().is_some_and(|Reverse(due)| due.at <= now) {
            let Some(Reverse(due)) = self.due.pop() else { return };
            self.under_way -= due.bytes.len();
            let late = u64::try_from(now.since(due.at).as_micros()).unwrap_or(u64::MAX);
            self.lateness.saturating_record(late);
            match due.exit {
                Exit::Direct { target, .. } => batch.push((due, target)),
                Exit::Relay { pop, .. } => match self.relays[pop] {
                    Some(target) => batch.push((due, target)),
                    None => self.health.to_the_dead += 1,
                },
            }
        }
    }
}

/// A histogram of microseconds up to a minute, to three digits.
fn micros_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("constant bounds")
}
