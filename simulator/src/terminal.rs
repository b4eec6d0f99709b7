//! Live progress on the standard error stream: a bar on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tradewind_simulator::progress::{FlowTick, Progress, Tick};

/// Between two plain lines about the state, of the reader's time.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows how a run goes, and listens for Ctrl-C.
pub struct Terminal {
    display: Display,
    /// When traffic began to flow.
    began: Option<Instant>,
    interrupted: Arc<AtomicBool>,
}

enum Display {
    /// A bar that is redrawn.
    Bar(ProgressBar),
    /// A line now and then: the last one was then.
    Lines { last: Option<Instant> },
}

impl Terminal {
    /// What suits standard error.
    pub fn new() -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        listen_for_ctrl_c(interrupted.clone())?;
        if !std::io::stderr().is_terminal() {
            let display = Display::Lines { last: None };
            return Ok(Self { display, began: None, interrupted });
        }
        let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
        bar.set_style(ProgressStyle::with_template("{bar:24} {msg}")?);
        Ok(Self { display: Display::Bar(bar), began: None, interrupted })
    }

    /// Of `of` runs, `runs` are over.
    pub fn count(&mut self, runs: usize, of: usize) {
        let took = self.began.get_or_insert_with(Instant::now).elapsed();
        let message = || {
            let rest = took.mul_f64(of.saturating_sub(runs) as f64 / runs.max(1) as f64);
            format!("{runs} of {of} runs, ETA {:#}", HumanDuration(rest))
        };
        self.display.show(runs as u64, of as u64, message);
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

impl Display {
    fn show(&mut self, position: u64, length: u64, message: impl FnOnce() -> String) {
        match self {
            Self::Bar(bar) => {
                bar.set_length(length);
                bar.set_position(position);
                bar.set_message(message());
            }
            Self::Lines { last } if last.is_none_or(|last| last.elapsed() >= LINE_EVERY) => {
                *last = Some(Instant::now());
                eprintln!("{}", message());
            }
            Self::Lines { .. } => {}
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
        if state.elapsed.is_zero() {
            self.began = Some(Instant::now());
        }
        let took = self.began.get_or_insert_with(Instant::now).elapsed();
        let message = || {
            let flows: Vec<String> = state.flows.iter().take(3).map(flow_text).collect();
            format!("{}  {}", pace_text(state, took), flows.join("  |  "))
        };
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.display.show(millis(state.elapsed), millis(state.total), message);
    }

    fn interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }
}

/// The world's time, how much of it passes in a second, and how long the rest takes at that pace.
fn pace_text(state: &Tick<'_>, took: Duration) -> String {
    let (elapsed, total) = (state.elapsed.as_secs_f64(), state.total.as_secs_f64());
    let clock = format!("{elapsed:5.1} of {total:.0} s");
    if state.elapsed.is_zero() || took.is_zero() {
        return clock;
    }
    let speed = elapsed / took.as_secs_f64();
    let rest = Duration::from_secs_f64((total - elapsed).max(0.0) / speed);
    format!("{clock}, {speed:.1} x real time, ETA {:#}", HumanDuration(rest))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_so_far_tells_how_long_the_rest_takes() {
        let text = |elapsed, took| {
            let tick = Tick {
                elapsed: Duration::from_secs(elapsed),
                total: Duration::from_secs(60),
                flows: &[],
            };
            pace_text(&tick, Duration::from_millis(took))
        };
        assert_eq!(text(0, 0), "  0.0 of 60 s");
        assert_eq!(text(20, 10_000), " 20.0 of 60 s, 2.0 x real time, ETA 20s");
        assert_eq!(text(60, 1_000), " 60.0 of 60 s, 60.0 x real time, ETA 0s");
    }
}
