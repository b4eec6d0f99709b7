//! The admin API: what a relay tells of itself over HTTP, as JSON under `/api/v1`.
//!
//! [`types`] are the documents, [`Query`] is a question to the relay, and [`serve`] turns
//! requests into questions. The relay is single-threaded and answers when it gets to it; a
//! question is a message with the way back in it, so that the server shares no state with the
//! packet path. The API only reads: nothing in it changes a relay.

mod server;
pub mod types;
mod world;

use tokio::sync::oneshot;
use tradewind_proto::units::{PopId, ServiceName};

pub use server::serve;
use types::{Export, Flows, Links, Ping, Route, Routes, Services, Status, Trace};

use crate::metrics::Snapshot;

/// The number in every document: within it, fields are only added.
pub const SCHEMA: u32 = 1;
/// The most flows in one answer.
pub const MAX_FLOWS: usize = 10_000;
/// The most packets of one trace to each relay.
pub const MAX_TRACE_PACKETS: u16 = 100;

/// Where an answer goes. Dropped unanswered, the asker gets "busy".
pub type Reply<T> = oneshot::Sender<Result<T, Refusal>>;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The PoP, service or policy that was asked about is unknown. Says which, and what is known.
    #[error("{0}")]
    Unknown(String),
    /// The question makes no sense. Says why.
    #[error("{0}")]
    Invalid(String),
}

/// What a route, ping or trace leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A name that may be a PoP's or a service's; a PoP's wins.
    Name(String),
    /// `service@pop`.
    Instance(ServiceName, PopId),
}

impl std::str::FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((service, pop)) = text.split_once('@') {
            let service = service.parse().map_err(|error| format!("{error}"))?;
            return Ok(Self::Instance(service, pop.parse().map_err(|error| format!("{error}"))?));
        }
        // Every name of a PoP could be a service's.
        text.parse::<ServiceName>().map_err(|error| error.to_string())?;
        Ok(Self::Name(text.into()))
    }
}

/// A question to the relay, with the way back.
#[derive(Debug)]
pub enum Query {
    /// How it is.
    Status(Reply<Status>),
    /// Its links.
    Links(Reply<Links>),
    /// Its routes to everybody: under one policy, or under each in use.
    Routes {
        /// The name of a policy; `None`: those in use.
        policy: Option<String>,
        /// The way back.
        reply: Reply<Routes>,
    },
    /// One route.
    Route {
        /// Where to.
        to: Destination,
        /// The name of a policy; `None`: no policy.
        policy: Option<String>,
        /// Whether to say why.
        explain: bool,
        /// The way back.
        reply: Reply<Route>,
    },
    /// The flows that enter or leave here.
    Flows {
        /// At most so many.
        limit: usize,
        /// The way back.
        reply: Reply<Flows>,
    },
    /// The services that it knows of.
    Services(Reply<Services>),
    /// One round trip of a real packet. Answered when it is back, or given up.
    Ping {
        /// Where to.
        to: Destination,
        /// The name of a policy; `None`: no policy.
        policy: Option<String>,
        /// The way back.
        reply: Reply<Ping>,
    },
    /// Several round trips to each relay on the way. Answered when all are back, or given up.
    Trace {
        /// Where to.
        to: Destination,
        /// The name of a policy; `None`: no policy.
        policy: Option<String>,
        /// Packets to each relay, at most [`MAX_TRACE_PACKETS`].
        packets: u16,
        /// The way back.
        reply: Reply<Trace>,
    },
    /// The link-state database.
    Export(Reply<Export>),
    /// What was counted.
    Metrics(Reply<Snapshot>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_are_read() {
        assert_eq!("sgp".parse(), Ok(Destination::Name("sgp".into())));
        let instance = Destination::Instance("sfu".parse().unwrap(), "mad".parse().unwrap());
        assert_eq!("sfu@mad".parse(), Ok(instance));
        for bad in ["", "a b", "sfu@", "@mad", "sfu@MAD"] {
            assert!(bad.parse::<Destination>().is_err(), "{bad}");
        }
    }
}
