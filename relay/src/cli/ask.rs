//! One function for each command that asks a relay.

use std::time::Duration;

use anyhow::bail;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::{Answer, Client};
use super::{ApiArgs, DestinationArgs, explain, print, tables};
use crate::api::types::{
    Document, Export, Flows, Links, Ping, Route, Routes, Services, Status, Trace,
};

/// Asks, and prints either the document or what `show` makes of it.
fn ask<T: DeserializeOwned>(
    api: &ApiArgs,
    page: &str,
    parameters: &[(&str, &str)],
    show: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let Answer { json, body } = Client::new(&api.api).get(page, parameters)?;
    print(&if api.json { json + "\n" } else { show(&body) })
}

fn to(args: &DestinationArgs) -> Vec<(&'static str, &str)> {
    let policy = args.policy.as_deref().map(|policy| ("policy", policy));
    [("to", args.to.as_str())].into_iter().chain(policy).collect()
}

pub(super) fn status(api: &ApiArgs) -> anyhow::Result<()> {
    ask(api, "status", &[], |status: &Status| tables::status(status))
}

pub(super) fn links(api: &ApiArgs) -> anyhow::Result<()> {
    ask(api, "links", &[], |links: &Links| tables::links(links))
}

pub(super) fn routes(api: &ApiArgs, policy: Option<&str>) -> anyhow::Result<()> {
    let policy: Vec<_> = policy.map(|policy| ("policy", policy)).into_iter().collect();
    ask(api, "routes", &policy, |routes: &Routes| tables::routes(routes))
}

/// Exit status 1 where there is no route.
pub(super) fn route(api: &ApiArgs, dst: &DestinationArgs, explain: bool) -> anyhow::Result<()> {
    let mut parameters = to(dst);
    if explain {
        parameters.push(("explain", "true"));
    }
    let Answer { json, body } = Client::new(&api.api).get::<Route>("route", &parameters)?;
    if api.json {
        print(&(json + "\n"))?;
    } else {
        print(&match &body.explanation {
            Some(explanation) => explain::text(explanation)?,
            None => tables::route(&body),
        })?;
    }
    match body.refused {
        Some(why) => bail!("no route to {}: {why}", dst.to),
        None => Ok(()),
    }
}

pub(super) fn flows(api: &ApiArgs, limit: Option<usize>) -> anyhow::Result<()> {
    let limit = limit.map(|limit| limit.to_string());
    let limit: Vec<_> = limit.iter().map(|limit| ("limit", limit.as_str())).collect();
    ask(api, "flows", &limit, |flows: &Flows| tables::flows(flows))
}

pub(super) fn services(api: &ApiArgs) -> anyhow::Result<()> {
    ask(api, "services", &[], |services: &Services| tables::services(services))
}

pub(super) fn trace(api: &ApiArgs, dst: &DestinationArgs, count: u16) -> anyhow::Result<()> {
    let count = count.to_string();
    let mut parameters = to(dst);
    parameters.push(("packets", &count));
    ask(api, "trace", &parameters, |trace: &Trace| tables::trace(trace))
}

pub(super) fn export(api: &ApiArgs) -> anyhow::Result<()> {
    ask(api, "export", &[], Export::to_world)
}

/// One round trip a second; each is printed when it is back.
pub(super) fn ping(api: &ApiArgs, dst: &DestinationArgs, count: u32) -> anyhow::Result<()> {
    let client = Client::new(&api.api);
    let mut pings: Vec<Ping> = Vec::new();
    for number in 0..count {
        if number > 0 {
            std::thread::sleep(Duration::from_secs(1));
        }
        let ping: Ping = client.get("ping", &to(dst))?.body;
        if !api.json {
            print(&tables::ping(&ping))?;
        }
        pings.push(ping);
    }
    let answered = pings.iter().any(|ping| ping.rtt_ms.is_some());
    print(&if api.json { pings_json(&pings)? } else { tables::pings(&pings) })?;
    if answered { Ok(()) } else { bail!("nothing came back from {}", dst.to) }
}

/// What came back, as one document.
#[derive(Serialize)]
struct Pings<'a> {
    pings: &'a [Ping],
}

fn pings_json(pings: &[Ping]) -> anyhow::Result<String> {
    Ok(serde_json::to_string(&Document::new(Pings { pings }))? + "\n")
}
