//! Whether links carry packets, as the daemon's own [`Watch`] finds out: heartbeat by heartbeat
//! around a failure, and not at all while nothing is wrong.
//!
//! [`Watch`]: tradewind_proto::link::liveness::Watch

use std::time::Duration;

use rand::Rng;
use tradewind_proto::link::Liveness;
use tradewind_proto::link::liveness::Losses;
use tradewind_proto::units::Timestamp;

use super::net::{End, Event, Net, News, Port};
use crate::overlay::line::IDLE;

/// A link that has been well for this long is not watched beat by beat any more.
const WELL: Duration = Duration::from_millis(500);
/// Heartbeats before a failure that are played back.
const HISTORY: u32 = 12;

impl Net {
    /// Something may have changed for the link of `host` at `port`: its heartbeats count one by one.
    pub(super) fn attend(&mut self, host: usize, port: usize) {
        let entry = &self.hosts[host].ports[port];
        let Some(line) = entry.line.filter(|_| self.hosts[host].control.is_some()) else { return };
        let end = End { host, port, line };
        if !self.is_heard(host, port) {
            let way = self.pipes[entry.back].span();
            self.events.schedule(self.now + IDLE + way, Event::Idle(end));
        }
        if self.hosts[host].ports[port].attended {
            return;
        }
        self.tune(host, port);
        if self.hosts[host].ports[port].watch.state() == Liveness::Up {
            self.play_back(end);
        }
        self.hosts[host].ports[port].attended = true;
        self.events.schedule(self.now, Event::Beat(end));
    }

    fn tune(&mut self, host: usize, port: usize) {
        let Port { peer, mirror, out, back, .. } = self.hosts[host].ports[port];
        let rtt = self.pipes[out].span() + self.pipes[back].span();
        let rtt = rtt + (self.hosts[host].ports[port].watch_deviation(&self.pipes)) * 4;
        let losses = |port: &Port| {
            let Port { sense, .. } = port;
            Losses { loss: sense.loss() as f32, burst: sense.burst as f32 }
        };
        let losses =
            [losses(&self.hosts[host].ports[port]), losses(&self.hosts[peer].ports[mirror])];
        let entry = &mut self.hosts[host].ports[port];
        entry.watch.tune(entry.heat.gap(), losses, rtt);
    }

    /// The heartbeats of the last moments, and those still under way: until now all went well.
    fn play_back(&mut self, end: End) {
        let now = self.now;
        let Port { out, back, heat, .. } = self.hosts[end.host].ports[end.port];
        let gap = heat.gap();
        let (there, here) = (self.pipes[out].span(), self.pipes[back].span());
        let rtt = there + here;
        let port = &mut self.hosts[end.host].ports[end.port];
        let phase = gap.mul_f64(port.rng.random());
        let beats = HISTORY + u32::try_from(rtt.as_micros() / gap.as_micros()).unwrap_or(0) + 1;
        port.watch.handle_timeout(now.minus(phase + gap * (beats + 1)));
        port.there.clear();
        for beat in (0..beats).rev() {
            let at = now.minus(phase + gap * beat);
            port.watch.handle_heard(at);
            port.watch.handle_covered(at.minus(rtt), at);
            port.watch.handle_sent(at);
            if at + there > now {
                port.there.push_back((at + there, at));
            }
        }
        let phase = gap.mul_f64(port.rng.random());
        // What the neighbour sent before now arrives, whatever happened to it since.
        let under_way = u32::try_from(here.as_micros() / gap.as_micros()).unwrap_or(0) + 1;
        for beat in (0..under_way).rev() {
            let at = now.minus(phase + gap * beat) + here;
            if at > now {
                let covered = Some(at.minus(rtt));
                self.events.schedule(at, Event::Heard(end, covered));
            }
        }
    }

    /// A heartbeat each way is due.
    pub(super) fn beat(&mut self, end: End) {
        if !self.is_current(end) || !self.hosts[end.host].ports[end.port].attended {
            return;
        }
        let now = self.now;
        let sound = self.is_sound(end.host, end.port);
        let heard = self.is_heard(end.host, end.port);
        let Port { peer, out, back, .. } = self.hosts[end.host].ports[end.port];
        let arrives = self.pipes[out].up && self.hosts[peer].control.is_some();
        let (there, here) = (self.pipes[out].span(), self.pipes[back].span());
        let (loss, loss_back) = (self.pipes[out].loss(), self.pipes[back].loss());
        let port = &mut self.hosts[end.host].ports[end.port];
        port.watch.handle_sent(now);
        if arrives && port.rng.random::<f64>() >= loss {
            port.there.push_back((now + there, now));
        }
        while let Some((_, sent_at)) = port.there.pop_front_if(|(at, _)| *at <= now) {
            port.newest_there = Some(sent_at);
        }
        if heard && port.rng.random::<f64>() >= loss_back {
            let covered = port.newest_there;
            self.events.schedule(now + here, Event::Heard(end, covered));
        }
        if port.watch.poll_timeout() <= now {
            port.watch.handle_timeout(now);
        }
        let state = port.watch.state();
        let well = sound && state == Liveness::Up && now.since(port.up_since) >= WELL;
        let given_up = !sound && state == Liveness::Down;
        let gap = port.heat.gap();
        if well || given_up {
            port.attended = false;
            port.there.clear();
        } else {
            self.events.schedule(now + gap, Event::Beat(end));
        }
        self.note_liveness(end);
    }

    /// A heartbeat came.
    pub(super) fn handle_heard(&mut self, end: End, covered: Option<Timestamp>) {
        if !self.is_current(end) {
            return;
        }
        let now = self.now;
        let watch = &mut self.hosts[end.host].ports[end.port].watch;
        watch.handle_heard(now);
        if let Some(sent_at) = covered {
            watch.handle_covered(sent_at, now);
        }
        self.note_liveness(end);
    }

    /// It is time for the watch to look.
    pub(super) fn handle_watch(&mut self, end: End) {
        if !self.is_current(end) {
            return;
        }
        let now = self.now;
        let port = &mut self.hosts[end.host].ports[end.port];
        if port.attended && port.watch.poll_timeout() <= now {
            port.watch.handle_timeout(now);
            self.note_liveness(end);
        }
    }

    /// Acts on a new state, as the node does.
    fn note_liveness(&mut self, end: End) {
        let now = self.now;
        let End { host, port, .. } = end;
        let peer = self.hosts[host].ports[port].peer;
        let key = self.hosts[peer].key;
        let entry = &mut self.hosts[host].ports[port];
        let timeout = entry.watch.poll_timeout();
        if entry.attended && timeout != Timestamp::NEVER && timeout > now {
            // One for each deadline: heartbeats put it off all the time.
            let gap = entry.heat.gap();
            if timeout.since(now) <= gap {
                self.events.schedule(timeout, Event::Watch(end));
            }
        }
        let entry = &mut self.hosts[host].ports[port];
        let Some(liveness) = entry.watch.poll_change() else { return };
        if liveness == Liveness::Up {
            entry.up_since = now;
        }
        if let Some(control) = &mut self.hosts[host].control {
            control.set_suspect(key, liveness == Liveness::Suspect, now);
        }
        self.news.push(News::Liveness { host, port, liveness });
        match liveness {
            Liveness::Up | Liveness::Down => self.measure(host),
            Liveness::Suspect | Liveness::Starting => self.flush(host),
        }
    }
}

impl Port {
    /// The deviation of round trips, as far as it comes from the link's jitter.
    fn watch_deviation(&self, pipes: &[super::pipe::Pipe]) -> Duration {
        let (out, back) = (pipes[self.out].sigma(), pipes[self.back].sigma());
        Duration::from_secs_f64(0.8 * (out * out + back * back).sqrt())
    }
}
