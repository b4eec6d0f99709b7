//! The same scenarios with the daemon's relays, real sockets and real time, on loopback.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tradewind_relay::api::types::{Document, Links};
use tradewind_simulator::cluster::{RelayHost, RunningRelay};
use tradewind_simulator::emulation;
use tradewind_simulator::emulator::EmulatorHealth;
use tradewind_simulator::outcome::{FlowOutcome, Outcome};
use tradewind_simulator::progress::{Progress, Tick};
use tradewind_simulator::relays::RealRelays;
use tradewind_simulator::world::{Pop, World};

use crate::figures::{Figures, Spent};
use crate::scenario::{Losses, PhaseSpec, Runs, Scenario};
use crate::{HEADER, table};

/// How long a relay may take to say what it counted.
const ANSWER_WITHIN: Duration = Duration::from_millis(500);

/// Runs the scenarios one after the other and prints their rows.
pub fn print(scenarios: &[Scenario], seconds: u32) -> anyhow::Result<()> {
    let mut header = HEADER.to_vec();
    header[1] = "emulator late, median / p99 / most ms";
    let mut table = table(&header);
    for scenario in scenarios {
        let scenario = scenario.lasting(seconds);
        let (figures, health) = run(&scenario)?;
        let late = health.lateness.map(|late| format!("{:.2}", late.as_secs_f64() * 1e3));
        let late = match health.overflow {
            0 => late.join(" / "),
            lost => format!("{}, {lost} lost", late.join(" / ")),
        };
        for (spec, figures) in scenario.phases.iter().zip(figures) {
            let Some((name, must)) = &spec.row else { continue };
            let mut row = vec![name.clone(), late.clone()];
            row.extend(figures.cells(&scenario, *must));
            table.add_row(row);
        }
        eprintln!("{table}\n");
    }
    println!("{table}");
    println!(
        "The daemon's relays on loopback through the emulator, one run of {seconds} s a row (steps: 12 s) after 2 s \
         not counted. sent/data is from the relays' counters; wire is what the emulator carried, whatever it was."
    );
    Ok(())
}

/// What became of each phase, and how well the emulator did.
fn run(scenario: &Scenario) -> anyhow::Result<(Vec<Figures>, EmulatorHealth)> {
    let world = World::parse("bench-recovery", &world(scenario)?)?;
    let relays = Relays::default();
    let learned = scenario.span(scenario.phases.first().map_or(0, |phase| phase.packets));
    let mut counts = Counts { relays: &relays, scenario, learned, before: None, after: None };
    let outcome = emulation::run(&world, &relays, &mut counts)?;
    let shards = counts.before.zip(counts.after).map(|(before, after)| {
        let spent = |shards| Spent { shards, ..Spent::default() };
        spent(after).since(&spent(before)).worst()
    });
    // Of the whole run; it says nothing of a phase where there are several.
    let steady = scenario.rows().count() == 1;
    let wire = wire(&outcome, scenario);
    let figures = |flow: &FlowOutcome| Figures {
        shards: shards.filter(|_| steady),
        wire: steady.then_some(wire),
        ..Figures::of(&flow.overlay)
    };
    let health = outcome.emulator.clone().unwrap_or_default();
    Ok((outcome.flows.iter().map(figures).collect(), health))
}

/// Bytes on a hop for each byte of payload, with the packets and against them.
fn wire(outcome: &Outcome, scenario: &Scenario) -> [f64; 2] {
    let all = outcome.wire.bytes as f64 / (outcome.wire.payload * scenario.hops as u64) as f64;
    let [mut onward, mut back] = [0, 0];
    for link in &outcome.links {
        let (from, to) = &link.link;
        *if from < to { &mut onward } else { &mut back } += link.counters.offered_bytes;
    }
    let back = all * back as f64 / (onward + back) as f64;
    [all - back, back]
}

/// A world of relays `p0` to `pN` in a row, with a flow for each phase.
fn world(scenario: &Scenario) -> anyhow::Result<String> {
    let millis = |span: Duration| format!("\"{}us\"", span.as_micros());
    let spans = scenario.phases.iter().map(|phase| scenario.span(phase.packets));
    let whole: Duration = spans.clone().sum();
    let mut text = format!("[run]\nduration = {}\n", millis(whole));
    for at in 0..=scenario.hops {
        writeln!(text, "[[pop]]\nid = \"p{at}\"")?;
    }
    let between = |hop| format!("[\"p{hop}\", \"p{}\"]", hop + 1);
    for hop in 0..scenario.hops {
        let delay = millis(scenario.one_way());
        writeln!(text, "[[link]]\nbetween = {}\ndelay = {delay}", between(hop))?;
    }
    let mut start = Duration::ZERO;
    for (PhaseSpec { loss, .. }, span) in scenario.phases.iter().zip(spans) {
        let stop = start + span;
        for hop in 0..scenario.hops {
            let (at, keys) = (millis(start), loss.keys());
            writeln!(text, "[[event]]\nat = {at}\ndegrade = {}\n{keys}", between(hop))?;
        }
        writeln!(text, "[[traffic]]\nfrom = \"p0\"\nto = \"p{}\"", scenario.hops)?;
        writeln!(
            text,
            "class = \"{}\"\ndeadline = {}",
            class(scenario),
            millis(scenario.deadline())
        )?;
        writeln!(text, "size = {}\npps = {}", scenario.payload, scenario.pps)?;
        writeln!(text, "start = {}\nstop = {}", millis(start), millis(stop))?;
        start = stop;
    }
    Ok(text)
}

fn class(scenario: &Scenario) -> &'static str {
    use tradewind_proto::units::Class;
    match scenario.class {
        Class::Audio => "audio",
        Class::Video => "video",
        Class::Bulk => "bulk",
    }
}

impl Scenario {
    /// The same with so many seconds of the last phase, unless it goes in steps.
    fn lasting(&self, seconds: u32) -> Self {
        let mut scenario = self.clone();
        if let [_, measured] = &mut scenario.phases[..] {
            measured.packets = self.pps * seconds;
        }
        scenario
    }
}

impl Losses {
    /// As a world file has it.
    fn keys(self) -> String {
        match self.runs {
            Runs::Single => format!("loss = {}", self.share),
            Runs::Packets(mean) => format!("loss = {}\nburst = {mean:?}", self.share),
            Runs::Time(mean) => {
                format!("loss = {}\nburst = \"{}us\"", self.share, mean.as_micros())
            }
        }
    }
}

/// Real relays that can be asked for what they counted.
#[derive(Default)]
struct Relays {
    admins: Mutex<BTreeMap<String, SocketAddr>>,
}

impl RelayHost for Relays {
    fn make_certificates(&self, pops: &[Pop], dir: &Path) -> anyhow::Result<()> {
        RealRelays.make_certificates(pops, dir)
    }

    fn start(&self, config: &Path, admin: SocketAddr) -> anyhow::Result<Box<dyn RunningRelay>> {
        let name = config.file_stem().context("a configuration without a name")?;
        let name = name.to_string_lossy().into_owned();
        self.admins.lock().unwrap_or_else(PoisonError::into_inner).insert(name, admin);
        RealRelays.start(config, admin)
    }
}

impl Relays {
    /// Shards sent so far from `p0` towards `pN`, per hop: those of data, and all.
    fn shards(&self, hops: usize) -> Option<Vec<(u64, u64)>> {
        let agent = ureq::Agent::config_builder().timeout_global(Some(ANSWER_WITHIN)).build();
        let agent = ureq::Agent::from(agent);
        let admins = self.admins.lock().unwrap_or_else(PoisonError::into_inner);
        let shards = |hop: usize| {
            let admin = admins.get(&format!("p{hop}"))?;
            let mut answer = agent.get(format!("http://{admin}/api/v1/links")).call().ok()?;
            let links: Document<Links> = answer.body_mut().read_json().ok()?;
            let to = format!("p{}", hop + 1);
            let counters = links.body.links.iter().find(|link| link.neighbour == to)?.counters;
            let more = counters.parity_tx + counters.repeat_tx;
            Some((counters.data_tx, counters.data_tx + more))
        };
        (0..hops).map(shards).collect()
    }
}

/// Asks the relays once the first phase is over, and shortly before the end.
struct Counts<'a> {
    relays: &'a Relays,
    scenario: &'a Scenario,
    learned: Duration,
    before: Option<Vec<(u64, u64)>>,
    after: Option<Vec<(u64, u64)>>,
}

impl Progress for Counts<'_> {
    fn note(&mut self, line: &str) {
        eprintln!("{line}");
    }

    fn tick(&mut self, state: &Tick<'_>) {
        let ask = || self.relays.shards(self.scenario.hops);
        if self.before.is_none() && state.elapsed >= self.learned {
            self.before = ask();
        }
        if state.total.saturating_sub(state.elapsed) < Duration::from_millis(500) {
            self.after = ask();
        }
    }
}
