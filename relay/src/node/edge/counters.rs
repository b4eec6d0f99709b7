//! What the edge counts: packets in and out, and every packet that went nowhere, by reason.

/// Why a packet went no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The tunnel is gone, or the port lies outside its range.
    UnknownTunnel,
    /// There are as many flows as there may be, and none is idle enough to make room.
    TooManyFlows,
    /// No relay that can be reached under the policy advertises the service.
    NoInstance,
    /// The routes under the policy have not been computed yet.
    RoutesPending,
    /// No way is allowed, or none is left.
    NoRoute,
    /// The egress refused the flow a moment ago.
    Refused,
    /// The tunnel has more ports than the service.
    PortOutOfRange,
    /// Larger than a UDP payload may be, or than 255 fragments carry.
    TooLarge,
    /// The driver does not take outputs off fast enough.
    Backlog,
    /// A packet of a flow that is not known here.
    UnknownFlow,
    /// A packet that does not end here, or comes from a relay that is not the flow's other end.
    Misrouted,
    /// A signal that can't be read, or makes no sense here.
    BadSignal,
    /// A packet or fragment that was there already.
    Duplicate,
    /// A packet so far behind that nobody knows whether it was there already.
    TooOld,
    /// A fragment that contradicts others.
    BadFragment,
    /// A payload given up because a fragment was missing at its deadline, or for lack of room.
    Incomplete,
    /// A fragment while as many flows as may wait for fragments of theirs.
    ReassemblyFull,
}

impl DropReason {
    /// Every reason.
    pub const ALL: [Self; 17] = [
        Self::UnknownTunnel,
        Self::TooManyFlows,
        Self::NoInstance,
        Self::RoutesPending,
        Self::NoRoute,
        Self::Refused,
        Self::PortOutOfRange,
        Self::TooLarge,
        Self::Backlog,
        Self::UnknownFlow,
        Self::Misrouted,
        Self::BadSignal,
        Self::Duplicate,
        Self::TooOld,
        Self::BadFragment,
        Self::Incomplete,
        Self::ReassemblyFull,
    ];

    /// As metrics and `flows` write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnknownTunnel => "unknown_tunnel",
            Self::TooManyFlows => "too_many_flows",
            Self::NoInstance => "no_instance",
            Self::RoutesPending => "routes_pending",
            Self::NoRoute => "no_route",
            Self::Refused => "refused",
            Self::PortOutOfRange => "port_out_of_range",
            Self::TooLarge => "too_large",
            Self::Backlog => "backlog",
            Self::UnknownFlow => "unknown_flow",
            Self::Misrouted => "misrouted",
            Self::BadSignal => "bad_signal",
            Self::Duplicate => "duplicate",
            Self::TooOld => "too_old",
            Self::BadFragment => "bad_fragment",
            Self::Incomplete => "incomplete",
            Self::ReassemblyFull => "reassembly_full",
        }
    }
}

/// How many packets were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropCounts([u64; DropReason::ALL.len()]);

impl DropCounts {
    /// How many for this reason.
    pub const fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    /// The reasons that occurred, and how often.
    pub fn occurred(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.of(reason))).filter(|&(_, n)| n > 0)
    }

    pub(super) fn add(&mut self, reason: DropReason, times: u64) {
        self.0[reason as usize] += times;
    }
}

/// Plain counters of the edge, from its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdgeCounters {
    /// Packets that local programs sent into tunnels.
    pub tunnel_rx: u64,
    /// Their bytes.
    pub tunnel_rx_bytes: u64,
    /// Answers handed to local programs.
    pub tunnel_tx: u64,
    /// Their bytes.
    pub tunnel_tx_bytes: u64,
    /// Packets handed to services.
    pub service_tx: u64,
    /// Their bytes.
    pub service_tx_bytes: u64,
    /// Answers that services gave.
    pub service_rx: u64,
    /// Their bytes.
    pub service_rx_bytes: u64,
    /// Packets put into the overlay: each fragment and each copy counts, signals too.
    pub overlay_tx: u64,
    /// Packets whose path ended here.
    pub overlay_rx: u64,
    /// Flows begun at tunnels.
    pub ingress_opened: u64,
    /// Flows ended at tunnels, for whatever reason.
    pub ingress_closed: u64,
    /// Flows begun at services.
    pub egress_opened: u64,
    /// Flows ended at services, for whatever reason.
    pub egress_closed: u64,
    /// Flows that ended early, at either end, to make room for others.
    pub evicted: u64,
    /// Flows that moved to another instance of their service.
    pub reopened: u64,
    /// Flows begun anew because their egress had forgotten them.
    pub reset: u64,
    /// Refusals that came from egresses.
    pub refusals_rx: u64,
    /// Signals sent.
    pub signals_tx: u64,
    /// Signals not sent because the same flow had one a moment ago.
    pub signals_held: u64,
    /// Wishes for routes not passed on because too many were waiting.
    pub wishes_held: u64,
    /// Packets and payloads that went nowhere.
    pub drops: DropCounts,
}

/// Counts a drop twice: for its flow, and for the whole edge.
pub(super) struct Tally<'a> {
    pub(super) flow: &'a mut DropCounts,
    pub(super) total: &'a mut DropCounts,
}

impl Tally<'_> {
    pub(super) fn add(&mut self, reason: DropReason, times: u64) {
        self.flow.add(reason, times);
        self.total.add(reason, times);
    }
}
