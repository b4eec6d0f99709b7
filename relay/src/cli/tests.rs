//! The command line is parsed, its help is there, and it talks to a relay's API over HTTP.

use clap::CommandFactory;
use tokio::sync::mpsc;

use super::client::Client;
use super::*;
use crate::api::types::{Flows, Links, Ping, Route, Routes, Status, Trace};
use crate::api::{self, Destination, Query, Refusal};
use crate::metrics::Snapshot;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_contract_is_understood() {
    for line in [
        "tradewind relay --config fra.toml",
        "tradewind relay --config fra.toml --set overlay.mtu=1400 --set node.id=fra",
        "tradewind check --config fra.toml",
        "tradewind cert ca --out keys",
        "tradewind cert node --ca keys --id fra --out keys",
        "tradewind cert node --ca keys --id fra --region EU --country DE --provider x --service a --service b --days 30 --out keys",
        "tradewind status --api http://127.0.0.1:1 --json",
        "tradewind links",
        "tradewind routes --policy eu-only",
        "tradewind route sgp --policy eu-only --explain",
        "tradewind flows --limit 5",
        "tradewind services",
        "tradewind trace sgp -c 3",
        "tradewind ping sgp -c 3",
        "tradewind export",
        "tradewind completions zsh",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
    for line in [
        "tradewind",
        "tradewind relay",
        "tradewind cert node --ca keys --id FRA --out keys",
        "tradewind cert node --ca keys --id fra --region E/U --out keys",
        "tradewind cert node --ca keys --id fra --days 0 --out keys",
        "tradewind route",
        "tradewind ping sgp -c 0",
        "tradewind trace sgp -c 101",
        "tradewind completions cmd.exe",
    ] {
        let error = parse(line).expect_err(line);
        assert_eq!(error.exit_code(), 2, "{line}");
    }
}

#[test]
fn every_help_text_has_an_example_and_fits_a_terminal() {
    fn walk(command: &mut clap::Command, name: &str, seen: &mut usize) {
        let help = command.render_long_help().to_string();
        assert!(command.get_about().is_some(), "{name} does not say what it does");
        assert!(name == "tradewind cert" || help.contains("Example"), "{name} has no example");
        for line in help.lines().filter(|line| !line.contains("Usage:")) {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
        *seen += 1;
        for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
            let name = format!("{name} {}", sub.get_name());
            walk(sub, &name, seen);
        }
    }
    let mut seen = 0;
    walk(&mut Cli::command(), "tradewind", &mut seen);
    assert_eq!(seen, 16);
}

#[test]
fn a_bad_configuration_is_wrong_usage_and_the_rest_failure() {
    let missing = Source::new(std::path::Path::new("/nowhere.toml"), &[]).unwrap();
    let error = anyhow::Error::from(missing.load().unwrap_err()).context("while starting");
    assert_eq!(status(&error), 2);
    assert_eq!(status(&anyhow::anyhow!("port in use")), 1);
}

/// Answers like a relay with one neighbour.
fn reply(query: Query) {
    let node = || "fra".to_owned();
    let to = |to: &Destination| match to {
        Destination::Name(name) => name.clone(),
        Destination::Instance(service, pop) => format!("{service}@{pop}"),
    };
    let path = || vec!["fra".into(), "sgp".into()];
    // Whether somebody still waits for the answer does not matter here.
    let _ = match query {
        Query::Status(reply) => {
            let not_ready = Some("no link is up".into());
            reply.send(Ok(Status { node: node(), not_ready, ..Status::default() })).is_ok()
        }
        Query::Links(reply) => reply.send(Ok(Links { node: node(), links: vec![] })).is_ok(),
        Query::Routes { reply, .. } => {
            reply.send(Ok(Routes { node: node(), routes: vec![] })).is_ok()
        }
        Query::Route { to: Destination::Name(name), reply, .. } if name == "nowhere" => reply
            .send(Err(Refusal::Unknown("there is no PoP or service \"nowhere\"".into())))
            .is_ok(),
        Query::Route { to: dst, policy, reply, .. } => {
            let route = Route { node: node(), to: Some(to(&dst)), policy, ..Route::default() };
            reply.send(Ok(route)).is_ok()
        }
        Query::Flows { limit, reply } => {
            reply.send(Ok(Flows { node: node(), total: limit, flows: vec![] })).is_ok()
        }
        Query::Ping { to: dst, reply, .. } => {
            let ping = Ping { node: node(), to: to(&dst), path: path(), rtt_ms: Some(1.5) };
            reply.send(Ok(ping)).is_ok()
        }
        Query::Trace { to: dst, packets, reply, .. } => {
            let hop = api::types::Hop { sent: packets.into(), ..Default::default() };
            reply.send(Ok(Trace { node: node(), to: to(&dst), hops: vec![hop] })).is_ok()
        }
        Query::Metrics(reply) => reply.send(Ok(Snapshot::default())).is_ok(),
        // As a relay that stops: the way back is dropped.
        Query::Services(_) | Query::Export(_) => false,
    };
}

/// The API of a made-up relay; it ends with the process.
fn relay() -> String {
    let (tell, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let (queries, mut relay) = mpsc::channel(4);
            tokio::spawn(api::serve(listener, queries, std::future::pending()));
            while let Some(query) = relay.recv().await {
                reply(query);
            }
        });
    });
    address.recv().unwrap().to_string()
}

#[test]
fn questions_get_answers() {
    let client = Client::new(&relay());
    let status: Status = client.get("status", &[]).unwrap().body;
    assert_eq!(status.node, "fra");
    let links = client.get::<Links>("links", &[]).unwrap();
    assert_eq!(links.json, r#"{"schema":1,"node":"fra","links":[]}"#);
    let route: Route =
        client.get("route", &[("to", "sfu@mad"), ("policy", "eu-only")]).unwrap().body;
    assert_eq!((route.to.as_deref(), route.policy.as_deref()), (Some("sfu@mad"), Some("eu-only")));
    let trace: Trace = client.get("trace", &[("to", "sgp"), ("packets", "5000")]).unwrap().body;
    assert_eq!(trace.hops[0].sent, 100);
    let ping: Ping = client.get("ping", &[("to", "sgp")]).unwrap().body;
    assert_eq!(ping.rtt_ms, Some(1.5));
    let flows: Flows = client.get("flows", &[("limit", "999999")]).unwrap().body;
    assert_eq!(flows.total, api::MAX_FLOWS);
}

#[test]
fn what_goes_wrong_is_said_in_one_sentence() {
    let api = relay();
    let client = Client::new(&api);
    for (page, parameters, sentence) in [
        ("route", &[("to", "nowhere")][..], "there is no PoP or service \"nowhere\""),
        ("services", &[], "the relay is stopping"),
        ("weather", &[], "no such page; see /api/v1/status"),
        (
            "flows",
            &[("limit", "many")],
            "the parameters can't be read: limit: \"many\" is refused, invalid digit found in string",
        ),
        (
            "trace",
            &[("to", "sgp"), ("packets", "70000")],
            "the parameters can't be read: packets: \"70000\" is refused, number too large to fit in target type",
        ),
        (
            "route",
            &[("to", "sgp"), ("explain", "maybe")],
            "the parameters can't be read: explain: \"maybe\" is refused, provided string was not `true` or `false`",
        ),
        ("ping", &[], "the parameters can't be read: missing field `to`"),
        (
            "ping",
            &[("to", "sgp"), ("form", "fra")],
            "the parameters can't be read: form: unknown field `form`, expected `to` or `policy`",
        ),
    ] {
        let error = client.get::<Links>(page, parameters).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(sentence), "{page}");
    }
    let nobody = Client::new("127.0.0.1:1").get::<Links>("links", &[]).err().unwrap();
    assert_eq!(
        nobody.to_string(),
        "no relay answers at http://127.0.0.1:1 (Connection refused (os error 111)); start one with `tradewind relay --config FILE`, or say where it is with --api URL"
    );
}

#[test]
fn the_pages_for_machines_are_there() {
    let api = relay();
    let get = |page: &str| {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
        let mut answer = agent.get(format!("http://{api}{page}")).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    };
    assert_eq!(get("/healthz"), (200, "the process lives\n".into()));
    assert_eq!(get("/readyz"), (503, "no link is up\n".into()));
    assert_eq!(get("/metrics"), (200, "# EOF\n".into()));
}
