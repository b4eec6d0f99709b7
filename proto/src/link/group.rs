//! One group of packets as its sender keeps it until the neighbour has them all.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::code::{FIRST_PARITY, MAX_DATA, MAX_PARITY, append_parity, symbol_len};
use super::outlook::Outlook;
use super::plan::Target;
use super::sent::{Outcome, Wave};
use crate::units::{Class, Timestamp};

/// How long after its sending a packet may still be repaired. Receivers remember groups for longer.
pub(super) const LIFETIME: Duration = Duration::from_millis(1200);
/// A group that needs no parity closes with this many packets once [`FILL_TIME`] is over.
pub(super) const TYPICAL: usize = 20;
/// What is sent in this time goes into one group.
const FILL_TIME: Duration = Duration::from_millis(10);

/// A shard to send for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Help {
    /// This packet again.
    Packet(u8),
    /// The next row of parity.
    Parity,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nobody knows that it arrived.
    Out,
    /// With the neighbour.
    There,
    /// Handed out for a detour: no longer this link's concern.
    Salvaged,
}

#[derive(Debug)]
struct Packet {
    bytes: Bytes,
    sent_at: Timestamp,
    arrive_by: Timestamp,
    /// Copies sent, or about to be, whose fate is unknown.
    in_flight: u16,
    /// Whether anything is known of its first copy.
    heard_of: bool,
    place: Place,
}

impl Packet {
    /// When it must be with the neighbour for the link to care.
    fn deadline(&self) -> Timestamp {
        self.arrive_by.min(self.sent_at + LIFETIME)
    }
}

/// How many shards of one wave are sent, or about to be, and of unknown fate.
#[derive(Clone, Copy, Debug, Default)]
struct InFlight {
    first: usize,
    repair: usize,
}

impl InFlight {
    fn of(&mut self, wave: Wave) -> &mut usize {
        match wave {
            Wave::First => &mut self.first,
            Wave::Repair => &mut self.repair,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) class: Class,
    /// That of the strictest of its packets.
    pub(super) target: Target,
    open: bool,
    opened_at: Timestamp,
    /// So many packets are enough.
    enough: usize,
    flush_at: Timestamp,
    packets: Vec<Packet>,
    parity_made: usize,
    parity_there: usize,
    in_flight: InFlight,
    /// When it is to be looked at again.
    pub(super) review_at: Option<Timestamp>,
    /// When to make up for repairs, if it is not known by then what became of them.
    pub(super) answer_by: Timestamp,
}

impl Group {
    /// An empty group, which closes after `wait`, or with `enough` packets.
    pub(super) fn new(class: Class, now: Timestamp, wait: Duration, enough: usize) -> Self {
        Self {
            class,
            target: Target::new(class, 1),
            open: true,
            opened_at: now,
            enough,
            flush_at: now + wait,
            packets: Vec::with_capacity(TYPICAL),
            parity_made: 0,
            parity_there: 0,
            in_flight: InFlight::default(),
            review_at: None,
            answer_by: Timestamp::ZERO,
        }
    }

    /// When it closes by itself.
    pub(super) fn flush_at(&self) -> Timestamp {
        self.flush_at
    }

    /// The number of packets.
    pub(super) fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether it has grown to its length.
    pub(super) fn is_full(&self, now: Timestamp) -> bool {
        let len = self.len();
        len >= MAX_DATA || len >= self.enough && now.since(self.opened_at) >= FILL_TIME
    }

    /// Adds a packet of a path of so many links, that is sent now, and gives its row.
    pub(super) fn add(
        &mut self,
        bytes: Bytes,
        hops: usize,
        arrive_by: Timestamp,
        now: Timestamp,
    ) -> u8 {
        self.target = self.target.max(Target::new(self.class, hops));
        let row = self.packets.len() as u8;
        self.packets.push(Packet {
            bytes,
            sent_at: now,
            arrive_by,
            in_flight: 1,
            heard_of: false,
            place: Place::Out,
        });
        self.in_flight.first += 1;
        row
    }

    /// Bytes kept.
    pub(super) fn bytes(&self) -> usize {
        self.packets.iter().map(|packet| packet.bytes.len()).sum()
    }

    /// A packet as it was sent.
    pub(super) fn packet(&self, row: u8) -> Option<&Bytes> {
        self.packets.get(usize::from(row)).map(|packet| &packet.bytes)
    }

    /// The length of its parity symbols.
    pub(super) fn symbol_len(&self) -> usize {
        symbol_len(self.packets.iter().map(|packet| &packet.bytes[..]))
    }

    /// Appends the next parity row to `out`; gives the row.
    pub(super) fn append_parity(&mut self, out: &mut BytesMut) -> u8 {
        let row = FIRST_PARITY + (self.parity_made % MAX_PARITY) as u8;
        self.parity_made += 1;
        append_parity(row, self.packets.iter().map(|packet| &packet.bytes[..]), out);
        row
    }

    /// Closes the group: how often it can be helped, its parity up front included.
    pub(super) fn close(&mut self, outlook: &Outlook, now: Timestamp) -> usize {
        self.open = false;
        // The middle one: half of the packets have more time.
        let mut deadlines: Vec<Timestamp> =
            self.saveable(outlook, now).map(|(_, packet)| packet.deadline()).collect();
        deadlines.sort_unstable();
        let usual = deadlines.get(deadlines.len() / 2);
        usual.map_or(0, |&usual| outlook.chances(usual, now))
    }

    /// What a shard that follows the packets at once, or a margin, should be.
    pub(super) fn spare(&self) -> Help {
        if self.len() == 1 { Help::Packet(0) } else { Help::Parity }
    }

    /// Whether the neighbour has it all, or will after decoding; or nothing can be done any more.
    pub(super) fn is_done(&self, outlook: &Outlook, now: Timestamp) -> bool {
        !self.open && (self.lacking() == 0 || self.deadline(outlook, now).is_none())
    }

    /// Distinct shards that the neighbour lacks to have all packets.
    fn lacking(&self) -> usize {
        if self.packets.iter().all(|packet| packet.place != Place::Out) {
            return 0;
        }
        let missing = self.packets.iter().filter(|packet| packet.place != Place::There).count();
        missing.saturating_sub(self.parity_there)
    }

    /// When the first of the packets that can still be saved must arrive.
    pub(super) fn deadline(&self, outlook: &Outlook, now: Timestamp) -> Option<Timestamp> {
        self.saveable(outlook, now).map(|(_, packet)| packet.deadline()).min()
    }

    /// How many packets that can be saved nobody has told of.
    pub(super) fn unheard(&self, outlook: &Outlook, now: Timestamp) -> usize {
        self.saveable(outlook, now).filter(|(_, packet)| !packet.heard_of).count()
    }

    fn saveable(&self, outlook: &Outlook, now: Timestamp) -> impl Iterator<Item = (u8, &Packet)> {
        let earliest = now + outlook.one_way;
        (0u8..)
            .zip(&self.packets)
            .filter(move |(_, packet)| packet.place == Place::Out && packet.deadline() >= earliest)
    }

    /// What to send now for what is known to be lost, the pressing part first, and how many that are.
    pub(super) fn help(&self, outlook: &Outlook, now: Timestamp) -> (Vec<Help>, usize) {
        let Some(deadline) = self.deadline(outlook, now) else { return (Vec::new(), 0) };
        let chances = outlook.chances(deadline, now);
        let short = |lost: usize, sent: usize| {
            let most = lost.saturating_add(outlook.most_margin(lost * 2, deadline, now));
            outlook.repair(self.target, lost, chances).min(most).saturating_sub(sent)
        };
        let saveable = self.saveable(outlook, now).count();
        let missing = self.packets.iter().filter(|packet| packet.place != Place::There).count();
        let repairs = self.in_flight.repair;
        // What is under way is waited for, while there is another chance. At the last one parity under
        // way counts as sent with what is sent now, and may be lost like that.
        let (awaited, to_decode, sent) = if chances > 1 {
            let first = self.in_flight.first;
            (first, first, repairs)
        } else {
            let unknown = self.packets.iter().filter(|packet| !packet.heard_of).count();
            let parity = self.in_flight.first.saturating_sub(unknown);
            (self.unheard(outlook, now), unknown, repairs + parity)
        };
        let mut lost = missing.saturating_sub(self.parity_there + to_decode);
        let mut due = short(lost, sent);
        // With packets among the missing that can't be saved, parity sent now would have to make up for
        // those too: then each of the others is repeated, unless what is under way will do.
        let decodes = !self.open && self.len() > 1;
        let by_parity = decodes && (saveable == missing || due == 0);
        if !by_parity {
            lost = saveable.saturating_sub(awaited);
            due = short(lost, repairs);
        }
        let absent = self.saveable(outlook, now).filter(|(_, packet)| packet.in_flight == 0);
        let mut help: Vec<Help> = absent.take(due).map(|(row, _)| Help::Packet(row)).collect();
        let pressing = help.len().max(lost.saturating_sub(repairs)).min(due);
        let margin = due - help.len();
        if by_parity {
            help.extend(std::iter::repeat_n(Help::Parity, margin));
        } else if !self.open {
            let again: Vec<Help> =
                self.saveable(outlook, now).map(|(row, _)| Help::Packet(row)).collect();
            help.extend(again.into_iter().cycle().take(margin));
        }
        let pressing = pressing.min(help.len());
        (help, pressing)
    }

    /// A shard is about to be sent.
    pub(super) fn note_sending(&mut self, help: Help, wave: Wave) {
        *self.in_flight.of(wave) += 1;
        if let Help::Packet(row) = help
            && let Some(packet) = self.packets.get_mut(usize::from(row))
        {
            packet.in_flight += 1;
        }
    }

    /// Whether a shard that was about to be sent is still of use.
    pub(super) fn wants(&self, help: Help, outlook: &Outlook, now: Timestamp) -> bool {
        match help {
            Help::Parity => self.lacking() > 0 && self.deadline(outlook, now).is_some(),
            Help::Packet(row) => {
                self.lacking() > 0 && self.saveable(outlook, now).any(|(other, _)| other == row)
            }
        }
    }

    /// What became of a shard.
    pub(super) fn handle_outcome(&mut self, help: Help, wave: Wave, outcome: Outcome) {
        if outcome != Outcome::Late {
            self.note_settled(help, wave);
        }
        if let Help::Packet(row) = help
            && let Some(packet) = self.packets.get_mut(usize::from(row))
        {
            packet.heard_of = true;
        }
        if outcome == Outcome::Lost {
            return;
        }
        match help {
            Help::Parity => self.parity_there += 1,
            Help::Packet(row) => {
                if let Some(packet) = self.packets.get_mut(usize::from(row)) {
                    packet.place = Place::There;
                }
            }
        }
    }

    /// A shard is no longer in flight, or was not sent after all.
    pub(super) fn note_settled(&mut self, help: Help, wave: Wave) {
        let in_flight = self.in_flight.of(wave);
        *in_flight = in_flight.saturating_sub(1);
        if let Help::Packet(row) = help
            && let Some(packet) = self.packets.get_mut(usize::from(row))
        {
            packet.in_flight = packet.in_flight.saturating_sub(1);
        }
    }

    /// Packets that may still be out, unless salvaged before: their bytes, when they were sent and
    /// must arrive. Those that are not `wanted` stay.
    pub(super) fn salvage(
        &mut self,
        wanted: impl Fn(&[u8]) -> bool,
        now: Timestamp,
    ) -> impl Iterator<Item = (Bytes, Timestamp, Timestamp)> {
        let out = move |packet: &&mut Packet| {
            packet.place == Place::Out && packet.arrive_by > now && wanted(&packet.bytes)
        };
        self.packets.iter_mut().filter(out).map(|packet| {
            packet.place = Place::Salvaged;
            (packet.bytes.clone(), packet.sent_at, packet.arrive_by)
        })
    }

    /// Packets that are neither there nor salvaged.
    pub(super) fn out(&self) -> usize {
        self.packets.iter().filter(|packet| packet.place == Place::Out).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Recovery;
    use crate::link::plan::OperatingPoint;

    const NOW: Timestamp = Timestamp::from_micros(10_000_000);

    fn after(millis: u64) -> Timestamp {
        NOW + Duration::from_millis(millis)
    }

    fn outlook(loss: f32) -> Outlook {
        Outlook {
            one_way: Duration::from_millis(20),
            round: Duration::from_millis(45),
            spread: Duration::ZERO,
            point: OperatingPoint::new(loss, 1.0),
            recovery: Recovery::Plan,
        }
    }

    /// A group of five packets that must arrive within 120 ms.
    fn group() -> Group {
        let mut group = Group::new(Class::Video, NOW, Duration::from_millis(10), TYPICAL);
        (0..5).for_each(|row| {
            assert_eq!(group.add(Bytes::from(vec![row; 9]), 1, after(120), NOW), row)
        });
        group
    }

    fn lose(group: &mut Group, rows: &[u8]) {
        for row in 0..5 {
            let lost = rows.contains(&row);
            let outcome = if lost { Outcome::Lost } else { Outcome::Arrived };
            group.handle_outcome(Help::Packet(row), Wave::First, outcome);
        }
    }

    #[test]
    fn an_open_group_repeats_what_is_lost_and_no_more() {
        let mut group = group();
        group.handle_outcome(Help::Packet(1), Wave::First, Outcome::Lost);
        assert_eq!(group.help(&outlook(0.3), NOW), (vec![Help::Packet(1)], 1));
        assert!(!group.is_done(&outlook(0.3), NOW));
    }

    #[test]
    fn a_closed_group_adds_parity_as_margin_when_time_is_short() {
        let (mut group, outlook) = (group(), outlook(0.3));
        group.close(&outlook, NOW);
        lose(&mut group, &[1, 3]);
        let (help, pressing) = group.help(&outlook, after(90));
        assert_eq!((&help[..2], pressing), (&[Help::Packet(1), Help::Packet(3)][..], 2));
        assert!(help.len() > 4 && help[2..].iter().all(|&help| help == Help::Parity), "{help:?}");
        // What is on its way is not ordered again.
        help.iter().for_each(|&help| group.note_sending(help, Wave::Repair));
        assert_eq!(group.help(&outlook, after(90)), (vec![], 0));
        // Two of them arrive: that suffices, whichever they are.
        group.handle_outcome(Help::Parity, Wave::Repair, Outcome::Arrived);
        assert!(!group.is_done(&outlook, after(91)));
        group.handle_outcome(Help::Packet(3), Wave::Repair, Outcome::Arrived);
        assert!(group.is_done(&outlook, after(91)));
    }

    #[test]
    fn parity_under_way_is_waited_for_while_there_is_another_chance() {
        let (mut group, outlook) = (group(), outlook(0.02));
        group.close(&outlook, NOW);
        (0..2).for_each(|_| group.note_sending(Help::Parity, Wave::First));
        lose(&mut group, &[1, 3]);
        assert_eq!(group.help(&outlook, after(50)), (vec![], 0));
        let (help, pressing) = group.help(&outlook, after(90));
        assert_eq!((&help[..2], pressing), (&[Help::Packet(1), Help::Packet(3)][..], 2));
    }

    #[test]
    fn at_the_last_chance_parity_under_way_counts_as_sent() {
        let (mut group, outlook) = (group(), outlook(0.3));
        group.close(&outlook, NOW);
        lose(&mut group, &[1, 3]);
        let alone = group.help(&outlook, after(90)).0.len();
        (0..3).for_each(|_| group.note_sending(Help::Parity, Wave::First));
        assert_eq!(group.help(&outlook, after(90)).0.len(), alone - 3);
        (3..alone).for_each(|_| group.note_sending(Help::Parity, Wave::First));
        assert_eq!(group.help(&outlook, after(90)), (vec![], 0));
        group.handle_outcome(Help::Parity, Wave::First, Outcome::Lost);
        assert!(!group.help(&outlook, after(90)).0.is_empty());
    }

    #[test]
    fn what_parity_under_way_rebuilds_is_not_repeated_though_some_could_not_be() {
        let mut group = Group::new(Class::Video, NOW, Duration::from_millis(10), TYPICAL);
        group.add(Bytes::from_static(b"early"), 1, after(100), NOW);
        (1..5).for_each(|row| {
            group.add(Bytes::from(vec![row; 9]), 1, after(120), NOW);
        });
        let outlook = outlook(0.3);
        group.close(&outlook, NOW);
        (0..12).for_each(|_| group.note_sending(Help::Parity, Wave::First));
        lose(&mut group, &[0, 3]);
        // The first can't be saved any more, but by what was sent before.
        assert_eq!(group.help(&outlook, after(90)), (vec![], 0));
        (0..12).for_each(|_| group.handle_outcome(Help::Parity, Wave::First, Outcome::Lost));
        let (help, _) = group.help(&outlook, after(90));
        assert!(!help.is_empty() && help.iter().all(|&help| help == Help::Packet(3)), "{help:?}");
    }

    #[test]
    fn a_packet_that_was_only_late_needs_no_help() {
        let (mut group, outlook) = (group(), outlook(0.1));
        group.close(&outlook, NOW);
        lose(&mut group, &[2]);
        group.handle_outcome(Help::Packet(2), Wave::First, Outcome::Late);
        assert!(group.is_done(&outlook, NOW));
        assert!(!group.wants(Help::Packet(2), &outlook, NOW));
    }

    #[test]
    fn copies_that_lie_a_burst_apart_need_not_be_many() {
        let bursts = Outlook {
            spread: Duration::from_millis(5),
            point: OperatingPoint::new(0.02, 25.0),
            ..outlook(0.0)
        };
        let mut group = group();
        group.close(&bursts, NOW);
        lose(&mut group, &[1]);
        assert!(bursts.plan(group.target).repair(1, 1) > 20, "as neighbours they would have to be");
        let (help, pressing) = group.help(&bursts, after(90));
        assert_eq!((help.len(), pressing), (1 + 4, 1));
    }

    #[test]
    fn the_packet_with_the_longest_path_sets_the_target() {
        let mut group = Group::new(Class::Video, NOW, Duration::from_millis(10), TYPICAL);
        for hops in [1, 5, 2] {
            group.add(Bytes::from_static(b"packet"), hops, after(120), NOW);
        }
        assert_eq!(group.target, Target::new(Class::Video, 5));
    }

    #[test]
    fn nothing_is_sent_that_would_come_too_late() {
        let (mut group, outlook) = (group(), outlook(0.1));
        group.close(&outlook, NOW);
        lose(&mut group, &[2]);
        assert!(group.wants(Help::Packet(2), &outlook, after(100)));
        assert!(!group.wants(Help::Packet(2), &outlook, after(101)));
        assert_eq!(group.help(&outlook, after(101)), (vec![], 0));
        assert!(group.is_done(&outlook, after(101)));
    }

    #[test]
    fn salvaged_packets_are_no_longer_this_links_concern() {
        let (mut group, outlook) = (group(), outlook(0.1));
        group.close(&outlook, NOW);
        lose(&mut group, &[2, 4]);
        assert_eq!(group.salvage(|packet| packet[0] == 4, after(10)).count(), 1);
        assert_eq!(group.salvage(|_| true, after(10)).count(), 1);
        assert_eq!(group.salvage(|_| true, after(10)).count(), 0);
        assert!(group.is_done(&outlook, after(10)));
    }
}
