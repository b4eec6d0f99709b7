//! The daemon's own relays, each on a thread of its own in this process.
//!
//! The only file of this crate that knows what a relay is made of.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::Deserialize;
use tokio::sync::{mpsc as commands, oneshot};
use tradewind_proto::units::PopId;
use tradewind_relay::config::Config;
use tradewind_relay::identity::{Issuer, Labels, NODE_DAYS, Subject, write_authority, write_node};
use tradewind_relay::{Command, Relay};

use crate::cluster::{RelayHost, RunningRelay};
use crate::world::{Label, Pop};

/// How long a relay may take to answer a question about its routes.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Runs [`Relay`]s.
pub struct RealRelays;

impl RelayHost for RealRelays {
    fn make_certificates(&self, pops: &[Pop], dir: &Path) -> anyhow::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let issuer = Issuer::generate(now)?;
        write_authority(&issuer, dir)?;
        for pop in pops {
            let issued = issuer.issue(&subject(pop), now, NODE_DAYS)?;
            write_node(&issued, pop.id.as_str(), dir)?;
        }
        Ok(())
    }

    fn start(&self, config: &Path, admin: SocketAddr) -> anyhow::Result<Box<dyn RunningRelay>> {
        let config = Config::load(config)?;
        let (die, dying) = oneshot::channel();
        // Without this sender the relay would leave.
        let (command, commands) = commands::channel(1);
        let (tell, bound) = mpsc::channel();
        let name = config.node.id.to_string();
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || live(config, commands, dying, &tell))?;
        bound.recv().context("the relay's thread ended while it started")??;
        let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN)).build();
        let routes = format!("http://{admin}/api/v1/routes");
        Ok(Box::new(RealRelay {
            die: Some(die),
            command,
            thread: Some(thread),
            agent: agent.into(),
            routes,
        }))
    }
}

fn subject(pop: &Pop) -> Subject {
    let text = |label: &Option<Label>| label.as_ref().map(|label| label.as_str().to_owned());
    let labels = Labels {
        region: text(&pop.region),
        country: text(&pop.country),
        provider: text(&pop.provider),
    };
    Subject { id: pop.id.clone(), labels, services: None }
}

/// The life of a relay's thread. When `dying` resolves, everything is dropped where it stands: no
/// task of the runtime is polled again, so nobody says goodbye.
fn live(
    config: Config,
    commands: commands::Receiver<Command>,
    dying: oneshot::Receiver<()>,
    tell: &mpsc::Sender<anyhow::Result<()>>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return drop(tell.send(Err(error.into()))),
    };
    let id = config.node.id.clone();
    let relay = match Relay::bind(config) {
        Ok(relay) => relay,
        Err(error) => return drop(tell.send(Err(error))),
    };
    // If nobody waits any more, `dying` resolves at once.
    let _ = tell.send(Ok(()));
    let life = async {
        tokio::select! {
            ended = relay.run(commands) => match ended {
                Ok(()) => tracing::info!(%id, "the relay has left"),
                Err(error) => tracing::error!(%id, "the relay failed: {error:#}"),
            },
            _ = dying => {}
        }
    };
    tokio::task::LocalSet::new().block_on(&runtime, life);
}

struct RealRelay {
    die: Option<oneshot::Sender<()>>,
    command: commands::Sender<Command>,
    thread: Option<JoinHandle<()>>,
    agent: ureq::Agent,
    routes: String,
}

/// What `/api/v1/routes` answers, as far as it matters here.
#[derive(Deserialize)]
struct Routes {
    routes: Vec<Route>,
}

#[derive(Deserialize)]
struct Route {
    to: PopId,
    policy: Option<String>,
    path: Vec<PopId>,
}

impl RunningRelay for RealRelay {
    fn route(&self, to: &PopId, policy: Option<&str>) -> Option<Vec<PopId>> {
        let mut answer = self.agent.get(&self.routes).call().ok()?;
        let Routes { routes } = answer.body_mut().read_json().ok()?;
        let wanted = |route: &Route| route.to == *to && route.policy.as_deref() == policy;
        routes.into_iter().find(wanted).map(|route| route.path).filter(|path| path.len() > 1)
    }

    fn leave(&self) {
        // Full or closed: it leaves already.
        let _ = self.command.try_send(Command::Leave);
    }

    /// Dropping does all of it.
    fn kill(self: Box<Self>) {}
}

impl Drop for RealRelay {
    fn drop(&mut self) {
        drop(self.die.take());
        if let Some(thread) = self.thread.take() {
            // A panic has printed its message already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
