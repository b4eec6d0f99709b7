//! Pings under way: sent at their time, bounded in number, given up when no answer comes.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tradewind_proto::packet::Path;
use tradewind_proto::units::{PolicyId, Timestamp};

use super::running::Running;
use crate::node::echo::Pong;

/// How long an answer to a ping is waited for.
const PING_PATIENCE: Duration = Duration::from_secs(3);
/// The most pings under way.
const MAX_PINGS: usize = 4096;

/// Pings under way.
#[derive(Default)]
pub struct Pings {
    next_id: u32,
    waiting: HashMap<u32, (Timestamp, oneshot::Sender<Duration>)>,
    /// Pings to send later: when, where to, under which policy, and who wants the answer.
    planned: Vec<(Timestamp, Path, PolicyId, oneshot::Sender<Duration>)>,
}

impl Pings {
    /// A ping came back.
    pub fn handle_pong(&mut self, pong: &Pong) {
        if let Some((_, asker)) = self.waiting.remove(&pong.id) {
            let _ = asker.send(pong.round_trip);
        }
    }

    /// Gives up those that take too long: their askers see the other end dropped.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.waiting.retain(|_, (give_up, _)| *give_up > now);
    }

    /// When something is due.
    pub fn poll_timeout(&self) -> Timestamp {
        let waiting = self.waiting.values().map(|(give_up, _)| *give_up);
        let planned = self.planned.iter().map(|(at, ..)| *at);
        waiting.chain(planned).min().unwrap_or(Timestamp::NEVER)
    }

    /// Plans a ping; its round trip comes through the receiver, or nothing does.
    pub fn plan(
        &mut self,
        path: Path,
        policy: PolicyId,
        at: Timestamp,
    ) -> oneshot::Receiver<Duration> {
        let (asker, answer) = oneshot::channel();
        if self.waiting.len() + self.planned.len() < MAX_PINGS {
            self.planned.push((at, path, policy, asker));
        }
        answer
    }

    /// The next ping that is due: its number, path and policy.
    pub fn due(&mut self, now: Timestamp) -> Option<(u32, Path, PolicyId)> {
        let at = self.planned.iter().position(|(at, ..)| *at <= now)?;
        let (_, path, policy, asker) = self.planned.swap_remove(at);
        self.next_id = self.next_id.wrapping_add(1);
        self.waiting.insert(self.next_id, (now + PING_PATIENCE, asker));
        Some((self.next_id, path, policy))
    }
}

impl Running {
    /// Sends the pings that are due.
    pub(super) fn send_pings(&mut self, now: Timestamp) {
        while let Some((id, path, policy)) = self.pings.due(now) {
            self.node.ping(path, policy, id, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use tradewind_proto::units::PopKey;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000_000 + millis * 1000)
    }

    fn path() -> Path {
        Path::new(&[PopKey(1), PopKey(2)]).unwrap()
    }

    fn pong(id: u32) -> Pong {
        let round_trip = Duration::from_millis(40);
        Pong { id, round_trip, raw_delay_micros: 20_000, path: path() }
    }

    #[test]
    fn a_ping_leaves_at_its_time_and_its_answer_comes_once() {
        let mut pings = Pings::default();
        let mut answer = pings.plan(path(), PolicyId::NONE, at(20));
        assert_eq!(pings.poll_timeout(), at(20));
        assert!(pings.due(at(19)).is_none());
        let (id, ..) = pings.due(at(20)).expect("it is due");
        assert!(pings.due(at(20)).is_none(), "it leaves once");
        pings.handle_pong(&pong(id + 1));
        assert!(answer.try_recv().is_err(), "another's answer");
        pings.handle_pong(&pong(id));
        pings.handle_pong(&pong(id));
        assert_eq!(answer.try_recv(), Ok(Duration::from_millis(40)));
        assert_eq!(pings.poll_timeout(), Timestamp::NEVER);
    }

    #[test]
    fn a_ping_without_an_answer_is_given_up() {
        let mut pings = Pings::default();
        let mut answer = pings.plan(path(), PolicyId::NONE, at(0));
        let (id, ..) = pings.due(at(5)).expect("it is due");
        assert_eq!(pings.poll_timeout(), at(3005));
        pings.handle_timeout(at(3004));
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty));
        pings.handle_timeout(at(3005));
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        pings.handle_pong(&pong(id));
        assert_eq!(pings.poll_timeout(), Timestamp::NEVER);
    }

    #[test]
    fn pings_under_way_are_bounded() {
        let mut pings = Pings::default();
        let plan = |pings: &mut Pings| pings.plan(path(), PolicyId::NONE, at(0));
        let mut answers: Vec<_> = (0..MAX_PINGS).map(|_| plan(&mut pings)).collect();
        pings.due(at(0)).expect("it is due");
        let refused = Err(oneshot::error::TryRecvError::Closed);
        assert_eq!(plan(&mut pings).try_recv(), refused, "sent and planned ones count together");
        while pings.due(at(0)).is_some() {}
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
        pings.handle_timeout(at(3000));
        let mut again = plan(&mut pings);
        assert_eq!(again.try_recv(), Err(oneshot::error::TryRecvError::Empty), "room again");
    }
}
