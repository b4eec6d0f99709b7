//! Live progress on the standard error stream: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tradewind_simulator::progress::{FlowTick, Progress, Tick};

/// Between two plain lines about the state.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how a run goes, and listens for Ctrl-C.
pub struct Terminal {
    display: Display,
    interrupted: Arc<AtomicBool>,
}

enum Display {
    /// A bar that is redrawn.
    Bar(ProgressBar),
    /// A line now and then; the next when traffic has flowed so long.
    Lines { next: Duration },
}

impl Terminal {
    /// What suits standard error.
    pub fn new() -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        listen_for_ctrl_c(interrupted.clone())?;
        if !std::io::stderr().is_terminal() {
            return Ok(Self { display: Display::Lines { next: Duration::ZERO }, interrupted });
        }
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{bar:24} {msg}")?);
        Ok(Self { display: Display::Bar(bar), interrupted })
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

/// The first Ctrl-C asks for an early end with a result, the second ends the process.
fn listen_for_ctrl_c(interrupted: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wait = async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            if interrupted.swap(true, Ordering::Relaxed) {
                std::process::exit(130);
            }
        }
    };
    std::thread::Builder::new().name("ctrl-c".into()).spawn(move || runtime.block_on(wait))?;
    Ok(())
}

impl Progress for Terminal {
    fn note(&mut self, line: &str) {
        match &self.display {
            Display::Bar(bar) => bar.println(line),
            Display::Lines { .. } => eprintln!("{line}"),
        }
    }

    fn tick(&mut self, state: &Tick<'_>) {
        let message = || {
            let flows: Vec<String> = state.flows.iter().take(3).map(flow_text).collect();
            let (elapsed, total) = (state.elapsed.as_secs_f64(), state.total.as_secs_f64());
            format!("{elapsed:5.1} of {total:.0} s  {}", flows.join("  |  "))
        };
        match &mut self.display {
            Display::Bar(bar) => {
                bar.set_length(u64::try_from(state.total.as_millis()).unwrap_or(u64::MAX));
                bar.set_position(u64::try_from(state.elapsed.as_millis()).unwrap_or(u64::MAX));
                bar.set_message(message());
            }
            Display::Lines { next } if state.elapsed >= *next => {
                *next += LINE_EVERY;
                eprintln!("{}", message());
            }
            Display::Lines { .. } => {}
        }
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// Packets under way make the share fall a little short while a run lasts.
fn flow_text(flow: &FlowTick) -> String {
    let percent = |in_time: u64| 100.0 * in_time as f64 / flow.sent.max(1) as f64;
    let route = match (&flow.route, flow.flows) {
        (Some(path), _) => path.iter().map(ToString::to_string).collect::<Vec<_>>().join(">"),
        (None, 1) => "no route".into(),
        (None, several) => format!("({several} flows)"),
    };
    let direct = flow.direct_in_time.map(|in_time| format!(", direct {:.1} %", percent(in_time)));
    let overlay = percent(flow.overlay_in_time);
    format!("{} {route} {overlay:.1} %{}", flow.name, direct.unwrap_or_default())
}
