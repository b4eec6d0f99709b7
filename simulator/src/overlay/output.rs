//! What relays want done, done: the counterpart of the daemon's loop.

use bytes::Bytes;
use tradewind_proto::packet::Path;
use tradewind_proto::units::{FlowId, Timestamp};
use tradewind_relay::node::edge::{FlowEnd, LocalOutput, TunnelId};
use tradewind_relay::node::{Node, Output};

use super::flow::{Delivery, FlowNumber, Watch};
use super::trust::PlainTrust;
use super::{Overlay, stream_of, tunnel_of};
use crate::traffic::Stamp;

impl Overlay {
    /// Lets a relay that runs take something in, then does all that it wants.
    pub(super) fn with_node(
        &mut self,
        number: usize,
        act: impl FnOnce(&mut Node<PlainTrust>, Timestamp),
    ) {
        let host = &mut self.hosts[number];
        let now = host.clock.shown_at(self.now);
        let Some(node) = host.node.as_mut().filter(|_| !host.ending) else { return };
        host.work.calls += 1;
        act(node, now);
        self.flush(number);
    }

    pub(super) fn flush(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let now = host.clock.shown_at(self.now);
        if let Some(node) = &mut host.node
            && node.poll_timeout() <= now
        {
            node.handle_timeout(now);
        }
        while let Some(output) =
            self.hosts[number].node.as_mut().and_then(|node| node.poll_output(now))
        {
            self.obey(number, output);
        }
        let host = &self.hosts[number];
        if let Some(node) = &host.node {
            let wake_at = match host.ending {
                true => Timestamp::NEVER,
                false => host.clock.true_at(node.poll_timeout()).max(self.now),
            };
            self.wakes.set(number, wake_at);
            self.note_routes(number);
        }
    }

    fn obey(&mut self, number: usize, output: Output) {
        match output {
            Output::Datagram(conn, datagram) => self.send_datagram(conn, datagram),
            Output::Message(conn, message) => self.send_message(conn, &message),
            Output::Close(conn, reason) => self.close(conn, &reason),
            Output::Dial(address) => self.dial(number, address, 0),
            Output::Local(LocalOutput::Deliver { flow, payload, .. }) => {
                self.deliver(number, flow, payload);
            }
            Output::Local(LocalOutput::Answer { tunnel, payload, .. }) => {
                self.answer(number, tunnel, &payload);
            }
            Output::Local(LocalOutput::CloseEgress(_)) | Output::Pong(_) => {}
            Output::News(news) => {
                let host = self.hosts[number].spec.host.clone();
                self.news.push((self.now, host, news));
            }
            Output::Stop(reason) => {
                self.hosts[number].stopped = Some(reason.clone());
                self.end(number, &reason);
            }
        }
    }

    fn deliver(&mut self, number: usize, id: FlowId, payload: Bytes) {
        self.trace.note(self.now, number, &payload);
        let stamp = read(&payload);
        let Some(flow) = self.flows.get(stamp.stream as usize) else { return };
        assert_eq!(flow.to, number, "a packet came out at the wrong place");
        let echo = flow.spec.echo;
        if flow.spec.watch == Watch::Packets {
            let paths = self.paths_now(number, |info| info.end == FlowEnd::Egress && info.id == id);
            let delivery = self.delivery(stamp, paths);
            self.flows[stamp.stream as usize].record.delivered.push(delivery);
        } else if let Some(meter) = &mut self.flows[stamp.stream as usize].meter {
            meter.record(&payload, self.now);
        }
        if echo {
            let now = self.hosts[number].clock.shown_at(self.now);
            if let Some(node) = &mut self.hosts[number].node {
                node.handle_egress(id, payload, now);
            }
        }
    }

    fn answer(&mut self, number: usize, tunnel: TunnelId, payload: &[u8]) {
        self.trace.note(self.now, number, payload);
        let stamp = read(payload);
        let of_tunnel =
            |end: FlowEnd| matches!(end, FlowEnd::Ingress { tunnel: t, .. } if t == tunnel);
        let paths = self.paths_now(number, |info| of_tunnel(info.end));
        let delivery = self.delivery(stamp, paths);
        let Some(flow) = self.flows.get_mut(stamp.stream as usize) else { return };
        assert_eq!(
            (flow.from, tunnel),
            (number, tunnel_of(FlowNumber(stamp.stream as usize))),
            "an answer came out at the wrong place"
        );
        flow.record.answered.push(delivery);
    }

    fn delivery(&self, stamp: Stamp, paths: Vec<Path>) -> Delivery {
        Delivery { number: stamp.number, sent_at: stamp.sent_at, at: self.now, paths }
    }

    /// The paths by which packets of a flow came just now.
    fn paths_now(
        &self,
        number: usize,
        wanted: impl Fn(&tradewind_relay::node::edge::FlowInfo) -> bool,
    ) -> Vec<Path> {
        let host = &self.hosts[number];
        let now = host.clock.shown_at(self.now);
        let flows = host.node.iter().flat_map(|node| node.edge().flows(now));
        let arrivals = flows.filter(wanted).flat_map(|info| info.paths_rx);
        arrivals.filter(|arrival| arrival.last_at == now).map(|arrival| arrival.path).collect()
    }

    /// Notes where the routes of flows that enter here have changed.
    fn note_routes(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        let computed = host.node.as_ref().map(|node| node.control().counters().computations);
        let noted = (host.life, computed, host.tunnels.len());
        if std::mem::replace(&mut host.noted, noted) == noted {
            return;
        }
        let hosts = &self.hosts;
        let Some(node) = &hosts[number].node else { return };
        for flow in self.flows.iter_mut().filter(|flow| flow.from == number) {
            let to = hosts[flow.to].spec.id.key();
            let route = node.tables().route(flow.spec.policy, to).map(|entry| entry.primary.path);
            let routes = &mut flow.record.routes;
            if routes.last().map(|(_, path)| path) != Some(&route) {
                routes.push((self.now, route));
            }
        }
    }
}

/// What a packet says of itself: the overlay carries packets byte for byte or not at all.
fn read(payload: &[u8]) -> Stamp {
    let stamp = Stamp::read(payload);
    let Some(stamp) = stamp else { panic!("a packet of {} bytes came out damaged", payload.len()) };
    debug_assert_eq!(stream_of(FlowNumber(stamp.stream as usize)), stamp.stream);
    stamp
}
