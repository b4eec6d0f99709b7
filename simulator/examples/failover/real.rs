//! The cases without loss with real relays: all twenty on threads of this process, real sockets on
//! loopback, links emulated in real time.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, ensure};
use tradewind_simulator::emulation;
use tradewind_simulator::emulator::EmulatorHealth;
use tradewind_simulator::outcome::RouteAt;
use tradewind_simulator::progress::Silent;
use tradewind_simulator::relays::RealRelays;
use tradewind_simulator::world::World;

use crate::mesh::{EVERY, Fault, RELAYS, World as Mesh, name};
use crate::{ms, quantile};

/// The relays run for so long without traffic.
const WARMUP: Duration = Duration::from_secs(4);
/// From the first packet to the fault, ...
const CALM: Duration = Duration::from_secs(2);
/// ... and on to the last.
const AFTER: Duration = Duration::from_millis(1_500);

/// What one case showed.
struct Outcome {
    /// The longest time between two packets that came out, of all of the flow.
    gap: Duration,
    /// The round trip of the hop that died.
    hop: Duration,
    sent: u64,
    /// Never came out, or late.
    missed: u64,
    health: EmulatorHealth,
}

/// Runs so many cases and prints what they showed.
pub fn print(cases: usize, longest: Duration) -> anyhow::Result<()> {
    ensure!(cases > 0, "--real must be above zero");
    println!(
        "case  place  what                 gap ms  less RTT  missed  emulator late, p99 / most ms"
    );
    let (mut outcomes, mut elsewhere) = (Vec::new(), 0);
    for place in 0..4 * cases as u64 {
        if outcomes.len() == cases {
            break;
        }
        let failing = [Fault::Relay, Fault::Link][outcomes.len() % 2];
        let mesh = Mesh::new(place, longest, 0.0);
        let Some((from, to)) = mesh.ends(place) else { continue };
        let Some((_, path)) = mesh.shortest(from, to, &[], RELAYS) else { continue };
        let Some(at) = mesh.place_of(failing, &path, place) else { continue };
        let (near, far) = (name(path[at - 1]), name(path[at]));
        let Some(outcome) = run(&mesh, &path, at, failing, place)? else {
            elsewhere += 1;
            continue;
        };
        let what = match failing {
            Fault::Relay => format!("{far} killed"),
            Fault::Link | Fault::OneWay => format!("{near} - {far} dark"),
        };
        let [_, late, latest] = outcome.health.lateness.map(ms);
        outcomes.push(outcome);
        let Outcome { gap, hop, missed, .. } = &outcomes[outcomes.len() - 1];
        println!(
            "{:>4}  {place:>5}  {what:<18}  {:>7}  {:>8}  {missed:>6}  {late} / {latest}",
            outcomes.len(),
            ms(*gap),
            ms(gap.saturating_sub(*hop)),
        );
    }
    let sorted = |of: fn(&Outcome) -> Duration| {
        let mut spans: Vec<_> = outcomes.iter().map(of).collect();
        spans.sort_unstable();
        [0.5, 0.99, 1.0].map(|share| ms(quantile(&spans, share))).join(" / ")
    };
    let sum = |of: fn(&Outcome) -> u64| outcomes.iter().map(of).sum::<u64>();
    println!(
        "{} cases: gap median / p99 / worst {} ms; less the hop's RTT {} ms; missed {} of {}",
        outcomes.len(),
        sorted(|case| case.gap),
        sorted(|case| case.gap.saturating_sub(case.hop)),
        sum(|case| case.missed),
        sum(|case| case.sent),
    );
    println!(
        "Meshes of {RELAYS} real relays on loopback, one flow of 200 packets/s, links of at most {} ms RTT, a way around that is at \
         most 10 ms longer. The gap is the longest of the whole flow. Left out, as the flow took another \
         way than the shortest: {elsewhere}.",
        2 * longest.as_millis(),
    );
    Ok(())
}

/// Runs a case; `None` if the flow's route was not `path`.
fn run(
    mesh: &Mesh,
    path: &[usize],
    at: usize,
    failing: Fault,
    place: u64,
) -> anyhow::Result<Option<Outcome>> {
    let world = World::parse("bench-failover", &world(mesh, path, at, failing, place)?)?;
    let outcome = emulation::run(&world, &RealRelays, &mut Silent)?;
    let flow = outcome.flows.first().context("no flow")?;
    let before = flow.routes.iter().rfind(|route: &&RouteAt| route.at < CALM);
    let taken = before
        .and_then(|route| route.path.as_ref())
        .map(|path| path.iter().map(|pop| pop.as_str().to_owned()).collect::<Vec<_>>());
    if taken != Some(path.iter().copied().map(name).collect()) {
        return Ok(None);
    }
    Ok(Some(Outcome {
        gap: flow.overlay.longest_gap,
        hop: mesh.delay_along(&path[at - 1..=at]) * 2,
        sent: flow.overlay.sent,
        missed: flow.overlay.sent - flow.overlay.in_time,
        health: outcome.emulator.clone().unwrap_or_default(),
    }))
}

fn world(
    mesh: &Mesh,
    path: &[usize],
    at: usize,
    failing: Fault,
    place: u64,
) -> anyhow::Result<String> {
    let span = |span: Duration| format!("\"{}us\"", span.as_micros());
    // Faults come at any phase of timers.
    let fault = CALM + Duration::from_micros(place * 7_919 % 50_000);
    let mut text = format!(
        "[run]\nseed = {place}\nwarmup = {}\nduration = {}\n",
        span(WARMUP),
        span(CALM + AFTER)
    );
    for relay in 0..RELAYS {
        writeln!(text, "[[pop]]\nid = \"{}\"", name(relay))?;
    }
    let pairs = (0..RELAYS).flat_map(|a| (a + 1..RELAYS).map(move |b| (a, b)));
    for (a, b) in pairs {
        let Some(delay) = mesh.delays[a][b].map(span) else { continue };
        let between = format!("[\"{}\", \"{}\"]", name(a), name(b));
        writeln!(text, "[[link]]\nbetween = {between}\ndelay = {delay}\njitter = \"300us\"")?;
    }
    let (from, to) = (name(path[0]), name(path[path.len() - 1]));
    let pps = 1.0 / EVERY.as_secs_f64();
    writeln!(text, "[[traffic]]\nfrom = \"{from}\"\nto = \"{to}\"\nsize = 1000\npps = {pps}")?;
    let (near, far) = (name(path[at - 1]), name(path[at]));
    writeln!(text, "[[event]]\nat = {}", span(fault))?;
    match failing {
        Fault::Relay => writeln!(text, "kill = \"{far}\"")?,
        Fault::Link => writeln!(text, "cut = [\"{near}\", \"{far}\"]")?,
        Fault::OneWay => writeln!(text, "cut = \"{near}>{far}\"")?,
    }
    Ok(text)
}
