//! The daemon's frame: logs, signals, and the thread that a relay runs on.

use std::io::IsTerminal;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::error;

use super::{Command, Relay};
use crate::config::{Log, LogFormat, Source};

/// Runs the relay that `source` describes until a signal or an error ends it.
///
/// SIGHUP reads the configuration again; SIGTERM and SIGINT make it leave.
pub fn run(source: Source) -> anyhow::Result<()> {
    let config = source.load()?;
    start_log(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async move {
        let (commands, inbox) = mpsc::channel(8);
        let relay = Relay::bind(config)?;
        tokio::task::spawn_local(pass_signals(source, commands));
        relay.run(inbox).await
    })
}

fn start_log(log: &Log) {
    let filter = tracing_subscriber::EnvFilter::new(&log.filter);
    // Colour only on a terminal: elsewhere it is so many odd bytes in a file.
    let colour = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour);
    // Only the first relay of a process sets up its log.
    let _ = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

async fn pass_signals(source: Source, commands: mpsc::Sender<Command>) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP can't be watched")?;
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM can't be watched")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT can't be watched")?;
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(&source, &commands).await,
            _ = terminate.recv() => commands.send(Command::Leave).await?,
            _ = interrupt.recv() => commands.send(Command::Leave).await?,
        }
    }
}

/// Reads the configuration again; whatever is wrong with it, the old one stays.
async fn reload(source: &Source, commands: &mpsc::Sender<Command>) {
    let config = match source.load() {
        Ok(config) => config,
        Err(error) => {
            error!("the new configuration is refused, the old one stays: {error}");
            return;
        }
    };
    let (answer, outcome) = oneshot::channel();
    if commands.send(Command::Reload(Box::new(config), answer)).await.is_err() {
        return;
    }
    if let Ok(Err(error)) = outcome.await {
        error!("the new configuration is refused, the old one stays: {error:#}");
    }
}
