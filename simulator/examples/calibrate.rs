//! Is what `tradewind-sim run` computes what `tradewind-sim emulate` measures? Runs the same worlds
//! both ways and prints both figures side by side. Run it with `scripts/calibrate`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::Parser;
use comfy_table::{Table, presets};
use serde_json::Value;

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
}

/// The figures of one flow, or of the wire: name and value.
type Figures = Vec<(String, f64)>;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let worlds = if args.worlds.is_empty() { shipped()? } else { args.worlds };
    let mut table = Table::new();
    let header = ["world", "figure", "run", "emulate", "off by %", "within"];
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    let mut far = 0;
    for world in &worlds {
        eprintln!("{}", world.display());
        let virtual_runs = (1..=args.runs).map(|seed| figures("run", world, seed));
        let virtual_ones = medians(&virtual_runs.collect::<anyhow::Result<Vec<_>>>()?);
        let real_runs = (1..=args.runs).map(|seed| figures("emulate", world, seed));
        let real_ones = medians(&real_runs.collect::<anyhow::Result<Vec<_>>>()?);
        for ((name, run), (_, emulate)) in virtual_ones.iter().zip(&real_ones) {
            let off = 100.0 * (run - emulate) / emulate;
            let within = off.abs() <= args.tolerance;
            far += usize::from(!within);
            let stem = world.file_stem().map(|stem| stem.to_string_lossy()).unwrap_or_default();
            table.add_row([
                stem.into_owned(),
                name.clone(),
                format!("{run:.3}"),
                format!("{emulate:.3}"),
                format!("{off:+.1}"),
                if within { "yes" } else { "NO" }.to_owned(),
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

/// What `tradewind-sim` of the same build says of `world`.
fn figures(command: &str, world: &Path, seed: u64) -> anyhow::Result<Figures> {
    let here = std::env::current_exe()?;
    let built = here.ancestors().nth(2).context("this program lies in no build directory")?;
    let mut program = Command::new(built.join("tradewind-sim"));
    let program = program.arg(command).arg(world).arg("--json").args(["--seed", &seed.to_string()]);
    let output = program.stderr(Stdio::null()).output().context("can't run tradewind-sim")?;
    ensure!(output.status.success(), "{command} {} failed: {}", world.display(), output.status);
    let outcome: Value = serde_json::from_slice(&output.stdout)?;
    let flows = outcome["flows"].as_array().context("no flows")?;
    let mut figures = Figures::new();
    for flow in flows {
        let name = flow["name"].as_str().unwrap_or_default();
        for figure in ["in_time_share", "delay_median_ms", "delay_p99_ms"] {
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
