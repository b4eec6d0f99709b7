//! `tradewind-sim`: worlds for Tradewind, from the command line.

mod import;
mod run_command;
mod sweep_command;
mod terminal;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tradewind_simulator::outcome::Outcome;
use tradewind_simulator::world::{World, WorldError, builtin};
use tradewind_simulator::{demo, emulation};

use import::ImportArgs;
use run_command::RunArgs;
use sweep_command::SweepArgs;
use terminal::Terminal;
use tradewind_simulator::relays::RealRelays;

/// A seventh of a large world's time went into glibc's allocator; of mimalloc's it is a twentieth.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs worlds - PoPs, links, traffic, faults - with Tradewind's relays, in real or virtual time.
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
        /// A world file (TOML; the format is described in simulator/README.md), or a built-in world
        /// by its name (see `tradewind-sim worlds`)
        world: PathBuf,
        #[command(flatten)]
        real_time: RealTime,
    },
    /// Run a world in virtual time: the daemon's own relays over link models, as fast as they compute
    ///
    /// The same world, seed and binary give the same result, byte for byte. Every flow is also sent
    /// over the direct link between its ends, without an overlay; the table at the end shows both.
    #[command(after_help = "Examples:\n  tradewind-sim run my-world.toml\n  \
        tradewind-sim run my-world.toml --seed 7 --json > result.json\n  \
        tradewind-sim run my-world.toml --baseline arq --out report\n  \
        tradewind-sim run my-world.toml --out report --pcap fra-sgp,fra-lis\n  \
        tradewind-sim run my-world.toml --what-if \"remove sgp\" --what-if \"deny CN\" --what-if \"demand x2\"")]
    Run(RunArgs),
    /// Run a grid of worlds: keys of the world file vary, each point runs with several seeds
    ///
    /// Runs are spread over the cores. The table has a row for each point: share in time, delays,
    /// longest gap and bytes on the wire of all flows together, as means over the seeds with 95 %
    /// confidence intervals. The same for any number of threads, byte for byte. What the world asserts
    /// must be so in every run, else the exit status is 1.
    #[command(after_help = "Examples:\n  \
        tradewind-sim sweep my-world.toml --vary link.loss=0,0.05,0.3\n  \
        tradewind-sim sweep my-world.toml --vary link.loss=0,0.05,0.3 \\\n      \
        --vary recovery.mode=plan,arq,fec,none --seeds 10 --out result\n  \
        tradewind-sim sweep my-world.toml --vary link.hkg-sgp.delay=20ms,60ms \\\n      \
        --vary traffic.media.pps=100,1000 --json > result.json")]
    Sweep(SweepArgs),
    /// Run a small built-in world: a bad direct path beside the overlay, a relay killed halfway
    ///
    /// Five PoPs in Asia with measured latencies; video-like and audio-like flows from Hong Kong to
    /// New Delhi for 20 seconds. Exits 0 only if the overlay did better for every flow.
    #[command(after_help = "Examples:\n  tradewind-sim demo\n  tradewind-sim demo --json")]
    Demo {
        #[command(flatten)]
        real_time: RealTime,
    },
    /// List the worlds that are built in, by the names that `run` and `emulate` know
    Worlds,
    /// Make a world file from latencies, places, a topology or a snapshot of a live overlay
    #[command(
        after_help = "Examples:\n  tradewind-sim import graphml Geant2012.graphml -o geant.toml\n  \
        tradewind-sim import csv latency.csv > world.toml\n  \
        tradewind export --json > now.json; tradewind-sim import snapshot now.json -o now.toml"
    )]
    Import(ImportArgs),
}

#[derive(Args)]
struct Options {
    /// Random choices follow from this number instead of the world's own
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Print one JSON document instead of tables
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RealTime {
    #[command(flatten)]
    options: Options,
    /// Show the relays' log from this level on, on standard error (error, warn, info, debug, trace,
    /// or a tracing filter)
    #[arg(long, value_name = "LEVEL", env = "TRADEWIND_LOG", default_value = "off")]
    log: String,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read the output has seen enough of it.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            // A world that is wrong is wrong usage; everything else failed.
            ExitCode::from(if error.is::<WorldError>() { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Whether the command's promise was kept.
fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::Emulate { world, real_time } => {
            let outcome = emulate(World::load(&world)?, &real_time)?;
            print(&outcome, &real_time.options, true)?;
            Ok(holds(&outcome))
        }
        Command::Run(args) => run_command::run(args),
        Command::Sweep(args) => sweep_command::run(args),
        Command::Demo { real_time } => {
            let outcome = emulate(demo::world()?, &real_time)?;
            print(&outcome, &real_time.options, false)?;
            Ok(outcome.overlay_is_better() && !outcome.interrupted())
        }
        Command::Worlds => {
            let mut out = std::io::stdout().lock();
            for world in builtin::WORLDS {
                writeln!(out, "{:<12} {}", world.name, world.about)?;
            }
            Ok(true)
        }
        Command::Import(args) => args.run().map(|()| true),
    }
}

/// Whether the run came to its end and what the world asserts is so; else says what is not.
fn holds(outcome: &Outcome) -> bool {
    none_broken(&outcome.broken()) && !outcome.interrupted()
}

/// Whether there is no figure that is not as asserted; else tells them.
fn none_broken(broken: &[String]) -> bool {
    for figure in broken {
        eprintln!("not as asserted: {figure}");
    }
    broken.is_empty()
}

fn seeded(world: World, options: &Options) -> World {
    World { seed: options.seed.unwrap_or(world.seed), ..world }
}

fn emulate(world: World, real_time: &RealTime) -> anyhow::Result<Outcome> {
    let filter = tracing_subscriber::EnvFilter::try_new(&real_time.log)?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let world = seeded(world, &real_time.options);
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
