//! `tradewind-sim run`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use tradewind_simulator::baseline::{self, Way};
use tradewind_simulator::capture::{self, Capture, Captured};
use tradewind_simulator::outcome::Outcome;
use tradewind_simulator::progress::Progress;
use tradewind_simulator::report::{Recorder, Report};
use tradewind_simulator::simulation;
use tradewind_simulator::what_if::{self, WhatIf};
use tradewind_simulator::world::{LinkId, World, WorldError};

use crate::terminal::Terminal;
use crate::{Options, holds, none_broken, print, seeded};

#[derive(Args)]
pub struct RunArgs {
    /// A world file (TOML; the format is described in simulator/README.md), or a built-in world
    /// by its name (see `tradewind-sim worlds`)
    world: PathBuf,
    /// Run the world before and after this change, and show both; may be given several times
    ///
    /// Each change by itself, then all together. "remove PLACE", "kill PLACE [at TIME]",
    /// "cut A B [at TIME]", "add link A B DELAY LOSS" (or no LOSS), "delay A B SPAN", "loss A B SHARE",
    /// "rate A B RATE", "demand xN [of TRAFFIC]", "deny PLACE", "policy NAME"; a place is a PoP,
    /// region, country or provider. All are described in simulator/README.md. What the world asserts must
    /// be so in every run. With --out, each of these runs has a folder in DIR with its report.
    #[arg(long, value_name = "CHANGE", conflicts_with_all = ["pcap", "baselines", "no_baselines"])]
    what_if: Vec<WhatIf>,
    #[command(flatten)]
    options: Options,
    /// Run the world once more for comparison, beside "routed" (nothing repaired), which is always
    /// run: rtt (routes by round-trip time alone), fec (fixed parity), arq (repeats alone), disjoint
    /// (two paths for every packet)
    #[arg(long = "baseline", value_name = "WAY", value_parser = ["rtt", "fec", "arq", "disjoint"])]
    baselines: Vec<String>,
    /// Run the world once only, without "routed"
    #[arg(long, conflicts_with = "baselines")]
    no_baselines: bool,
    /// Also write report.html (open it in a browser), summary.json, series.csv and events.ndjson
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Also write DIR/links.pcapng, for Wireshark: the packets that enter these links, A-B for both
    /// directions, "A>B" for one
    ///
    /// From when traffic begins, which is time 0; the overlay's run only, not its baselines. Packets
    /// that the link drops are there too, with a comment that says why. The payload is Tradewind's
    /// frames: there is no QUIC around them, and nothing is encrypted. At most 256 MiB.
    #[arg(long, value_name = "A-B,…", value_delimiter = ',', requires = "out")]
    pcap: Vec<String>,
}

impl RunArgs {
    fn ways(&self) -> Vec<Way> {
        let wanted = |way: &Way| match way {
            Way::Routed => !self.no_baselines,
            _ => self.baselines.iter().any(|name| name == way.name()),
        };
        Way::BASELINES.into_iter().filter(wanted).collect()
    }
}

/// Whether the run came to its end, with what the world asserts.
pub fn run(args: RunArgs) -> anyhow::Result<bool> {
    let world = seeded(World::load(&args.world)?, &args.options);
    if !args.what_if.is_empty() {
        return compare(&args, &world);
    }
    let links = links_to_capture(&args, &world)?;
    let mut terminal = Terminal::new()?;
    let outcome = match &args.out {
        Some(folder) => run_and_report(&world, &args.ways(), (folder, &links), &mut terminal),
        None => baseline::run(&world, &args.ways(), &mut terminal),
    };
    terminal.finish();
    let outcome = outcome?;
    print(&outcome, &args.options, true)?;
    Ok(holds(&outcome))
}

fn links_to_capture(args: &RunArgs, world: &World) -> Result<Vec<LinkId>, WorldError> {
    let wrong = |message| {
        let file = args.world.display().to_string();
        WorldError { file, line: None, message: format!("--pcap: {message}") }
    };
    match args.pcap.is_empty() {
        true => Ok(Vec::new()),
        false => capture::links(world, &args.pcap).map_err(wrong),
    }
}

fn run_and_report(
    world: &World,
    ways: &[Way],
    (folder, links): (&Path, &[LinkId]),
    terminal: &mut Terminal,
) -> anyhow::Result<Outcome> {
    let cant = || format!("can't write the report to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(cant)?;
    let mut recorder = Recorder::new(world, terminal);
    let outcome = match links {
        [] => baseline::run(world, ways, &mut recorder)?,
        links => {
            let path = folder.join("links.pcapng");
            let file = BufWriter::new(File::create(&path).with_context(cant)?);
            let capture = Capture::new(world, links, file).with_context(cant)?;
            let (mut outcome, captured) = simulation::run_captured(world, capture, &mut recorder)?;
            recorder.note(&captured_text(captured, &path));
            baseline::compare(&mut outcome, world, ways, &mut recorder)?;
            outcome
        }
    };
    Report::new(world, &outcome, &recorder).write(folder).with_context(cant)?;
    Ok(outcome)
}

fn captured_text(Captured { packets, left_out }: Captured, path: &Path) -> String {
    let written = format!("{packets} packets captured in {}", path.display());
    let most = Capture::LIMIT >> 20;
    match left_out {
        0 => written,
        _ => format!(
            "{written}; then it was full, at {most} MiB, and {left_out} were left out: capture fewer \
             links or a shorter run"
        ),
    }
}

/// Whether all runs came to their end, with what the world asserts.
fn compare(args: &RunArgs, world: &World) -> anyhow::Result<bool> {
    let mut terminal = Terminal::new()?;
    let mut cases = 0..;
    let mut run = |name: &str, world: &World| {
        terminal.note(&format!("{name}:"));
        let case = match cases.next() {
            None | Some(0) => "before".to_owned(),
            Some(number) if number > args.what_if.len() => "what-if-all".to_owned(),
            Some(number) => format!("what-if-{number}"),
        };
        match &args.out {
            Some(folder) => run_and_report(world, &[], (&folder.join(case), &[]), &mut terminal),
            None => simulation::run(world, &mut terminal),
        }
    };
    let name = args.world.display().to_string();
    let comparison = what_if::compare((&name, world), &args.what_if, &mut run);
    terminal.finish();
    let comparison = comparison?;
    if let Some(folder) = &args.out {
        let summary = format!("{:#}\n", comparison.to_json());
        std::fs::write(folder.join("summary.json"), summary)
            .with_context(|| format!("can't write the report to {}", folder.display()))?;
    }
    let mut out = std::io::stdout().lock();
    if args.options.json {
        writeln!(out, "{:#}", comparison.to_json())?;
    } else {
        writeln!(out, "{}\n", comparison.table())?;
        for remark in comparison.remarks() {
            writeln!(out, "{remark}")?;
        }
    }
    Ok(none_broken(&comparison.broken()) && comparison.is_whole())
}
