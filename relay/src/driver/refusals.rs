//! Refused connections: each peer's are logged once a minute, and all are counted.

use std::collections::HashMap;
use std::time::Duration;

use tradewind_proto::units::Timestamp;

/// How long a peer's refusals stay quiet after one was logged.
const QUIET: Duration = Duration::from_secs(60);
/// The most peers remembered; beyond that the log is quiet until some are forgotten.
const MAX_PEERS: usize = 1024;

/// Who was refused lately.
#[derive(Debug, Default)]
pub struct Refusals {
    logged: HashMap<String, Timestamp>,
    /// Connections refused since the start.
    pub total: u64,
}

impl Refusals {
    /// Counts a refusal of `peer`; true: it should be logged.
    pub fn record(&mut self, peer: &str, now: Timestamp) -> bool {
        self.total += 1;
        self.logged.retain(|_, at| now.since(*at) < QUIET);
        if self.logged.contains_key(peer) || self.logged.len() >= MAX_PEERS {
            return false;
        }
        self.logged.insert(peer.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_logged_once_a_minute() {
        let at = |seconds: u64| Timestamp::from_micros(seconds * 1_000_000);
        let mut refusals = Refusals::default();
        for (peer, second, logged) in
            [("a", 0, true), ("a", 1, false), ("b", 1, true), ("a", 59, false), ("a", 60, true)]
        {
            assert_eq!(refusals.record(peer, at(second)), logged, "{peer} at {second}");
        }
        assert_eq!(refusals.total, 5);
    }
}
