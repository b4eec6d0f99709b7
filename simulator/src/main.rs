//! `tradewind-sim`: worlds for Tradewind, from the command line.

mod relays;
mod terminal;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tradewind_simulator::outcome::Outcome;
use tradewind_simulator::world::{World, WorldError};
use tradewind_simulator::{demo, emulation};

use relays::RealRelays;
use terminal::Terminal;

/// Emulates worlds - PoPs, links, traffic, faults - with real Tradewind relays.
#[derive(Parser)]
#[command(name = "tradewind-sim", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a world in real time: real relays, real UDP sockets, links emulated on loopback, no root
    ///
    /// Every flow is also sent over the direct link between its ends, without an overlay, through
    /// the same link model with the same seed; the table at the end shows both.
    #[command(after_help = "Examples:\n  tradewind-sim emulate my-world.toml\n  \
        tradewind-sim emulate my-world.toml --seed 7 --json > result.json")]
    Emulate {
        /// The world file (TOML; the format is described in simulator/README.md)
        world: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Run a small built-in world: a bad direct path beside the overlay, a relay killed halfway
    ///
    /// Five PoPs in Asia with measured latencies; video-like and audio-like flows from Hong Kong to
    /// New Delhi for 20 seconds. Exits 0 only if the overlay did better for every flow.
    #[command(after_help = "Examples:\n  tradewind-sim demo\n  tradewind-sim demo --json")]
    Demo {
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Args)]
struct Options {
    /// Random choices follow from this number instead of the world's own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
    /// Show the relays' log from this level on, on standard error (error, warn, info, debug, trace,
    /// or a tracing filter)
    #[arg(long, value_name = "LEVEL", env = "TRADEWIND_LOG", default_value = "off")]
    log: String,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            // A world that is wrong is wrong usage; everything else failed.
            ExitCode::from(if error.is::<WorldError>() { 2 } else { 1 })
        }
    }
}

/// Whether the command's promise was kept.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Emulate { world, options } => {
            let outcome = emulate(World::load(&world)?, &options)?;
            print(&outcome, &options, true)?;
            Ok(!outcome.interrupted())
        }
        Command::Demo { options } => {
            let outcome = emulate(demo::world()?, &options)?;
            print(&outcome, &options, false)?;
            Ok(outcome.overlay_is_better() && !outcome.interrupted())
        }
    }
}

fn emulate(mut world: World, options: &Options) -> anyhow::Result<Outcome> {
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    world.seed = options.seed.unwrap_or(world.seed);
    let mut terminal = Terminal::new()?;
    let whole = world.duration + world.warmup + Duration::from_secs(2);
    eprintln!("world \"{}\", seed {}: takes about {} s", world.name, world.seed, whole.as_secs());
    let outcome = emulation::run(&world, &RealRelays, &mut terminal);
    terminal.finish();
    outcome
}

fn print(outcome: &Outcome, options: &Options, links: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if options.json {
        return writeln!(out, "{:#}", outcome.to_json());
    }
    writeln!(out, "{}", outcome.flow_table())?;
    if links {
        writeln!(out, "\n{}", outcome.link_table())?;
    }
    writeln!(out)?;
    for remark in outcome.remarks() {
        writeln!(out, "{remark}")?;
    }
    if !links {
        let better = outcome.overlay_is_better();
        let verdict =
            if better { "the overlay did better" } else { "the overlay did NOT do better" };
        writeln!(out, "{verdict} than the direct path")?;
    }
    Ok(())
}
