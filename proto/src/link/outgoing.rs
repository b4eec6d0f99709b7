//! The sender's groups: packets join the open one of their lane; what reports say is missing is
//! sent again or made up for, as [`super::plan`] says, while it can arrive in time.
//!
//! Bounded: [`MOST_GROUPS`] groups and [`MOST_BYTES`] of packets; the oldest group makes room, and
//! what it could still have needed is counted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::Protection;
use super::code::MAX_DATA;
use super::group::{Group, Help, TYPICAL};
use super::outlook::Outlook;
use super::sent::{Outcome, Sent, Wave};
use crate::frame::Shard;
use crate::units::{Class, GroupId, Timestamp};

/// Groups kept; the oldest goes first.
pub(super) const MOST_GROUPS: usize = 4096;
/// Bytes of packets kept; the oldest group goes first.
pub(super) const MOST_BYTES: usize = 32 << 20;

/// No group waits longer for more packets.
pub const LONGEST_OPEN: Duration = Duration::from_millis(20);
/// One that hardly gets a second packet waits for those that come along with the first.
const SHORTEST_OPEN: Duration = Duration::from_millis(1);

/// Where reports stay away, a packet is worth so many shards: the link may be dead.
const MOST_FOR_UNHEARD: usize = 2;

/// Packets are grouped by class and by how often they can be helped, up to so often: what has lost
/// time on the way needs parity at once, which would be wasted on the others.
const PATIENT: usize = 3;
const LANES: usize = 3 * PATIENT;

fn lane(class: Class, chances: usize) -> usize {
    class as usize * PATIENT + chances.clamp(1, PATIENT) - 1
}

/// What was put off.
#[derive(Clone, Copy, Debug)]
enum Later {
    Send(Job),
    /// To look at a group once more.
    Review(u64),
    /// To make up for what nobody has told of a group.
    Unheard(u64),
    /// To make up for repairs that nobody has told of.
    Unanswered(u64),
}

/// The mean time between packets.
#[derive(Clone, Copy, Debug, Default)]
struct Rhythm {
    latest: Timestamp,
    gap: Duration,
}

impl Rhythm {
    fn note(&mut self, now: Timestamp) {
        let gap = now.since(self.latest).min(LONGEST_OPEN * 2);
        self.gap = (self.gap * 7 + gap) / 8;
        self.latest = now;
    }
}

/// How pressing a shard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The neighbour is known to lack it: as good as a new packet, and with less time.
    Lacking,
    /// It might be lacking. On a full link the place of a packet is too dear for it.
    Margin,
}

/// A shard that waits to be sent.
#[derive(Clone, Copy, Debug)]
struct Job {
    group: u64,
    help: Help,
    wave: Wave,
    need: Need,
}

/// Shards of one class and need take their turn together.
pub(super) type Turn = (Class, Need);
const TURNS: usize = 3 * 2;

fn number(of: Turn) -> usize {
    of.0 as usize * 2 + of.1 as usize
}

/// The next shard to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A packet of so many bytes.
    Packet(usize),
    /// A parity symbol of so many bytes.
    Parity(usize),
}

/// All groups of one direction.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) outlook: Outlook,
    /// How the group that was closed last is protected.
    pub(super) protection: Option<Protection>,
    /// By number, counted on beyond the 24 bits of the wire.
    groups: BTreeMap<u64, Group>,
    next_group: u64,
    /// The open group of each lane.
    open: [Option<u64>; LANES],
    /// How fast the packets of each lane come.
    rhythm: [Rhythm; LANES],
    /// Jobs to do now, by turn.
    ready: [VecDeque<Job>; TURNS],
    /// By time and then by number.
    later: BTreeMap<(Timestamp, u64), Later>,
    put_off: u64,
    bytes: usize,
    /// Packets not known to have arrived when their group had to make room.
    forgotten: u64,
}

impl Outgoing {
    pub(super) fn new(outlook: Outlook) -> Self {
        Self {
            outlook,
            protection: None,
            groups: BTreeMap::new(),
            next_group: 0,
            open: [None; LANES],
            rhythm: [Rhythm::default(); LANES],
            ready: Default::default(),
            later: BTreeMap::new(),
            put_off: 0,
            bytes: 0,
            forgotten: 0,
        }
    }

    /// The place of the next packet of that class, which [`Self::add`] then fills.
    pub(super) fn place(
        &mut self,
        class: Class,
        arrive_by: Timestamp,
        now: Timestamp,
    ) -> (u64, Shard) {
        let lane = lane(class, self.outlook.chances_of_group(arrive_by, now));
        self.rhythm[lane].note(now);
        if let Some(id) = self.open[lane]
            && self.groups.get(&id).is_some_and(|group| group.flush_at() <= now)
        {
            self.close(id, now);
        }
        let id = self.open[lane].unwrap_or_else(|| self.begin(lane, arrive_by, now));
        let index = self.groups.get(&id).map_or(0, |group| group.len() as u8);
        (id, Shard { group: GroupId::new(id as u32), index })
    }

    /// A packet of a path of so many links was sent at the place given by [`Self::place`]; `packet`
    /// is as it was sent.
    pub(super) fn add(
        &mut self,
        id: u64,
        packet: Bytes,
        hops: usize,
        arrive_by: Timestamp,
        now: Timestamp,
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        self.bytes += packet.len();
        group.add(packet, hops, arrive_by, now);
        if group.is_full(now) || group.flush_at() <= now {
            self.close(id, now);
        }
        self.bound();
    }

    /// What became of transmissions.
    pub(super) fn handle_outcomes(&mut self, outcomes: &[(Sent, Outcome)], now: Timestamp) {
        let mut touched = BTreeSet::new();
        for &(sent, outcome) in outcomes {
            let (id, help, wave) = match sent {
                Sent::Packet { group, index, wave } => (group, Help::Packet(index), wave),
                Sent::Parity { group, wave } => (group, Help::Parity, wave),
                Sent::Other => continue,
            };
            if let Some(group) = self.groups.get_mut(&id) {
                group.handle_outcome(help, wave, outcome);
                touched.insert(id);
            }
        }
        for id in touched {
            self.review(id, now);
        }
    }

    /// Closes groups that waited long enough, and turns to what was put off.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        for id in self.open.into_iter().flatten() {
            if self.groups.get(&id).is_some_and(|group| group.flush_at() <= now) {
                self.close(id, now);
            }
        }
        while let Some(entry) = self.later.first_entry()
            && entry.key().0 <= now
        {
            match entry.remove() {
                Later::Send(job) => self.make_ready(job),
                Later::Review(id) => self.review_fully(id, now),
                Later::Unheard(id) => self.cover_unheard(id, now),
                Later::Unanswered(id) => self.cover_unanswered(id, now),
            }
        }
        while let Some((&id, group)) = self.groups.first_key_value()
            && group.is_done(&self.outlook, now)
        {
            self.remove(id);
        }
        // Where it never is the turn of margins, they would fill up with the dead.
        for class in Class::ALL {
            self.next_repair((class, Need::Margin), now);
        }
    }

    /// When to call [`Self::handle_timeout`].
    pub(super) fn next_timeout(&self) -> Timestamp {
        let later = self.later.first_key_value().map(|(&(at, _), _)| at);
        let flush =
            self.open.iter().flatten().filter_map(|id| self.groups.get(id)).map(Group::flush_at);
        flush.chain(later).min().unwrap_or(Timestamp::NEVER)
    }

    /// The next shard of a turn, and for which group; what has become useless is skipped.
    pub(super) fn next_repair(&mut self, of: Turn, now: Timestamp) -> Option<(u64, Next)> {
        loop {
            let job = *self.ready[number(of)].front()?;
            if let Some(group) = self.groups.get(&job.group)
                && group.wants(job.help, &self.outlook, now)
            {
                let shard = match job.help {
                    Help::Packet(row) => Next::Packet(group.packet(row).map_or(0, Bytes::len)),
                    Help::Parity => Next::Parity(group.symbol_len()),
                };
                return Some((job.group, shard));
            }
            self.skip_repair(of);
        }
    }

    /// Leaves out the next shard of a turn.
    pub(super) fn skip_repair(&mut self, of: Turn) {
        let Some(job) = self.ready[number(of)].pop_front() else { return };
        if let Some(group) = self.groups.get_mut(&job.group) {
            group.note_settled(job.help, job.wave);
        }
    }

    /// Whether shards wait to be sent now.
    pub(super) fn has_repairs(&self) -> bool {
        self.ready.iter().any(|jobs| !jobs.is_empty())
    }

    /// Takes the shard announced by [`Self::next_repair`].
    pub(super) fn take_repair(&mut self, of: Turn) -> Option<Repair> {
        let job = self.ready[number(of)].pop_front()?;
        let group = self.groups.get_mut(&job.group)?;
        let at = |index| Shard { group: GroupId::new(job.group as u32), index };
        let (id, wave, k) = (job.group, job.wave, group.len() as u8);
        Some(match job.help {
            Help::Packet(index) => Repair {
                sent: Sent::Packet { group: id, index, wave },
                shard: at(index),
                k,
                bytes: group.packet(index)?.clone(),
            },
            Help::Parity => {
                let mut symbol = BytesMut::with_capacity(group.symbol_len());
                let row = group.append_parity(&mut symbol);
                let bytes = symbol.freeze();
                Repair { sent: Sent::Parity { group: id, wave }, shard: at(row), k, bytes }
            }
        })
    }

    /// Packets that may not have arrived and are still in time, each at most once: their bytes,
    /// when they were sent and must arrive. Those that are not `wanted` stay.
    pub(super) fn salvage(
        &mut self,
        wanted: impl Fn(&[u8]) -> bool,
        now: Timestamp,
    ) -> Vec<(Bytes, Timestamp, Timestamp)> {
        self.groups.values_mut().flat_map(|group| group.salvage(&wanted, now)).collect()
    }

    /// Packets not known to have arrived when their group had to make room.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Groups, bytes and jobs kept.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize, usize) {
        (
            self.groups.len(),
            self.bytes,
            self.ready.iter().map(VecDeque::len).sum::<usize>() + self.later.len(),
        )
    }

    fn begin(&mut self, lane: usize, arrive_by: Timestamp, now: Timestamp) -> u64 {
        let id = self.next_group;
        self.next_group += 1;
        let wait = self.outlook.spare_time(arrive_by, now).min(LONGEST_OPEN);
        let lonely = self.rhythm[lane].gap > wait / 2;
        let wait = if lonely { wait.min(SHORTEST_OPEN) } else { wait };
        // Where all help goes along, long groups need less of it: the law of large numbers.
        let chances = self.outlook.chances_of_group(arrive_by, now);
        let enough = if chances > 1 { TYPICAL } else { MAX_DATA };
        let class = Class::ALL[lane / PATIENT];
        self.groups.insert(id, Group::new(class, now, wait, enough));
        self.open[lane] = Some(id);
        id
    }

    fn close(&mut self, id: u64, now: Timestamp) {
        self.shut(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let rounds = group.close(&self.outlook, now);
        let packets = group.len();
        let mut parity = 0;
        if let Some(deadline) = group.deadline(&self.outlook, now) {
            let spare = group.spare();
            parity = self.outlook.upfront(group.target, packets, rounds);
            parity = parity.min(self.outlook.most_margin(packets, deadline, now));
            for nth in 0..parity {
                let at = self.outlook.margin_at((nth, parity), deadline, now);
                self.order(id, (spare, Wave::First, Need::Margin), at, now);
            }
            if self.outlook.chances(deadline, now) > 1 {
                self.put_off(self.outlook.last_chance(deadline, now), Later::Unheard(id));
            }
        }
        let [packets, parity, rounds] = [packets, parity, rounds].map(|n| n.min(255) as u8);
        self.protection = Some(Protection { packets, parity, rounds });
        self.review(id, now);
    }

    /// At the last chance of a group: what should have been reported long ago, and was not because
    /// the reports were lost, gets parity as if there had never been another chance.
    fn cover_unheard(&mut self, id: u64, now: Timestamp) {
        let Some(group) = self.groups.get(&id) else { return };
        let unheard = group.unheard(&self.outlook, now);
        let Some(deadline) = group.deadline(&self.outlook, now).filter(|_| unheard > 0) else {
            return;
        };
        let spare = group.spare();
        let shards = self.outlook.unheard(group.target, unheard).min(unheard * MOST_FOR_UNHEARD);
        for nth in 0..shards {
            let at = self.outlook.margin_at((nth, shards), deadline, now);
            self.order(id, (spare, Wave::Repair, Need::Margin), at, now);
        }
    }

    /// The same for repairs that counted on being followed by others.
    fn cover_unanswered(&mut self, id: u64, now: Timestamp) {
        if self.groups.get(&id).is_some_and(|group| group.answer_by <= now) {
            self.review_fully(id, now);
        }
    }

    /// Decides whether a group needs more: what it lacks is sent at once, a margin later, if that
    /// costs no chance. By then more is known, and other losses of the group share the margin.
    fn review(&mut self, id: u64, now: Timestamp) {
        let Some((help, pressing, deadline)) = self.help(id, now) else { return };
        self.order_lacking(id, &help[..pressing], deadline, now);
        if help.len() > pressing {
            match self.outlook.patience(deadline, now) {
                Duration::ZERO => self.order_margin(id, &help[pressing..], deadline, now),
                patience => self.put_off_review(id, now + patience),
            }
        }
    }

    /// As [`Self::review`], when the time for the margin has come.
    fn review_fully(&mut self, id: u64, now: Timestamp) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.review_at = None;
        }
        let Some((help, pressing, deadline)) = self.help(id, now) else { return };
        self.order_lacking(id, &help[..pressing], deadline, now);
        self.order_margin(id, &help[pressing..], deadline, now);
    }

    /// What a group needs now, how much of that at once, and by when; removes it if it is done.
    fn help(&mut self, id: u64, now: Timestamp) -> Option<(Vec<Help>, usize, Timestamp)> {
        let group = self.groups.get(&id)?;
        if group.is_done(&self.outlook, now) {
            self.remove(id);
            return None;
        }
        let deadline = group.deadline(&self.outlook, now)?;
        let (help, pressing) = group.help(&self.outlook, now);
        Some((help, pressing, deadline))
    }

    /// Sends what is lacking; if that counts on another chance, what became of it should be known by the
    /// last one.
    fn order_lacking(&mut self, id: u64, lacking: &[Help], deadline: Timestamp, now: Timestamp) {
        for &help in lacking {
            self.order(id, (help, Wave::Repair, Need::Lacking), now, now);
        }
        if !lacking.is_empty()
            && self.outlook.chances(deadline, now) > 1
            && let Some(group) = self.groups.get_mut(&id)
        {
            let at = self.outlook.last_chance(deadline, now);
            group.answer_by = at;
            self.put_off(at, Later::Unanswered(id));
        }
    }

    fn order_margin(&mut self, id: u64, margin: &[Help], deadline: Timestamp, now: Timestamp) {
        for (nth, &help) in margin.iter().enumerate() {
            let at = self.outlook.margin_at((nth, margin.len()), deadline, now);
            self.order(id, (help, Wave::Repair, Need::Margin), at, now);
        }
    }

    /// One review per group waits: the earliest.
    fn put_off_review(&mut self, id: u64, at: Timestamp) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.review_at.is_none() {
            group.review_at = Some(at);
            self.put_off(at, Later::Review(id));
        }
    }

    fn put_off(&mut self, at: Timestamp, later: Later) {
        self.put_off += 1;
        self.later.insert((at, self.put_off), later);
    }

    fn order(&mut self, id: u64, what: (Help, Wave, Need), at: Timestamp, now: Timestamp) {
        let (help, wave, need) = what;
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.note_sending(help, wave);
        let job = Job { group: id, help, wave, need };
        if at <= now {
            self.make_ready(job);
        } else {
            self.put_off(at, Later::Send(job));
        }
    }

    fn make_ready(&mut self, job: Job) {
        if let Some(group) = self.groups.get(&job.group) {
            self.ready[number((group.class, job.need))].push_back(job);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(group) = self.groups.remove(&id) {
            self.bytes -= group.bytes();
        }
        self.shut(id);
    }

    /// No more packets join the group.
    fn shut(&mut self, id: u64) {
        for open in self.open.iter_mut().filter(|open| **open == Some(id)) {
            *open = None;
        }
    }

    fn bound(&mut self) {
        while self.groups.len() > MOST_GROUPS || self.bytes > MOST_BYTES {
            let Some((&id, group)) = self.groups.first_key_value() else { return };
            self.forgotten += group.out() as u64;
            self.remove(id);
        }
    }
}

/// A shard to send for a group.
#[derive(Clone, Debug)]
pub(super) struct Repair {
    pub(super) sent: Sent,
    pub(super) shard: Shard,
    /// The number of packets in its group.
    pub(super) k: u8,
    /// The packet or parity symbol.
    pub(super) bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Recovery;
    use crate::link::plan::OperatingPoint;

    const NOW: Timestamp = Timestamp::from_micros(10_000_000);
    const LACKING: Turn = (Class::Video, Need::Lacking);
    const MARGIN: Turn = (Class::Video, Need::Margin);

    fn after(millis: u64) -> Timestamp {
        NOW + Duration::from_millis(millis)
    }

    fn outgoing(loss: f32) -> Outgoing {
        Outgoing::new(Outlook {
            one_way: Duration::from_millis(20),
            round: Duration::from_millis(45),
            spread: Duration::ZERO,
            point: OperatingPoint::new(loss, 1.0),
            recovery: Recovery::Plan,
        })
    }

    fn send(
        outgoing: &mut Outgoing,
        class: Class,
        arrive_by: Timestamp,
        now: Timestamp,
    ) -> (u64, u8) {
        let (id, shard) = outgoing.place(class, arrive_by, now);
        outgoing.add(id, Bytes::from_static(b"packet"), 1, arrive_by, now);
        (id, shard.index)
    }

    fn lost((group, index): (u64, u8)) -> (Sent, Outcome) {
        (Sent::Packet { group, index, wave: Wave::First }, Outcome::Lost)
    }

    #[test]
    fn packets_of_a_class_share_a_group_until_it_is_full_or_old() {
        let mut outgoing = outgoing(0.0);
        let mut groups = BTreeSet::new();
        for step in 0..400u64 {
            let now = NOW + Duration::from_micros(500) * step as u32;
            let class = if step % 40 == 39 { Class::Audio } else { Class::Video };
            let (id, index) = send(&mut outgoing, class, now + Duration::from_millis(200), now);
            groups.insert(id);
            assert!(index < 64);
            outgoing.handle_timeout(now);
        }
        assert!((14..=35).contains(&groups.len()), "{}", groups.len());
    }

    #[test]
    fn a_packet_without_time_for_a_repeat_gets_parity_and_the_others_do_not() {
        let mut outgoing = outgoing(0.02);
        let urgent = send(&mut outgoing, Class::Video, after(40), NOW);
        let patient: Vec<_> =
            (0..20).map(|_| send(&mut outgoing, Class::Video, after(200), NOW)).collect();
        assert!(patient.iter().all(|&(id, _)| id == patient[0].0 && id != urgent.0));
        outgoing.handle_timeout(after(20));
        let mut helped = BTreeSet::new();
        while let Some((id, _)) = outgoing.next_repair(MARGIN, after(20)) {
            helped.insert(id);
            outgoing.skip_repair(MARGIN);
        }
        assert_eq!(helped, BTreeSet::from([urgent.0]));
    }

    #[test]
    fn what_nobody_told_of_gets_parity_at_its_last_chance() {
        let mut outgoing = outgoing(0.02);
        let places: Vec<_> =
            (0..20).map(|_| send(&mut outgoing, Class::Video, after(120), NOW)).collect();
        outgoing.handle_timeout(after(20));
        assert_eq!(outgoing.next_repair(MARGIN, after(20)), None);
        let told = |&place| (lost(place).0, Outcome::Arrived);
        outgoing.handle_outcomes(&places[..15].iter().map(told).collect::<Vec<_>>(), after(50));
        outgoing.handle_timeout(after(97));
        assert_eq!(outgoing.next_repair(MARGIN, after(97)), None);
        outgoing.handle_timeout(after(98));
        let mut parity = 0;
        while let Some((id, Next::Parity(_))) = outgoing.next_repair(MARGIN, after(98)) {
            assert_eq!(id, places[0].0);
            outgoing.take_repair(MARGIN);
            parity += 1;
        }
        assert!((1..=10).contains(&parity), "{parity}");
    }

    #[test]
    fn repairs_that_nobody_told_of_are_made_up_for_at_the_last_chance() {
        for told in [false, true] {
            let mut outgoing = outgoing(0.1);
            let place = send(&mut outgoing, Class::Video, after(120), NOW);
            outgoing.handle_timeout(after(1));
            outgoing.handle_outcomes(&[lost(place)], after(45));
            let repeat = outgoing.take_repair(LACKING).expect("it is repeated");
            let copies = |outgoing: &mut Outgoing, millis| {
                outgoing.handle_timeout(after(millis));
                let due = std::iter::from_fn(|| {
                    let of = [LACKING, MARGIN]
                        .into_iter()
                        .find(|&of| outgoing.next_repair(of, after(millis)).is_some())?;
                    outgoing.take_repair(of)
                });
                due.count()
            };
            let margin = copies(&mut outgoing, 55);
            assert_eq!(copies(&mut outgoing, 97), 0, "a report may still come");
            if told {
                outgoing.handle_outcomes(&[(repeat.sent, Outcome::Arrived)], after(97));
            }
            let more = copies(&mut outgoing, 98);
            assert_eq!((1..=4).contains(&more), !told, "{more} after {margin}");
            assert_eq!(copies(&mut outgoing, 99), 0);
        }
    }

    #[test]
    fn repairs_sent_later_are_waited_for_until_later() {
        let mut outgoing = outgoing(0.1);
        outgoing.outlook.spread = Duration::from_millis(5); // so the last chance is looked for earlier
        let place = send(&mut outgoing, Class::Video, after(150), NOW);
        outgoing.handle_timeout(after(1));
        let mut sent = lost(place).0;
        for millis in [45, 85] {
            outgoing.handle_outcomes(&[(sent, Outcome::Lost)], after(millis));
            sent = outgoing.take_repair(LACKING).expect("it is repeated").sent;
        }
        let margins = |outgoing: &mut Outgoing, millis: std::ops::RangeInclusive<u64>| {
            let at = |millis| {
                outgoing.handle_timeout(after(millis));
                let due = std::iter::from_fn(|| {
                    outgoing.next_repair(MARGIN, after(millis))?;
                    outgoing.take_repair(MARGIN)
                });
                due.count()
            };
            millis.map(at).sum::<usize>()
        };
        margins(&mut outgoing, 85..=107); // for what was lost twice
        assert_eq!(margins(&mut outgoing, 108..=127), 0, "a report may still come");
        assert!(margins(&mut outgoing, 128..=130) > 0);
    }

    #[test]
    fn a_lost_packet_is_repeated_at_once_and_only_once() {
        let mut outgoing = outgoing(0.0);
        let places: Vec<_> =
            (0..3).map(|_| send(&mut outgoing, Class::Video, after(200), NOW)).collect();
        outgoing.handle_outcomes(&[lost(places[1])], after(44));
        assert_eq!(outgoing.next_repair(LACKING, after(44)), Some((places[1].0, Next::Packet(6))));
        let repair = outgoing.take_repair(LACKING).unwrap();
        assert_eq!((repair.shard.index, &repair.bytes[..]), (1, &b"packet"[..]));
        assert_eq!(outgoing.next_repair(LACKING, after(44)), None);
        outgoing.handle_outcomes(&[], after(45));
        assert_eq!(outgoing.next_repair(LACKING, after(45)), None);
    }

    #[test]
    fn a_repair_that_has_become_useless_is_skipped() {
        let mut outgoing = outgoing(0.0);
        let place = send(&mut outgoing, Class::Video, after(200), NOW);
        outgoing.handle_outcomes(&[lost(place)], after(44));
        assert!(outgoing.has_repairs());
        let (sent, _) = lost(place);
        outgoing.handle_outcomes(&[(sent, Outcome::Late)], after(45));
        assert_eq!(outgoing.next_repair(LACKING, after(45)), None);
        assert!(!outgoing.has_repairs());
    }

    #[test]
    fn a_margin_waits_where_that_costs_no_chance() {
        let mut outgoing = outgoing(0.3);
        let places: Vec<_> =
            (0..64).map(|_| send(&mut outgoing, Class::Video, after(150), NOW)).collect();
        while outgoing.next_repair(MARGIN, NOW).is_some() {
            outgoing.skip_repair(MARGIN); // parity up front
        }
        let mut fates: Vec<_> =
            places.iter().map(|&place| (lost(place).0, Outcome::Arrived)).collect();
        fates[5].1 = Outcome::Lost;
        outgoing.handle_outcomes(&fates, after(100));
        assert!(outgoing.next_repair(LACKING, after(100)).is_some());
        outgoing.take_repair(LACKING);
        assert_eq!(outgoing.next_repair(LACKING, after(100)), None);
        let at = outgoing.next_timeout();
        assert!(at > after(100) && at < after(130));
        outgoing.handle_timeout(at);
        assert!(matches!(outgoing.next_repair(MARGIN, at), Some((_, Next::Parity(_)))));
    }

    #[test]
    fn memory_is_bounded_and_what_is_given_up_is_counted() {
        let mut outgoing = outgoing(0.0);
        for step in 0..6000 {
            let now = after(40 * step);
            send(&mut outgoing, Class::Bulk, now + Duration::from_secs(16), now);
        }
        assert_eq!(outgoing.held().0, MOST_GROUPS);
        assert_eq!(outgoing.forgotten(), 6000 - MOST_GROUPS as u64);
        for step in 0..50 {
            let (id, _) = outgoing.place(Class::Bulk, after(500_000), after(300_000 + step));
            let large = Bytes::from(vec![0; 1 << 20]);
            outgoing.add(id, large, 1, after(500_000), after(300_000 + step));
            assert!(outgoing.held().1 <= MOST_BYTES);
        }
    }
}
