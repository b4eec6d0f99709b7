//! What `tradewind export` wrote of a live overlay, as a world that runs.

use std::fmt::Write;

use tradewind_relay::api::types::{Export, ExportedLink};

use crate::what_if::reach;
use crate::world::{World, WorldError};

/// The most flows that are made up.
const MAX_FLOWS: usize = 200;
/// Below that a link carries little more than the overlay's own packets.
const LEAST_LOAD_MBPS: f64 = 0.1;
/// The most that one flow is made to carry.
const MOST_LOAD_MBPS: f64 = 1_000.0;

/// The world file made of a snapshot in the text of `file`, as JSON (`tradewind export --json`) or
/// as the world that `tradewind export` writes.
///
/// Traffic is what the links carried, link by link, where the snapshot tells (only JSON does): a
/// snapshot does not know of flows over several links. Otherwise it is a call's worth of audio
/// between all PoPs, or between 200 pairs, spread evenly, if there are more.
///
/// # Errors
///
/// A file that is no snapshot.
pub fn import(file: &str, text: &str) -> Result<String, WorldError> {
    let (mut world_text, links) = match text.trim_start().starts_with('{') {
        false => (text.to_owned(), Vec::new()),
        true => {
            let export: Export = serde_json::from_str(text).map_err(|error| WorldError {
                file: file.to_owned(),
                line: Some(error.line()),
                message: format!("this is no snapshot of tradewind export --json: {error}"),
            })?;
            (export.to_world(), export.links)
        }
    };
    let world = World::parse(file, &world_text)?;
    if world.traffic.is_empty() {
        let loaded = loads(&world, &links);
        world_text += &if loaded.is_empty() { uniform(&world) } else { loaded };
        World::parse(file, &world_text)?;
    }
    Ok(world_text)
}

/// A flow for each link of what it carried: the heaviest, if there are too many.
fn loads(world: &World, links: &[ExportedLink]) -> String {
    let usable = |link: &&ExportedLink| {
        let joins = |from: &str, to: &str| {
            world.links.keys().any(|(a, b)| a.as_str() == from && b.as_str() == to)
        };
        link.load_mbps >= LEAST_LOAD_MBPS
            && joins(&link.from, &link.to)
            && joins(&link.to, &link.from)
    };
    let mut loaded: Vec<&ExportedLink> = links.iter().filter(usable).collect();
    loaded.sort_by(|a, b| b.load_mbps.total_cmp(&a.load_mbps));
    let mut text = String::new();
    for link in loaded.into_iter().take(MAX_FLOWS) {
        let (from, to, load) = (&link.from, &link.to, link.load_mbps.min(MOST_LOAD_MBPS));
        // Writing to a string can't fail.
        let _ = write!(
            text,
            "\n[[traffic]]\nname = \"load-{from}-{to}\"\nfrom = \"{from}\"\nto = \"{to}\"\n\
             rate = \"{load}Mbit\"\nsize = 1200\n"
        );
    }
    text
}

/// Audio between PoPs that can reach each other.
fn uniform(world: &World) -> String {
    let count = world.pops.len();
    let targets = (MAX_FLOWS / count).clamp(1, count - 1);
    let mut text = String::new();
    for (at, from) in world.pops.iter().enumerate() {
        let reached = reach(world, &from.id, None);
        for target in 0..targets {
            let to = &world.pops[(at + 1 + target * (count - 1) / targets) % count].id;
            if !reached.contains(to) {
                continue;
            }
            let from = &from.id;
            let _ = write!(
                text,
                "\n[[traffic]]\nname = \"{from}-{to}\"\nfrom = \"{from}\"\nto = \"{to}\"\n\
                 class = \"audio\"\npps = 50\nsize = 160\n"
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use tradewind_relay::api::types::ExportedPop;

    use super::*;
    use crate::progress::Silent;
    use crate::simulation;

    /// As a relay answers: three PoPs in a row, one link down, one to a relay that is gone.
    fn export(load_mbps: f64) -> Export {
        let pop = |id: &str| ExportedPop { id: id.into(), ..ExportedPop::default() };
        let link = |from: &str, to: &str, up| ExportedLink {
            from: from.into(),
            to: to.into(),
            up,
            delay_ms: 15.0,
            jitter_ms: 0.2,
            rtt_ms: 30.0,
            loss: 0.01,
            burst: 2.0,
            capacity_mbps: None,
            load_mbps,
        };
        let pairs = [("fra", "mad"), ("mad", "fra"), ("mad", "sgp"), ("sgp", "mad")];
        let mut links: Vec<_> = pairs.iter().map(|(from, to)| link(from, to, true)).collect();
        links.push(link("fra", "sgp", false));
        links.push(link("fra", "0a1b2c3d", true));
        Export {
            node: "fra".into(),
            at: "2026-01-01T00:00:00Z".into(),
            pops: ["fra", "mad", "sgp"].map(pop).into(),
            links,
        }
    }

    fn json(export: &Export) -> String {
        serde_json::to_string(export).unwrap()
    }

    #[test]
    fn what_a_relay_exports_runs() {
        for text in [export(0.0).to_world(), json(&export(0.0))] {
            let text = import("snapshot", &text).unwrap();
            let world = World::parse("snapshot", &text).unwrap();
            assert_eq!((world.pops.len(), world.links.len(), world.traffic.len()), (3, 4, 6));
            let world = World { duration: std::time::Duration::from_secs(20), ..world };
            let outcome = simulation::run(&world, &mut Silent).unwrap();
            for flow in &outcome.flows {
                assert!(flow.overlay.in_time_share() > 0.99, "{flow:?}");
            }
            // What has traffic stays as it is.
            assert_eq!(import("snapshot", &text).unwrap(), text);
        }
    }

    #[test]
    fn what_the_links_carried_becomes_traffic() {
        let text = import("snapshot.json", &json(&export(2.5))).unwrap();
        let world = World::parse("snapshot", &text).unwrap();
        let names: Vec<_> = world.traffic.iter().map(|traffic| traffic.name.as_str()).collect();
        assert_eq!(names, ["load-fra-mad", "load-mad-fra", "load-mad-sgp", "load-sgp-mad"]);
        let bits = 1200.0 * 8.0 / world.traffic[0].interval.as_secs_f64();
        assert!((bits - 2.5e6).abs() < 1.0, "{bits}");
    }

    #[test]
    fn traffic_that_is_made_up_is_bounded() {
        let mut text = String::new();
        for pop in 0..300 {
            let _ = write!(text, "[[pop]]\nid = \"p{pop}\"\n");
        }
        for pop in 0..299 {
            let _ = write!(text, "[[link]]\nbetween = [\"p{pop}\", \"p{}\"]\n", pop + 1);
        }
        let world = World::parse("row", &import("row", &text).unwrap()).unwrap();
        assert_eq!(world.traffic.len(), 299);
    }

    #[test]
    fn what_is_no_snapshot_is_told_with_its_line() {
        let error = import("x.json", "{\n \"node\": 3 }").unwrap_err().to_string();
        assert!(
            error.starts_with("x.json:2: this is no snapshot of tradewind export --json"),
            "{error}"
        );
        let error = import("x.toml", "[run]\nsead = 1\n").unwrap_err().to_string();
        assert_eq!(error, "x.toml:2: unknown key \"sead\"; did you mean \"seed\"?");
    }
}
