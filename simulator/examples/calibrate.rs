//! Is what `tradewind-sim run` computes what `tradewind-sim emulate` measures? Runs the same worlds
//! at both fidelities and in real time, and prints the figures side by side. Run it with
//! `scripts/calibrate`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::Parser;
use comfy_table::{Table, presets};
use serde_json::Value;
use tradewind_simulator::progress::Silent;
use tradewind_simulator::simulation;
use tradewind_simulator::world::{Fidelity, World};

/// Figures of `run` beside those of `emulate`, for the same worlds.
#[derive(Parser)]
struct Args {
    /// World files; default: those in simulator/worlds/calibration
    worlds: Vec<PathBuf>,
    /// By how much the two may differ, in per cent of the emulated figure
    #[arg(long, default_value_t = 10.0)]
    tolerance: f64,
    /// Emulations of each world, of which the median counts
    #[arg(long, default_value_t = 3)]
    runs: u64,
    /// Compare the two fidelities of `run` only: seconds instead of minutes
    #[arg(long)]
    no_emulation: bool,
}

/// The figures of one flow, or of the wire: name and value.
type Figures = Vec<(String, f64)>;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let worlds = if args.worlds.is_empty() { shipped()? } else { args.worlds };
    let mut table = Table::new();
    let header = ["world", "figure", "emulate", "packet", "off by %", "flow", "off by %"];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    let mut far = 0;
    for world in &worlds {
        eprintln!("{}", world.display());
        let median = |run: &dyn Fn(u64) -> anyhow::Result<Value>| -> anyhow::Result<Figures> {
            let runs = (1..=args.runs).map(|seed| figures(&run(seed)?));
            Ok(medians(&runs.collect::<anyhow::Result<Vec<_>>>()?))
        };
        let [packet, flow] = [Fidelity::Packet, Fidelity::Flow]
            .map(|fidelity| median(&|seed| simulated(world, seed, fidelity)));
        let (packet, flow) = (packet?, flow?);
        let emulated = match args.no_emulation {
            true => None,
            false => Some(median(&|seed| emulated(world, seed))?),
        };
        let reference = emulated.as_ref().unwrap_or(&packet);
        for (at, (name, reference)) in reference.iter().enumerate() {
            let off = |value: f64| 100.0 * (value - reference) / reference;
            let [packet, flow] = [packet[at].1, flow[at].1];
            far += [packet, flow].iter().filter(|got| off(**got).abs() > args.tolerance).count();
            let stem = world.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
            table.add_row([
                stem.into_owned(),
                name.clone(),
                emulated.as_ref().map_or("-".into(), |figures| format!("{:.3}", figures[at].1)),
                format!("{packet:.3}"),
                format!("{:+.1}", off(packet)),
                format!("{flow:.3}"),
                format!("{:+.1}", off(flow)),
            ]);
        }
    }
    println!("{table}");
    println!("{far} figures differ by more than {} %", args.tolerance);
    Ok(())
}

fn shipped() -> anyhow::Result<Vec<PathBuf>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("worlds/calibration");
    let entries =
        std::fs::read_dir(&dir).with_context(|| format!("can't read {}", dir.display()))?;
    let mut worlds = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    worlds.sort();
    Ok(worlds)
}

/// What `tradewind-sim emulate` of the same build says of `world`.
fn emulated(world: &Path, seed: u64) -> anyhow::Result<Value> {
    let here = std::env::current_exe()?;
    let built = here.ancestors().nth(2).context("this program lies in no build directory")?;
    let mut program = Command::new(built.join("tradewind-sim"));
    let program =
        program.arg("emulate").arg(world).arg("--json").args(["--seed", &seed.to_string()]);
    let output = program.stderr(Stdio::null()).output().context("can't run tradewind-sim")?;
    ensure!(output.status.success(), "emulate {} failed: {}", world.display(), output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What a run in virtual time says of `world`.
fn simulated(world: &Path, seed: u64, fidelity: Fidelity) -> anyhow::Result<Value> {
    let world = World { seed, fidelity, ..World::load(world)? };
    Ok(simulation::run(&world, &mut Silent)?.to_json())
}

fn figures(outcome: &Value) -> anyhow::Result<Figures> {
    let flows = outcome["flows"].as_array().context("no flows")?;
    let mut figures = Figures::new();
    for flow in flows {
        let name = flow["name"].as_str().unwrap_or_default();
        for figure in ["in_time_share", "delay_median_ms", "delay_p99_ms", "longest_gap_ms"] {
            let value = flow["overlay"][figure].as_f64().context("a flow without figures")?;
            figures.push((format!("{name} {figure}"), value));
        }
    }
    let wire = outcome["wire"]["bytes_per_payload_byte_and_link"].as_f64();
    figures.push(("wire bytes/payload byte and link".into(), wire.context("no wire")?));
    Ok(figures)
}

fn medians(runs: &[Figures]) -> Figures {
    let median = |at: usize, name: &str| {
        let mut values: Vec<f64> = runs.iter().map(|run| run[at].1).collect();
        values.sort_by(f64::total_cmp);
        (name.to_owned(), values[values.len() / 2])
    };
    let first = runs.first().map(Vec::as_slice).unwrap_or_default();
    first.iter().enumerate().map(|(at, (name, _))| median(at, name)).collect()
}
