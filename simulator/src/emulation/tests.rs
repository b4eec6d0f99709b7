//! The whole machinery with relays that are none: they forward UDP along a path fixed beforehand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::Context;

use super::*;
use crate::cluster::RunningRelay;
use crate::world::Pop;

const WORLD: &str = r#"
[run]
duration = "1s"
warmup = "0s"
[[pop]]
id = "a"
[[pop]]
id = "b"
[[pop]]
id = "x"
[[pop]]
id = "y"
[[link]]
between = ["a", "b"]
delay = "80ms"
loss = "20%"
[[link]]
between = ["a", "x"]
delay = "10ms"
[[link]]
between = ["x", "b"]
delay = "10ms"
[[link]]
between = ["a", "y"]
delay = "15ms"
[[link]]
between = ["y", "b"]
delay = "15ms"
[[traffic]]
name = "media"
from = "a"
to = "b"
pps = 200
size = 400
deadline = "1s"
[[event]]
at = "500ms"
kill_relay_of = "media"
"#;

/// Sends everything over the first of `x` and `y` that lives.
#[derive(Default)]
struct ToyHost {
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    advertised: BTreeMap<String, SocketAddr>,
    sink: Option<SocketAddr>,
    dead: BTreeSet<String>,
}

struct ToyRelay {
    id: String,
    known: Arc<Mutex<Known>>,
    stopping: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Known {
    fn middle(&self) -> &'static str {
        if self.dead.contains("x") { "y" } else { "x" }
    }

    fn next_hop(&self, id: &str) -> Option<SocketAddr> {
        match id {
            "a" => self.advertised.get(self.middle()).copied(),
            "b" => self.sink,
            _ => self.advertised.get("b").copied(),
        }
    }
}

fn address(table: &toml::Table, section: &str, key: &str) -> Option<SocketAddr> {
    let section = match &table[section] {
        toml::Value::Array(all) => all.first()?,
        one => one,
    };
    section.get(key)?.as_str()?.parse().ok()
}

impl RelayHost for ToyHost {
    fn make_certificates(&self, pops: &[Pop], dir: &Path) -> anyhow::Result<()> {
        assert_eq!(pops.len(), 4);
        assert!(dir.is_dir());
        Ok(())
    }

    fn start(&self, config: &Path, _: SocketAddr) -> anyhow::Result<Box<dyn RunningRelay>> {
        let table: toml::Table = std::fs::read_to_string(config)?.parse()?;
        let id = table["node"]["id"].as_str().context("no id")?.to_owned();
        let stopping = Arc::new(AtomicBool::new(false));
        let overlay = Arc::new(UdpSocket::bind(address(&table, "overlay", "listen").unwrap())?);
        let mut entrances = vec![overlay.clone()];
        if let Some(tunnel) = address(&table, "tunnel", "listen") {
            assert_eq!(table["tunnel"][0]["service"].as_str(), Some("sink-1@b"));
            assert_eq!(table["tunnel"][0]["deadline"].as_str(), Some("1000000us"));
            entrances.push(Arc::new(UdpSocket::bind(tunnel)?));
        }
        {
            let mut known = self.known.lock().unwrap();
            let advertised = address(&table, "overlay", "advertise").unwrap();
            known.advertised.insert(id.clone(), advertised);
            known.sink = address(&table, "service", "target").or(known.sink);
        }
        let threads = entrances.into_iter().map(|entrance| {
            let (id, known, stop, out) =
                (id.clone(), self.known.clone(), stopping.clone(), overlay.clone());
            std::thread::spawn(move || forward(&id, &entrance, &out, &known, &stop))
        });
        let threads = threads.collect();
        Ok(Box::new(ToyRelay { id, known: self.known.clone(), stopping, threads }))
    }
}

fn forward(
    id: &str,
    entrance: &UdpSocket,
    out: &UdpSocket,
    known: &Mutex<Known>,
    stop: &AtomicBool,
) {
    entrance.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((len, _)) = entrance.recv_from(&mut buffer)
            && let Some(next) = known.lock().unwrap().next_hop(id)
        {
            out.send_to(&buffer[..len], next).unwrap();
        }
    }
}

impl RunningRelay for ToyRelay {
    fn route(&self, to: &PopId, _: Option<&str>) -> Option<Vec<PopId>> {
        let middle = self.known.lock().unwrap().middle();
        Some(vec![self.id.parse().unwrap(), middle.parse().unwrap(), to.clone()])
    }

    fn leave(&self) {
        self.known.lock().unwrap().dead.insert(self.id.clone());
    }

    fn kill(self: Box<Self>) {
        self.known.lock().unwrap().dead.insert(self.id.clone());
    }
}

impl Drop for ToyRelay {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

#[derive(Default)]
struct Heard {
    notes: Vec<String>,
    ticks: usize,
}

impl Progress for Heard {
    fn note(&mut self, line: &str) {
        self.notes.push(line.into());
    }

    fn tick(&mut self, state: &Tick<'_>) {
        assert_eq!((state.total, state.flows.len()), (Duration::from_secs(1), 1));
        self.ticks += 1;
    }
}

#[test]
fn a_world_runs_from_start_to_outcome() {
    let world = World::parse("test", WORLD).unwrap();
    let mut heard = Heard::default();
    let outcome = run(&world, &ToyHost::default(), &mut heard).unwrap();
    let flow = &outcome.flows[0];
    let direct = flow.direct.as_ref().unwrap();
    assert_eq!((flow.overlay.sent, direct.sent), (200, 200));
    // Two links of 10 or 15 ms, without loss but what the dying relay held.
    assert!(flow.overlay.delivered >= 185, "{flow:?}");
    assert!(flow.overlay.delay_median_ms().unwrap() >= 20.0);
    assert!((15..=70).contains(&direct.lost()), "{direct:?}");
    assert!(direct.delay_median_ms().unwrap() >= 80.0);
    assert_eq!(
        (flow.route_before().as_str(), flow.route_after().as_str()),
        ("a > x > b", "a > y > b")
    );
    assert_eq!(outcome.happened[0].1, "relay x killed, it carried \"media\"");
    assert!(heard.ticks >= 2 && heard.notes.len() == 3, "{:?}", heard.notes);
    assert!(outcome.overlay_is_better());
    // 400 bytes and 28 of headers, twice.
    assert!((outcome.wire.per_payload_byte() - 2.14).abs() < 0.1, "{:?}", outcome.wire);
    assert!((outcome.wire.per_crossing() - 1.07).abs() < 0.05, "{:?}", outcome.wire);
    let json = outcome.to_json();
    assert_eq!(json["flows"][0]["routes"][0]["path"][1], "x");
    assert!(outcome.flow_table().to_string().contains("overlay"));
    assert!(outcome.link_table().to_string().contains("a > x"));
}
